//! A cut-over (dcs-migration.md §4.12): clients are led from the source to the target, or back.
//!
//! ```text
//! pause writers ─> drain ─> fence the source ─> hook ─> decide ─> let clients go
//!       └──────────── undone when interrupted ──────┘   │  └── finished when interrupted
//!                                                       one transaction: state + registry
//! ```
//!
//! The fence makes the source refuse every write (`min-replicas-to-write`), so that nothing can be acknowledged on the side
//! that is left, whatever happens to us behind the decision.

use std::time::{Duration, Instant};

use model::failure::{Failure, Kind, Result, Side};
use model::migration::{End, MigrationEvent, MigrationIllegal};
use redis_migration::asker::Asker;
use redis_migration::client::Client;
use redis_migration::server::Server;
use redis_migration::topology::Addr;
use redis_migration::{Node, Summary};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::run::{Held, Job, ask};
use super::words::{Word, said};

/// Writers are held for at most so long.
const PAUSE: Duration = Duration::from_secs(60);
/// What was decided must be decided by then: the pause ends by itself.
const DECIDE: Duration = Duration::from_secs(45);
/// A hook that takes longer has failed.
const HOOK: Duration = Duration::from_secs(20);
/// More replicas than anybody has.
const FENCED: &str = "1000000";
/// Attempts to put a source back that does not answer, and the pause between them.
const PUT_BACK: u32 = 20;
const PUT_BACK_PAUSE: Duration = Duration::from_secs(1);

/// A command of the operator that leads clients elsewhere; its standard input is a JSON object, and exit status 0 means that
/// it is done. It may be called again with the same object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook(pub Vec<String>);

/// What must be known again after a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Cutover {
    /// Source addresses that the request named.
    pub(super) exchanged_ip: Vec<String>,
    /// Where instances stood before.
    moved: Vec<(String, String)>,
    /// What each master of the source was set to before it was fenced: its address, replicas to write, and their
    /// greatest lag.
    fences: Vec<(Addr, String, String)>,
    /// The hook was called, so it must be called the other way round to undo it.
    hooked: bool,
}

impl Cutover {
    fn of(held: &Held<'_>) -> Self {
        serde_json::from_value(held.row.cutover.clone()).unwrap_or_default()
    }

    async fn save(&self, held: &mut Held<'_>) -> Result<()> {
        held.row.cutover = serde_json::to_value(self).unwrap_or_default();
        let mut unit = held.write().await?;
        unit.set_cutover(held.id, &held.row.cutover).await?;
        unit.save().await
    }
}

/// How a cut-over ended.
pub(super) enum Outcome {
    Exchanged,
    Undone,
    /// The service is ending; everything is put back.
    Rested,
}

/// A cut-over under way.
pub(super) struct Exchange {
    cutover: Cutover,
    finish: CancellationToken,
    began: Instant,
    /// The mover has ended, and said how.
    ended: bool,
}

/// The names of the settings before and since 5.0.
const SETTINGS: [(&str, &str); 2] =
    [("min-replicas-to-write", "min-replicas-max-lag"), ("min-slaves-to-write", "min-slaves-max-lag")];

fn settings(server: &Server) -> (&'static str, &'static str) {
    SETTINGS[usize::from(!server.is_at_least((5, 0)))]
}

/// One server of an end, or every master of a cluster.
struct Masters {
    side: Side,
    servers: Vec<(Addr, Client, Server)>,
}

