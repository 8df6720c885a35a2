//! A cut-over (dcs-migration.md §4.12): clients are redirected from the source to the target, or back.
//!
//! ```text
//! pause writers ─> drain ─> fence the source ─> hook ─> decide ─> let clients go
//!       └──────────── undone when interrupted ──────┘   │  └── finished when interrupted
//!                                                       one transaction: state + registry
//! ```
//!
//! The fence makes the source refuse every write (`min-replicas-to-write`), so that nothing can be acknowledged on the side
//! that is left, whatever happens to us behind the decision.

mod masters;

use std::time::{Duration, Instant};

use model::error::{Error, Kind, Result, Side};
use model::migration::{Endpoint, MigrationEvent, MigrationIllegal};
use redis_migration::connection::server::ServerInfo;
use redis_migration::connection::topology::Addr;
use redis_migration::{Node, Summary};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::environment::Hook;
use crate::migrations::lease::{Job, LeasedMigration};
use crate::migrations::log_messages::{MessageCode, format_failure};
use crate::migrations::statistics::query_server;
use masters::Masters;

/// Writers are held for at most so long.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// What was decided must be decided by then: the pause ends by itself.
const DECISION_TIMEOUT: Duration = Duration::from_secs(45);
/// A hook that takes longer has failed.
const HOOK_TIMEOUT: Duration = Duration::from_secs(20);
/// More replicas than anybody has.
const FENCED: &str = "1000000";
/// Attempts to restore a source that does not answer.
const RESTORE_ATTEMPTS: u32 = 20;
/// Time between two attempts to restore a source.
const RESTORE_DELAY: Duration = Duration::from_secs(1);

/// What must be known again after a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CutoverRecord {
    /// Source addresses that the request named.
    pub(super) exchanged_ip: Vec<String>,
    /// Where instances stood before.
    #[serde(rename = "moved")]
    redirects: Vec<(String, String)>,
    /// What each master of the source was set to before it was fenced: its address, replicas to write, and their
    /// greatest lag.
    fences: Vec<(Addr, String, String)>,
    /// The hook was called, so it must be called the other way round to undo it.
    hooked: bool,
}

impl CutoverRecord {
    fn load(leased: &LeasedMigration<'_>) -> Self {
        serde_json::from_value(leased.row.cutover.clone()).unwrap_or_default()
    }

    async fn save(&self, leased: &mut LeasedMigration<'_>) -> Result<()> {
        leased.row.cutover = serde_json::to_value(self).unwrap_or_default();
        let mut tx = leased.write().await?;
        tx.set_cutover(leased.id, &leased.row.cutover).await?;
        tx.commit().await
    }
}

/// How a cut-over ended.
pub(super) enum Outcome {
    Done,
    Aborted,
    /// The service is ending; everything is put back.
    Stopped,
}

/// A cut-over under way.
pub(super) struct Cutover {
    state: CutoverRecord,
    finish: CancellationToken,
    began: Instant,
    /// The migration has ended, and said how.
    ended: bool,
}

/// The names of the settings before and since 5.0.
const SETTINGS: [(&str, &str); 2] =
    [("min-replicas-to-write", "min-replicas-max-lag"), ("min-slaves-to-write", "min-slaves-max-lag")];

fn settings(server: &ServerInfo) -> (&'static str, &'static str) {
    SETTINGS[usize::from(!server.is_at_least((5, 0)))]
}

/// Both ends as they stood when the cut-over began.
fn ends(leased: &LeasedMigration<'_>, state: &CutoverRecord) -> Result<(Node, Node)> {
    let node = |end: &Option<Endpoint>, side: Side| {
        let end = end.clone().unwrap_or_default();
        super::resolve_node(&end, leased.secrets.for_side(side), leased.engine.resolver(), &state.redirects)
            .map_err(|f| f.at(side))
    };
    let spec = &leased.row.spec;
    Ok((node(&spec.source, Side::Source)?, node(&spec.target, Side::Target)?))
}

