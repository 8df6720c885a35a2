//! One run: a writer, a migration that is disturbed, a reader.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flow_control::backoff::Backoff;
use model::error::{Kind, Result as Done};
use redis_migration::reconnect::{Reconnect, ReconnectPolicy};
use redis_migration::route::Route;
use redis_migration::verify::{Depth, compare};
use redis_migration::{Event, EventSender, Migration, Node, Summary, Until};
use testkit::redis::Redis;
use tokio_util::sync::CancellationToken;

use crate::ends::{self, Shared};
use crate::link::{Change, Link};
use crate::model::History;
use crate::pair::Pair;
use crate::planted::{Fault, Planted};
use crate::support;

/// What disturbs a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    CutSource,
    CutTarget,
    CutTargetWithin(usize),
    HoldSource(u64),
    HoldTarget(u64),
    FreezeSource(u64),
    FreezeTarget(u64),
    HangUpSource,
    HangUpTarget,
    KillMover,
    StopMover,
    SecondMover,
    RestartTarget,
    FailOverSource,
    FailOverTarget,
    IdleTarget,
}

impl Trouble {
    fn draw(random: &mut fastrand::Rng) -> Self {
        let ms = random.u64(20..250);
        match random.u32(0..30) {
            0..2 => Self::CutSource,
            2..4 => Self::CutTarget,
            4..9 => Self::CutTargetWithin(random.usize(0..3000)),
            9..11 => Self::HoldSource(ms),
            11..13 => Self::HoldTarget(ms),
            13 => Self::FreezeSource(ms),
            14..16 => Self::FreezeTarget(ms),
            16 => Self::HangUpSource,
            17..19 => Self::HangUpTarget,
            19..22 => Self::KillMover,
            22..24 => Self::StopMover,
            24..26 => Self::SecondMover,
            26 => Self::RestartTarget,
            27 => Self::FailOverSource,
            28 => Self::FailOverTarget,
            _ => Self::IdleTarget,
        }
    }
}

/// A migration that runs.
struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Done<Summary>>,
}

struct Run {
    shared: Arc<Shared>,
    source: Pair,
    target: Pair,
    to_source: Link,
    to_target: Link,
    migrations: Vec<Running>,
    random: fastrand::Rng,
    summary: Report,
}

/// What a run was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) troubles: Vec<Trouble>,
    pub(crate) steps: u64,
    pub(crate) compared: u64,
}

/// A migration; that it needs a second snapshot of a source whose backlog holds everything is wrong.
fn migration(source: u16, target: u16, until: Until, shared: &Arc<Shared>) -> Migration {
    let node = |port| Node::parse(&format!("redis://127.0.0.1:{port}")).unwrap();
    let mut migration = support::migration_at(node(source), node(target), until);
    migration.options.backoff = Backoff {
        base: Duration::from_millis(5),
        cap: Duration::from_millis(50),
        attempts: 1000,
        max_elapsed: Duration::from_secs(60),
    };
    migration.options.reconnect = Arc::new(Reconnect::new(ReconnectPolicy::Limited));
    let (sender, mut events) = EventSender::channel();
    migration.options.event_sender = sender;
    let shared = shared.clone();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::SnapshotStarted { offset, resync: true, .. } = event {
                let what = format!("the source refused the checkpoint; a new snapshot at offset {offset}");
                shared.wrong.lock().unwrap().get_or_insert(what);
            }
        }
    });
    migration
}

impl Run {
    fn start_mover(&mut self) {
        let one = migration(self.to_source.port, self.to_target.port, Until::Stopped, &self.shared);
        let stop = one.stop.clone();
        self.migrations.push(Running { stop, task: tokio::spawn(async move { one.run().await }) });
    }