impl Masters {
    async fn open(node: &Node, side: Side) -> Result<Self> {
        let (asker, _, topology) = Asker::open(node, side).await?;
        let mut servers = Vec::new();
        // Of single servers that are one and its replicas, whichever is the master now.
        let addrs = if topology.is_some() { asker.masters() } else { node.addrs.clone() };
        for addr in addrs {
            let client = Client::open(&Node { db: None, ..node.at(&addr) }).await;
            let mut client = client.map_err(|f| f.at(side))?;
            let server = Server::ask(&mut client).await.map_err(|f| f.at(side))?;
            if !server.is_replica {
                servers.push((addr, client, server));
            }
        }
        if servers.is_empty() {
            let m = format!(
                "{} is a replica, where writes cannot be paused; hint: use the address of its \
                 master",
                node.place()
            );
            return Err(Failure::new(Kind::Unsupported, "exchange", m).at(side));
        }
        Ok(Self { side, servers })
    }

    async fn fences(&mut self) -> Result<Vec<(Addr, String, String)>> {
        let mut all = Vec::new();
        for (addr, client, server) in &mut self.servers {
            let (write, lag) = settings(server);
            let mut values = Vec::new();
            for name in [write, lag] {
                let reply = client.call(&[b"CONFIG", b"GET", name.as_bytes()]).await;
                let reply = reply.map_err(|f| f.at(self.side))?;
                let value = reply.array().and_then(|a| a.get(1)).and_then(|v| v.text());
                let none =
                    || Failure::new(Kind::Unsupported, "fence", format!("the server has no setting {name}"));
                values.push(String::from_utf8_lossy(value.ok_or_else(none)?).into_owned());
            }
            let lag = values.pop().unwrap_or_default();
            all.push((addr.clone(), values.pop().unwrap_or_default(), lag));
        }
        Ok(all)
    }

    /// Sets the fence of each server; one that is not named is left as it is.
    async fn set_fences(&mut self, wanted: impl Fn(&Addr) -> Option<(String, String)>) -> Result<()> {
        for (addr, client, server) in &mut self.servers {
            let Some((write, lag)) = wanted(addr) else { continue };
            let names = settings(server);
            for (name, value) in [(names.1, lag), (names.0, write)] {
                let set = client.ok(&[b"CONFIG", b"SET", name.as_bytes(), value.as_bytes()]).await;
                set.map_err(|f| f.at(self.side))?;
            }
        }
        Ok(())
    }

    async fn fence(&mut self) -> Result<()> {
        self.set_fences(|_| Some((FENCED.to_owned(), "10".to_owned()))).await
    }

    async fn unfence(&mut self, fences: &[(Addr, String, String)]) -> Result<()> {
        let before = |addr: &Addr| fences.iter().find(|(a, ..)| a == addr);
        self.set_fences(|addr| before(addr).map(|(_, write, lag)| (write.clone(), lag.clone()))).await
    }

    /// Writes alone can be paused (since 6.2).
    fn pause_writes(&self) -> bool {
        self.servers.iter().all(|(.., server)| server.is_at_least((6, 2)))
    }

    async fn pause(&mut self) -> Result<()> {
        let ms = PAUSE.as_millis().to_string();
        for (_, client, _) in &mut self.servers {
            let paused = client.ok(&[b"CLIENT", b"PAUSE", ms.as_bytes(), b"WRITE"]).await;
            paused.map_err(|f| f.at(self.side))?;
        }
        Ok(())
    }