/// Both instances, when both are registered.
fn registered(leased: &LeasedMigration<'_>) -> Option<(String, String)> {
    let id = |end: &Option<Endpoint>| end.as_ref().and_then(|e| e.id.clone());
    id(&leased.row.spec.source).zip(id(&leased.row.spec.target))
}

async fn call_hook(leased: &LeasedMigration<'_>, state: &CutoverRecord, back: bool) -> Result<()> {
    let Some(Hook(command)) = leased.engine.resolver().hook() else { return Ok(()) };
    let Some((program, args)) = command.split_first() else { return Ok(()) };
    let (source, target) = ends(leased, state)?;
    let side = |end: &Option<Endpoint>, node: &Node| {
        let addrs: Vec<String> = node.addrs.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        json!({"id": end.as_ref().and_then(|e| e.id.clone()), "addrs": addrs})
    };
    let about = json!({
        "task_id": leased.id,
        "direction": if back { "rollback" } else { "exchange" },
        "source": side(&leased.row.spec.source, &source),
        "target": side(&leased.row.spec.target, &target),
        "exchanged_ip": state.exchanged_ip,
    });
    let failed = |why: String| Error::new(Kind::Unsupported, "hook", format!("the hook `{program}` {why}"));
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
    match tokio::time::timeout(HOOK_TIMEOUT, called).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("failed with {status}"))),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(failed(format!("did not finish within {} s", HOOK_TIMEOUT.as_secs()))),
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

impl Cutover {
    pub(super) fn new(leased: &LeasedMigration<'_>, finish: CancellationToken) -> Result<Self> {
        let mut state = CutoverRecord::load(leased);
        state.redirects = leased.redirects.clone();
        Ok(Self { state, finish, began: Instant::now(), ended: false })
    }

    /// Carries it out, or puts everything back.
    ///
    /// # Errors
    /// When the store fails; then the next start puts everything back.
    pub(super) async fn run(mut self, leased: &mut LeasedMigration<'_>, mut job: Job) -> Result<Outcome> {
        match self.decide(leased, &mut job.0).await {
            Ok(()) => {
                finish(leased).await?;
                Ok(Outcome::Done)
            }
            // Another worker holds it: what stands at the ends is not this one's to put back.
            Err(failure) if failure.kind == Kind::LeaseLost => Err(failure),
            Err(failure) => {
                abort(leased, &format_failure(&failure)).await?;
                // The migration may be on its way to its end; whatever it does, the target says how far it is.
                if !self.ended {
                    let _ = tokio::time::timeout(Duration::from_secs(1), &mut job.0).await;
                }
                Ok(if leased.is_stop_requested() { Outcome::Stopped } else { Outcome::Aborted })
            }
        }
    }

    /// Everything up to the decision.
    async fn decide(
        &mut self,
        leased: &mut LeasedMigration<'_>,
        job: &mut JoinHandle<Result<Summary>>,
    ) -> Result<()> {
        let (from, to) = ends(leased, &self.state)?;
        let mut source = Masters::open(&from, Side::Source).await?;
        self.record_fences(leased, &mut source).await?;
        self.began = Instant::now();
        match source.pause_writes() {
            true => source.pause().await?,
            false => source.fence().await?,
        }
        let drained_ms = self.drain(job).await?;
        verify_key_count(leased, &mut source, &to).await?;
        source.fence().await?;
        if leased.engine.resolver().hook().is_some() {
            self.state.hooked = true;
            self.state.save(leased).await?;
            call_hook(leased, &self.state, false).await?;
        }
        if self.began.elapsed() > DECISION_TIMEOUT {
            return Err(Error::new(
                Kind::Timeout,
                "cutover",
                "the cut-over exceeded the pause limit and was rolled back",
            ));
        }
        commit(leased).await?;
        let held_ms = self.began.elapsed().as_millis();
        tracing::info!(
            migration = leased.id,
            "cut-over committed: writes were paused for {held_ms} ms, {drained_ms} ms of them to catch up"
        );
        Ok(())
    }