    /// Takes away what has ended; a migration ends by itself only when another has taken over.
    async fn look_at_movers(&mut self) -> Result<(), String> {
        let mut i = 0;
        while i < self.migrations.len() {
            if !self.migrations[i].task.is_finished() {
                i += 1;
                continue;
            }
            let ended = self.migrations.remove(i).task.await;
            match ended {
                Ok(Err(failure)) if failure.kind == Kind::Conflict && failure.op == "fence" => {}
                // What a migration does not reach at its beginning, it does not wait for; whoever began it tries again.
                Ok(Err(failure)) if failure.kind == Kind::Connect => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    self.start_mover();
                }
                other => return Err(format!("a migration ended: {other:?}")),
            }
        }
        if self.migrations.is_empty() {
            return Err("all migrations have ended".into());
        }
        Ok(())
    }

    async fn disturb(&mut self, trouble: Trouble) -> Result<(), String> {
        let pause = Duration::from_millis;
        match trouble {
            Trouble::CutSource => self.to_source.cut(),
            Trouble::CutTarget => self.to_target.cut(),
            Trouble::CutTargetWithin(bytes) => self.to_target.cut_behind(bytes),
            Trouble::HoldSource(ms) => self.to_source.hold(pause(ms)).await,
            Trouble::HoldTarget(ms) => self.to_target.hold(pause(ms)).await,
            Trouble::FreezeSource(ms) => freeze(self.source.master(), pause(ms)).await,
            Trouble::FreezeTarget(ms) => freeze(self.target.master(), pause(ms)).await,
            Trouble::HangUpSource => _ = self.source.master().run("CLIENT KILL TYPE replica"),
            Trouble::HangUpTarget => _ = self.target.master().run("CLIENT KILL TYPE normal SKIPME yes"),
            Trouble::KillMover => self.kill_movers().await,
            Trouble::StopMover => self.stop_movers().await?,
            Trouble::SecondMover => self.start_mover(),
            Trouble::RestartTarget => {
                let master = self.target.master;
                self.target.servers[master].restart();
            }
            Trouble::FailOverSource => self.fail_over_source().await?,
            Trouble::FailOverTarget => self.fail_over_target()?,
            Trouble::IdleTarget => self.close_idle_clients(),
        }
        Ok(())
    }

    async fn kill_movers(&mut self) {
        for running in self.migrations.drain(..) {
            running.task.abort();
            let _ = running.task.await;
        }
        self.start_mover();
    }

    async fn stop_movers(&mut self) -> Result<(), String> {
        for running in self.migrations.drain(..) {
            running.stop.cancel();
            match running.task.await {
                Ok(Ok(_)) => {}
                // Two were running.
                Ok(Err(failure)) if failure.op == "fence" => {}
                // It had ended at its beginning, as in `look_at_movers`.
                Ok(Err(failure)) if failure.kind == Kind::Connect => {}
                other => return Err(format!("a migration that was stopped: {other:?}")),
            }
        }
        self.start_mover();
        Ok(())
    }

    async fn fail_over_source(&mut self) -> Result<(), String> {
        self.until_followed().await?;
        let shared = self.shared.clone();
        let mut port = shared.source.lock().unwrap();
        self.source.fail_over()?;
        *port = self.source.master().port;
        self.to_source.lead_to(*port);
        Ok(())
    }

    fn fail_over_target(&mut self) -> Result<(), String> {
        self.target.fail_over()?;
        let port = self.target.master().port;
        self.shared.target.store(port, Ordering::SeqCst);
        self.to_target.lead_to(port);
        Ok(())
    }

    /// The target closes connections that are idle.
    fn close_idle_clients(&self) {
        let _writer = self.shared.source.lock().unwrap();
        self.target.master().run("CONFIG SET timeout 1");
        // A server checks for idle clients about once a second.
        std::thread::sleep(Duration::from_millis(2200));
        self.target.master().run("CONFIG SET timeout 0");
    }

    /// Waits until the checkpoint is in the stream of the present master: a server remembers only one replication ID in addition to its
    /// own, so that a checkpoint of the one before that would need a new snapshot.
    async fn until_followed(&mut self) -> Result<(), String> {
        let (began, replid) = (Instant::now(), self.source.replid());
        while ends::replid(&self.shared).as_ref() != Some(&replid) {
            self.look_at_movers().await?;
            if began.elapsed() > Duration::from_secs(30) {
                return Err(format!("the target does not come to the stream {replid}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn until_compared(&mut self, more: u64) -> Result<(), String> {
        let (began, before) = (Instant::now(), self.shared.compared.load(Ordering::SeqCst));
        while self.shared.compared.load(Ordering::SeqCst) < before + more {
            self.look_at_movers().await?;
            if self.shared.wrong.lock().unwrap().is_some() {
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err("the target shows no state that can be compared".into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    async fn all(&mut self, planted: bool) -> Result<(), String> {
        self.start_mover();
        self.until_compared(5).await?;
        if planted {
            self.to_target.begin_to_change();
        }
        for _ in 0..self.random.u32(2..6) {
            let trouble = Trouble::draw(&mut self.random);
            self.summary.troubles.push(trouble);
            self.disturb(trouble).await?;
            tokio::time::sleep(Duration::from_millis(self.random.u64(0..120))).await;
            if self.random.bool() {
                self.until_compared(3).await?;
            }
            if let Some(wrong) = self.shared.wrong.lock().unwrap().clone() {
                return Err(wrong);
            }
        }
        self.until_compared(5).await?;
        self.shared.written.store(true, Ordering::SeqCst);
        for running in self.migrations.drain(..) {
            running.stop.cancel();
            let _ = running.task.await;
        }
        Ok(())
    }

    async fn last(&mut self) -> Result<(), String> {
        // A migration that is cut off before it has reached the target once ends instead of trying again.
        self.to_target.cancel_cut();
        let last = migration(self.to_source.port, self.to_target.port, Until::CaughtUp, &self.shared);
        let done = tokio::time::timeout(Duration::from_secs(60), last.run()).await;
        let done = done.map_err(|_| "the last migration does not come to its end")?;
        if !done.as_ref().is_ok_and(|summary| summary.done) {
            return Err(format!("the last migration: {done:?}"));
        }
        let steps = self.shared.history.lock().unwrap().steps();
        let step = ends::last_step(&self.shared)?;
        if step != steps {
            return Err(format!("the source has done {steps} steps, the target shows {step}"));
        }
        let (source, target) = (support::node(self.source.master()), support::node(self.target.master()));
        let found = compare(&source, &target, &Route::default(), Depth::Full).await;
        match found {
            Ok(found) if found.is_same() => Ok(()),
            other => Err(format!("the ends differ: {other:.600?}")),
        }
    }
}

async fn freeze(server: &Redis, pause: Duration) {
    server.freeze(true);
    tokio::time::sleep(pause).await;
    server.freeze(false);
}

/// Runs a seed.
///
/// # Errors
/// What was wrong.
pub(crate) async fn run(seed: u64, planted: Option<Planted>) -> (Report, Result<(), String>) {
    let (source, target) = (Pair::start(), Pair::start());
    // From its beginning: the backlog of a replica begins where it has joined.
    if let Err(what) = source.join() {
        return (Report::default(), Err(what));
    }
    let shared = Arc::new(Shared {
        history: Mutex::new(History::new()),
        source: Mutex::new(source.master().port),
        target: target.master().port.into(),
        compared: AtomicU64::new(0),
        written: AtomicBool::new(false),
        over: AtomicBool::new(false),
        wrong: Mutex::new(None),
    });
    let change = planted.map(|planted| {
        let change: Arc<dyn Change> = Arc::new(Fault::new(planted, target.master().port, seed));
        change
    });
    let to_source = Link::to(source.master().port, None).await;
    let to_target = Link::to(target.master().port, change).await;
    let writer = ends::write(shared.clone(), seed);
    let reader = ends::read(shared.clone());
    let mut one = Run {
        shared: shared.clone(),
        source,
        target,
        to_source,
        to_target,
        migrations: vec![],
        random: fastrand::Rng::with_seed(seed),
        summary: Report::default(),
    };
    let mut done = one.all(planted.is_some()).await;
    shared.written.store(true, Ordering::SeqCst);
    let wrote = tokio::task::spawn_blocking(|| writer.join()).await.unwrap();
    if wrote.is_err() {
        done = done.and(Err("the writer broke off".into()));
    }
    if done.is_ok() {
        done = one.last().await;
    }
    shared.over.store(true, Ordering::SeqCst);
    let _ = tokio::task::spawn_blocking(|| reader.join()).await;
    // What the reader saw comes first: what follows may be its consequence.
    if let Some(wrong) = shared.wrong.lock().unwrap().take() {
        done = Err(wrong);
    }
    for running in one.migrations.drain(..) {
        running.task.abort();
    }
    let mut report = one.summary;
    report.steps = shared.history.lock().unwrap().steps();
    report.compared = shared.compared.load(Ordering::SeqCst);
    (report, done)
}