    /// Lets writers go on; those that are still there are ended first when they are to come back elsewhere.
    async fn let_go(&mut self, end: bool) -> Result<()> {
        let unpause = self.pause_writes();
        for (_, client, _) in &mut self.servers {
            if end {
                let killed = client.call(&[b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"]).await;
                killed.map_err(|f| f.at(self.side))?;
            }
            if unpause {
                client.ok(&[b"CLIENT", b"UNPAUSE"]).await.map_err(|f| f.at(self.side))?;
            }
        }
        Ok(())
    }

    /// Keys that do not expire.
    async fn lasting(&mut self) -> Result<u64> {
        let mut lasting = 0;
        for (_, client, _) in &mut self.servers {
            let server = Server::ask(client).await.map_err(|f| f.at(self.side))?;
            lasting += server.keys.saturating_sub(server.expires);
        }
        Ok(lasting)
    }
}

/// Both ends as they stood when the cut-over began.
fn ends(held: &Held<'_>, cutover: &Cutover) -> Result<(Node, Node)> {
    let node = |end: &Option<End>, side: Side| {
        let end = end.clone().unwrap_or_default();
        super::node_of(&end, held.secrets.of(side), held.engine.places(), &cutover.moved)
            .map_err(|f| f.at(side))
    };
    let spec = &held.row.spec;
    Ok((node(&spec.source, Side::Source)?, node(&spec.target, Side::Target)?))
}

/// Both instances, when both are registered.
fn registered(held: &Held<'_>) -> Option<(String, String)> {
    let id = |end: &Option<End>| end.as_ref().and_then(|e| e.id.clone());
    id(&held.row.spec.source).zip(id(&held.row.spec.target))
}

async fn call_hook(held: &Held<'_>, cutover: &Cutover, back: bool) -> Result<()> {
    let Some(Hook(command)) = held.engine.places().hook() else { return Ok(()) };
    let Some((program, args)) = command.split_first() else { return Ok(()) };
    let (source, target) = ends(held, cutover)?;
    let side = |end: &Option<End>, node: &Node| {
        let addrs: Vec<String> = node.addrs.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        json!({"id": end.as_ref().and_then(|e| e.id.clone()), "addrs": addrs})
    };
    let about = json!({
        "task_id": held.id,
        "direction": if back { "rollback" } else { "exchange" },
        "source": side(&held.row.spec.source, &source),
        "target": side(&held.row.spec.target, &target),
        "exchanged_ip": cutover.exchanged_ip,
    });
    let failed = |why: String| Failure::new(Kind::Unsupported, "hook", format!("the hook `{program}` {why}"));
    let called = async {
        // With everything that it starts, when it is given up.
        let mut child = tokio::process::Command::new(program)
            .args(args)
            .stdin(std::process::Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(format!("could not be started: {e}")))?;
        let _group = Group(child.id());
        if let Some(mut stdin) = child.stdin.take() {
            // A hook that does not read is no failure.
            let _ = stdin.write_all(about.to_string().as_bytes()).await;
        }
        child.wait().await.map_err(|e| failed(format!("could not be waited for: {e}")))
    };
    match tokio::time::timeout(HOOK, called).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("failed with {status}"))),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(failed(format!("did not finish within {} s", HOOK.as_secs()))),
    }
}