    /// Keeps the settings that fences replace, before any fence is set.
    async fn record_fences(&mut self, leased: &mut LeasedMigration<'_>, source: &mut Masters) -> Result<()> {
        let mut fences = source.fences().await.map_err(|f| {
            let m =
                format!("cannot make the source read-only (CONFIG SET min-replicas-to-write): {}", f.message);
            Error { message: m, ..f }
        })?;
        for (addr, write, lag) in fences.iter_mut().filter(|(_, write, _)| write == FENCED) {
            // A fence that still stands from an earlier time is not what the source was set to.
            let before = self.state.fences.iter().find(|(a, w, _)| a == addr && w != FENCED);
            (*write, *lag) = before.map_or(("0".into(), lag.clone()), |(_, w, l)| (w.clone(), l.clone()));
        }
        self.state.fences = fences;
        self.state.save(leased).await
    }

    /// Waits until the target has caught up and the job has ended; milliseconds since writes were paused.
    async fn drain(&mut self, job: &mut JoinHandle<Result<Summary>>) -> Result<u128> {
        self.finish.cancel();
        let drained = tokio::select! {
            done = job => {
                self.ended = true;
                done.map_err(|e| Error::new(Kind::Internal, "drain", e.to_string()))??
            }
            () = tokio::time::sleep(DECISION_TIMEOUT / 2) => {
                let m = format!("the target had not caught up after {} s", DECISION_TIMEOUT.as_secs() / 2);
                return Err(Error::new(Kind::Timeout, "drain", m).at(Side::Target));
            }
        };
        let drained_ms = self.began.elapsed().as_millis();
        if !drained.done {
            return Err(Error::new(Kind::Stopped, "drain", "the service is stopping"));
        }
        Ok(drained_ms)
    }
}

/// Fails when the target lacks keys that cannot have expired.
async fn verify_key_count(leased: &LeasedMigration<'_>, source: &mut Masters, to: &Node) -> Result<()> {
    let missing = || Error::new(Kind::Connect, "cutover", "the target does not answer").at(Side::Target);
    let there = query_server(to).await.ok_or_else(missing)?;
    // What expires may be gone at either side; the rest must be there.
    let persistent = source.persistent_keys().await?;
    if super::identity::route(&leased.row.spec).only_db.is_none() && there.keys < persistent {
        let m = format!(
            "the source has {persistent} keys without expiry, but the target has only {} keys",
            there.keys
        );
        return Err(Error::new(Kind::Conflict, "cutover", m).at(Side::Target));
    }
    Ok(())
}

/// Commits the cut-over: the state of the migration, and where clients find both instances.
async fn commit(leased: &mut LeasedMigration<'_>) -> Result<()> {
    let (engine, now) = (leased.engine, leased.engine.clock.now_ms());
    let mut tx = leased.write().await?;
    let applied = tx.apply_migration(leased.id, MigrationEvent::CutoverCommitted, now).await?;
    leased.row.state = applied.map_err(|_: MigrationIllegal| {
        Error::new(Kind::Conflict, "cutover", "the state of the migration has changed")
    })?;
    if let Some((a, b)) = registered(leased) {
        tx.swap_redirects(&a, &b).await?;
    }
    tx.commit().await?;
    engine.redirect_clients();
    Ok(())
}

/// What follows the decision: those who still write to the source are let go. May be done again.
pub(super) async fn finish(leased: &mut LeasedMigration<'_>) -> Result<()> {
    leased.check_lease().await?;
    let state = CutoverRecord::load(leased);
    leased.engine.redirect_clients();
    // The fence stands: a source that does not answer now cannot take a write either.
    let unpaused = async {
        let (from, _) = ends(leased, &state)?;
        Masters::open(&from, Side::Source).await?.unpause(true).await
    };
    let unpaused = tokio::time::timeout(Duration::from_secs(10), unpaused).await;
    if let Ok(Err(failure)) = &unpaused {
        leased
            .log(
                MessageCode::Warning,
                &[format!("cannot unpause clients of the source: {}", format_failure(failure))],
            )
            .await?;
    }
    leased.apply(MigrationEvent::CutoverDone).await?;
    if let Ok((from, to)) = ends(leased, &state) {
        tokio::spawn(super::identity::forget(
            leased.id.to_owned(),
            from,
            to,
            super::identity::route(&leased.row.spec),
        ));
    }
    let message = "clients are redirected to the target; the source refuses writes (min-replicas-to-write)";
    leased.log(MessageCode::Cutover, &[message.to_owned()]).await
}