/// The processes of a hook; they end with it.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Exchange {
    pub(super) fn new(held: &Held<'_>, finish: CancellationToken) -> Result<Self> {
        let mut cutover = Cutover::of(held);
        cutover.moved = held.moved.clone();
        Ok(Self { cutover, finish, began: Instant::now(), ended: false })
    }

    /// Carries it out, or puts everything back.
    ///
    /// # Errors
    /// When the store fails; then the next start puts everything back.
    pub(super) async fn run(mut self, held: &mut Held<'_>, mut job: Job) -> Result<Outcome> {
        match self.decide(held, &mut job.0).await {
            Ok(()) => {
                complete(held).await?;
                Ok(Outcome::Exchanged)
            }
            // Another worker holds it: what stands at the ends is not this one's to put back.
            Err(failure) if failure.kind == Kind::LeaseLost => Err(failure),
            Err(failure) => {
                undo(held, &said(&failure)).await?;
                // The mover may be on its way to its end; whatever it does, the target says how far it is.
                if !self.ended {
                    let _ = tokio::time::timeout(Duration::from_secs(1), &mut job.0).await;
                }
                Ok(if held.is_told_to_stop() { Outcome::Rested } else { Outcome::Undone })
            }
        }
    }

    /// Everything up to the decision.
    async fn decide(&mut self, held: &mut Held<'_>, job: &mut JoinHandle<Result<Summary>>) -> Result<()> {
        let (from, to) = ends(held, &self.cutover)?;
        let mut source = Masters::open(&from, Side::Source).await?;
        let mut fences = source.fences().await.map_err(|f| {
            let m =
                format!("cannot make the source read-only (CONFIG SET min-replicas-to-write): {}", f.message);
            Failure { message: m, ..f }
        })?;
        for (addr, write, lag) in fences.iter_mut().filter(|(_, write, _)| write == FENCED) {
            // A fence that still stands from an earlier time is not what the source was set to.
            let before = self.cutover.fences.iter().find(|(a, w, _)| a == addr && w != FENCED);
            (*write, *lag) = before.map_or(("0".into(), lag.clone()), |(_, w, l)| (w.clone(), l.clone()));
        }
        self.cutover.fences = fences;
        self.cutover.save(held).await?;
        self.began = Instant::now();
        match source.pause_writes() {
            true => source.pause().await?,
            false => source.fence().await?,
        }
        self.finish.cancel();
        let drained = tokio::select! {
            done = job => {
                self.ended = true;
                done.map_err(|e| Failure::new(Kind::Internal, "drain", e.to_string()))??
            }
            () = tokio::time::sleep(DECIDE / 2) => {
                let m = format!("the target had not caught up after {} s", DECIDE.as_secs() / 2);
                return Err(Failure::new(Kind::Timeout, "drain", m).at(Side::Target));
            }
        };
        let drained_ms = self.began.elapsed().as_millis();
        if !drained.done {
            return Err(Failure::new(Kind::Stopped, "drain", "the service is stopping"));
        }
        let missing =
            || Failure::new(Kind::Connect, "exchange", "the target does not answer").at(Side::Target);
        let there = ask(&to).await.ok_or_else(missing)?;
        // What expires may be gone at either side; the rest must be there.
        let lasting = source.lasting().await?;
        if super::run::route(&held.row.spec).only_db.is_none() && there.keys < lasting {
            let m = format!(
                "the source has {lasting} keys without expiry, but the target has only {} keys",
                there.keys
            );
            return Err(Failure::new(Kind::Conflict, "exchange", m).at(Side::Target));
        }
        source.fence().await?;
        if held.engine.places().hook().is_some() {
            self.cutover.hooked = true;
            self.cutover.save(held).await?;
            call_hook(held, &self.cutover, false).await?;
        }
        if self.began.elapsed() > DECIDE {
            return Err(Failure::new(
                Kind::Timeout,
                "exchange",
                "the cut-over exceeded the pause limit and was rolled back",
            ));
        }
        let (engine, now) = (held.engine, held.engine.clock.now_ms());
        let mut unit = held.write().await?;
        let applied = unit.apply_migration(held.id, MigrationEvent::Decided, now).await?;
        held.row.state = applied.map_err(|_: MigrationIllegal| {
            Failure::new(Kind::Conflict, "exchange", "the state of the migration has changed")
        })?;
        if let Some((a, b)) = registered(held) {
            unit.swap_instances(&a, &b).await?;
        }
        unit.save().await?;
        engine.repoint();
        let held_ms = self.began.elapsed().as_millis();
        tracing::info!(
            migration = held.id,
            "cut-over committed: writes were paused for {held_ms} ms, {drained_ms} ms of them to catch up"
        );
        Ok(())
    }
}

/// What follows the decision: those who still write to the source are let go. May be done again.
pub(super) async fn complete(held: &mut Held<'_>) -> Result<()> {
    held.check_held().await?;
    let cutover = Cutover::of(held);
    held.engine.repoint();
    // The fence stands: a source that does not answer now cannot take a write either.
    let freed = async {
        let (from, _) = ends(held, &cutover)?;
        Masters::open(&from, Side::Source).await?.let_go(true).await
    };
    let freed = tokio::time::timeout(Duration::from_secs(10), freed).await;
    if let Ok(Err(failure)) = &freed {
        held.note(Word::Warned, &[format!("cannot unpause clients of the source: {}", said(failure))])
            .await?;
    }
    held.apply(MigrationEvent::Exchanged).await?;
    if let Ok((from, to)) = ends(held, &cutover) {
        tokio::spawn(super::run::forget(held.id.to_owned(), from, to, super::run::route(&held.row.spec)));
    }
    let said = "clients are redirected to the target; the source refuses writes (min-replicas-to-write)";
    held.note(Word::Exchange, &[said.to_owned()]).await
}

/// Puts everything back as it was before a decision. May be done again.
pub(super) async fn undo(held: &mut Held<'_>, why: &str) -> Result<()> {
    held.check_held().await?;
    let cutover = Cutover::of(held);
    if cutover.hooked
        && let Err(failure) = call_hook(held, &cutover, true).await
    {
        held.note(Word::Warned, &[format!("the cut-over hook could not be rolled back: {}", said(&failure))])
            .await?;
    }
    for attempt in 1..=PUT_BACK {
        let put_back = async {
            let (from, _) = ends(held, &cutover)?;
            let mut source = Masters::open(&from, Side::Source).await?;
            source.unfence(&cutover.fences).await?;
            source.let_go(false).await
        };
        match put_back.await {
            Ok(()) => break,
            Err(failure) if attempt == PUT_BACK => {
                let m = format!(
                    "cannot restore the settings of the source: {}; hint: check its min-replicas-to-write (previous \
                     value: {})",
                    said(&failure),
                    cutover.fences.first().map_or("not changed", |(_, write, _)| write)
                );
                held.note(Word::Warned, &[m]).await?;
            }
            Err(_) => tokio::time::sleep(PUT_BACK_PAUSE).await,
        }
    }
    held.apply(MigrationEvent::ExchangeFailed).await?;
    let mut unit = held.write().await?;
    unit.set_migration_error(held.id, Some(&format!("the cut-over was rolled back: {why}"))).await?;
    unit.save().await?;
    held.note(Word::ExchangeFailed, &[why.to_owned()]).await
}

/// The way back: clients are led to the source again. May be done again.
pub(super) async fn give_back(held: &mut Held<'_>) -> Result<()> {
    held.check_held().await?;
    let cutover = Cutover::of(held);
    let back = async {
        let (from, to) = ends(held, &cutover)?;
        let mut source = Masters::open(&from, Side::Source).await?;
        let mut target = Masters::open(&to, Side::Target).await?;
        if target.pause_writes() {
            target.pause().await?;
        }
        let returned = async {
            call_hook(held, &cutover, true).await?;
            source.unfence(&cutover.fences).await?;
            let mut unit = held.write().await?;
            let now = held.engine.clock.now_ms();
            let _ = unit.apply_migration(held.id, MigrationEvent::Returned, now).await?;
            if let Some((a, b)) = registered(held) {
                unit.swap_instances(&a, &b).await?;
            }
            unit.save().await
        };
        let done: Result<()> = returned.await;
        held.engine.repoint();
        target.let_go(done.is_ok()).await?;
        done
    };
    let done: Result<()> = match tokio::time::timeout(PAUSE, back).await {
        Ok(done) => done,
        Err(_) => Err(Failure::new(Kind::Timeout, "rollback", "the rollback exceeded its time limit")),
    };
    match done {
        Ok(()) => {
            let said = "clients are redirected to the source; data written to the target since the cut-over stay there";
            held.note(Word::Exchange, &[said.to_owned()]).await
        }
        Err(failure) => {
            held.apply(MigrationEvent::ReturnFailed).await?;
            let mut unit = held.write().await?;
            unit.set_migration_error(held.id, Some(&format!("the rollback failed: {}", said(&failure))))
                .await?;
            unit.save().await?;
            held.note(Word::Warned, &[format!("the rollback failed: {}", said(&failure))]).await
        }
    }
}