/// Puts everything back as it was before a decision. May be done again.
pub(super) async fn abort(leased: &mut LeasedMigration<'_>, why: &str) -> Result<()> {
    leased.check_lease().await?;
    let state = CutoverRecord::load(leased);
    if state.hooked
        && let Err(failure) = call_hook(leased, &state, true).await
    {
        leased
            .log(
                MessageCode::Warning,
                &[format!("the cut-over hook could not be rolled back: {}", format_failure(&failure))],
            )
            .await?;
    }
    for attempt in 1..=RESTORE_ATTEMPTS {
        let restored = async {
            let (from, _) = ends(leased, &state)?;
            let mut source = Masters::open(&from, Side::Source).await?;
            source.unfence(&state.fences).await?;
            source.unpause(false).await
        };
        match restored.await {
            Ok(()) => break,
            Err(failure) if attempt == RESTORE_ATTEMPTS => {
                let m = format!(
                    "cannot restore the settings of the source: {}; hint: check its min-replicas-to-write (previous \
                     value: {})",
                    format_failure(&failure),
                    state.fences.first().map_or("not changed", |(_, write, _)| write)
                );
                leased.log(MessageCode::Warning, &[m]).await?;
            }
            Err(_) => tokio::time::sleep(RESTORE_DELAY).await,
        }
    }
    leased.apply(MigrationEvent::CutoverFailed).await?;
    let mut tx = leased.write().await?;
    tx.set_migration_error(leased.id, Some(&format!("the cut-over was rolled back: {why}"))).await?;
    tx.commit().await?;
    leased.log(MessageCode::CutoverFailed, &[why.to_owned()]).await
}

/// The rollback: clients are redirected to the source again. May be repeated.
pub(super) async fn roll_back(leased: &mut LeasedMigration<'_>) -> Result<()> {
    leased.check_lease().await?;
    let state = CutoverRecord::load(leased);
    let back = async {
        let (from, to) = ends(leased, &state)?;
        let mut source = Masters::open(&from, Side::Source).await?;
        let mut target = Masters::open(&to, Side::Target).await?;
        if target.pause_writes() {
            target.pause().await?;
        }
        let returned = async {
            call_hook(leased, &state, true).await?;
            source.unfence(&state.fences).await?;
            let mut tx = leased.write().await?;
            let now = leased.engine.clock.now_ms();
            let _ = tx.apply_migration(leased.id, MigrationEvent::RollbackDone, now).await?;
            if let Some((a, b)) = registered(leased) {
                tx.swap_redirects(&a, &b).await?;
            }
            tx.commit().await
        };
        let done: Result<()> = returned.await;
        leased.engine.redirect_clients();
        target.unpause(done.is_ok()).await?;
        done
    };
    let done: Result<()> = match tokio::time::timeout(PAUSE_MAX, back).await {
        Ok(done) => done,
        Err(_) => Err(Error::new(Kind::Timeout, "rollback", "the rollback exceeded its time limit")),
    };
    match done {
        Ok(()) => {
            let message = "clients are redirected to the source; data written to the target since the cut-over stay there";
            leased.log(MessageCode::Cutover, &[message.to_owned()]).await
        }
        Err(failure) => {
            leased.apply(MigrationEvent::RollbackFailed).await?;
            let mut tx = leased.write().await?;
            tx.set_migration_error(
                leased.id,
                Some(&format!("the rollback failed: {}", format_failure(&failure))),
            )
            .await?;
            tx.commit().await?;
            leased
                .log(MessageCode::Warning, &[format!("the rollback failed: {}", format_failure(&failure))])
                .await
        }
    }
}
