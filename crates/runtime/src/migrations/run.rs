//! One migration from lease to release.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::failure::{Failure, Kind, Result, Side};
use model::migration::{
    Libraries, MigrationEvent, MigrationKind, MigrationSpec, Own, Phase, ResumeMode, Switch,
};
use pace::budget::Bandwidth;
use redis_migration::checkpoint::cleanup;
use redis_migration::checkpoint::keys::KeyNames;
use redis_migration::connection::query_client::QueryClient;
use redis_migration::connection::server::ServerInfo;
use redis_migration::reconnect::ReconnectPolicy;
use redis_migration::route::Route;
use redis_migration::snapshot::restore::Conflict;
use redis_migration::source::spool::SpoolLimits;
use redis_migration::verify::{Depth, compare};
use redis_migration::{
    Event, EventSender, FunctionPolicy, Migration, Node, Options, Progress, Reconnect, Summary, Until,
};
use store::{MigrationRow, MigrationStats, Unit};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cutover::{self, Cutover};
use super::endpoints::{EndSecrets, resolve_node};
use super::log_messages::MessageCode;
use super::{RunningMigration, append_log, fail, import, is_stopping};
use crate::engine::Engine;
use crate::panics::caught;

const LEASE_MS: i64 = 30_000;
const RENEW_INTERVAL: Duration = Duration::from_secs(8);
/// How often numbers are written down.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);
/// Both ends are asked for their keys at every so many ticks.
const COUNT_EVERY_TICKS: u32 = 2;
/// A change of phase waits so long for the number of keys.
const COUNT_TIMEOUT: Duration = Duration::from_millis(500);
/// Counting and comparing for the log may take so long.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

/// Runs a migration here if its lease can be had; used by the dispatcher.
pub(crate) async fn run(engine: Arc<Engine>, id: String, running: RunningMigration) -> String {
    if let Err(failure) = caught(lease_and_run(&engine, &id, &running)).await.flatten() {
        tracing::error!(migration = %id, "cannot run migration {id}: {failure}");
    }
    engine.moving().remove(&id);
    engine.ended.notify_one();
    id
}

async fn lease_and_run(engine: &Arc<Engine>, id: &str, running: &RunningMigration) -> Result<()> {
    let now = engine.clock.now_ms();
    let mut unit = engine.store.write().await?;
    let Some(fence) = unit.claim_migration(id, &engine.owner, now, now + LEASE_MS).await? else {
        return Ok(());
    };
    let Some(row) = unit.migration(id).await? else { return Ok(()) };
    let secrets = EndSecrets::from_json(&unit.migration_secrets(id).await?.unwrap_or_default());
    let redirects = unit.moved_instances().await?;
    unit.save().await?;
    tracing::info!(migration = id, name = %row.name, "migration {id} started");
    let mut leased =
        LeasedMigration { engine, id, fence, running, row, secrets, redirects, renewed: Instant::now() };
    let ended = caught(leased.run_by_state()).await.unwrap_or_else(RunEnd::Failed);
    leased.finish(ended).await
}

/// How the work on a migration ended.
pub(super) enum RunEnd {
    /// It did what it was to do.
    Finished,
    /// It rests, to go on later.
    Stopped,
    /// It cannot go on.
    Failed(Failure),
    /// Somebody else holds it now.
    LeaseLost,
}

/// A migration while its lease is held here.
pub(super) struct LeasedMigration<'e> {
    pub(super) engine: &'e Arc<Engine>,
    pub(super) id: &'e str,
    fence: i64,
    running: &'e RunningMigration,
    pub(super) row: MigrationRow,
    pub(super) secrets: EndSecrets,
    /// Instances that stand elsewhere.
    pub(super) redirects: Vec<(String, String)>,
    renewed: Instant,
}

/// What may change while it runs.
struct LiveOptions {
    bandwidth: Arc<Bandwidth>,
    reconnect: Arc<Reconnect>,
}

impl LiveOptions {
    fn new(spec: &MigrationSpec) -> Self {
        let live_options = Self { bandwidth: Arc::new(Bandwidth::new(0)), reconnect: Arc::default() };
        live_options.update(spec);
        live_options
    }

    fn update(&self, spec: &MigrationSpec) {
        self.bandwidth.set(u64::from(spec.bandwidth_mb.unwrap_or(0)) * MIB);
        self.reconnect.set(match spec.resume {
            ResumeMode::Auto => ReconnectPolicy::Always,
            ResumeMode::Manual => ReconnectPolicy::Never,
        });
    }
}

/// What stands at the target is called so. Another source, target or mapping is another migration: its position is not this
/// one's.
pub(super) fn names(id: &str, source: &Node, target: &Node, route: &Route) -> KeyNames {
    let text = format!("{} {} {}", source.display_url(), target.display_url(), route.identity());
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    KeyNames::new(&format!("{id}:{}", &storage::checksum::hex(digest.as_ref())[..8]))
}

/// Takes away what stands at the target about a migration that will not go on, as far as the ends can be reached now.
pub(super) async fn forget(id: String, source: Node, target: Node, route: Route) {
    let done = async {
        let names = names(&id, &source, &target, &route);
        redis_migration::checkpoint::cleanup::forget(&target, &names).await
    };
    match tokio::time::timeout(COMPARE_TIMEOUT, done).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => tracing::info!(migration = %id, "the checkpoint stays at the target: {failure}"),
        Err(_) => {
            tracing::info!(migration = %id, "the checkpoint stays at the target, which does not answer")
        }
    }
}

/// What happens to libraries that the target refuses, in the words of the engine.
pub(super) fn functions(own: &Own) -> FunctionPolicy {
    match own.functions {
        Libraries::Stop => FunctionPolicy::Stop,
        Libraries::Replace => FunctionPolicy::Replace,
        Libraries::Skip => FunctionPolicy::Skip,
    }
}

/// Which keys are migrated, and where to (dcs-migration.md §4.7).
pub fn route(spec: &MigrationSpec) -> Route {
    let db = |end: &Option<model::migration::End>| end.as_ref().and_then(|e| e.db);
    let (from, to) = (db(&spec.source), db(&spec.target));
    Route {
        only_db: from,
        db_map: from.zip(to).into_iter().collect::<BTreeMap<u32, u32>>(),
        all_into: if from.is_none() { to } else { None },
        ..Route::default()
    }
}

impl LeasedMigration<'_> {
    pub(super) fn node(&self, side: Side) -> Result<Node> {
        let spec = &self.row.spec;
        let end = if side == Side::Source { &spec.source } else { &spec.target };
        let missing = || Failure::new(Kind::Invalid, "migration", "the migration is not configured").at(side);
        let end = end.as_ref().ok_or_else(missing)?;
        resolve_node(end, self.secrets.for_side(side), &*self.engine.places, &self.redirects)
            .map_err(|f| f.at(side))
    }

    /// What goes beyond the compatible API, of the request and of registered ends.
    fn own(&self) -> Own {
        let spec = &self.row.spec;
        let of = |end: &Option<model::migration::End>| {
            let id = end.as_ref().and_then(|end| end.id.as_ref())?;
            self.engine.places().instance(id).map(|instance| instance.own)
        };
        let (source, target) = (of(&spec.source).unwrap_or_default(), of(&spec.target).unwrap_or_default());
        spec.own.clone().with(&source, &target)
    }

    /// The service is ending, or the user stops it.
    pub(super) fn is_stop_requested(&self) -> bool {
        self.running.stop.is_cancelled()
    }

    /// A unit that counts only while this worker holds the migration.
    ///
    /// # Errors
    /// [`Kind::LeaseLost`] when another worker holds it.
    pub(super) async fn write(&self) -> Result<Unit> {
        let mut unit = self.engine.store.write().await?;
        unit.hold_migration(self.id, self.fence).await?;
        Ok(unit)
    }

    /// Asked before anything at either end is changed that another worker may have set.
    ///
    /// # Errors
    /// As [`LeasedMigration::write`].
    pub(super) async fn check_lease(&self) -> Result<()> {
        self.write().await.map(drop)
    }

    pub(super) async fn log(&self, code: MessageCode, parts: &[String]) -> Result<()> {
        let mut unit = self.write().await?;
        append_log(&mut unit, self.id, code, self.engine.clock.now_ms(), parts).await?;
        unit.save().await
    }

    pub(super) async fn apply(&mut self, event: MigrationEvent) -> Result<()> {
        let mut unit = self.write().await?;
        if let Ok(state) = unit.apply_migration(self.id, event, self.engine.clock.now_ms()).await? {
            self.row.state = state;
            // Whoever sees the phase sees the numbers that belong to it.
            unit.set_migration_stats(self.id, &self.row.stats).await?;
        }
        unit.save().await
    }

    async fn run_by_state(&mut self) -> RunEnd {
        let done = match (self.row.state.switch, self.row.state.kind) {
            (Some(Switch::Returning), _) => cutover::roll_back(self).await.map(|()| RunEnd::Stopped),
            (Some(Switch::Decided), _) => cutover::finish(self).await.map(|()| RunEnd::Stopped),
            (_, MigrationKind::Import) => self.run_import().await,
            (switch, MigrationKind::Online) => {
                if switch == Some(Switch::Exchanging) {
                    // Nothing was decided: it is as if it had not been asked for.
                    let why = "the service stopped before the cut-over was committed";
                    if let Err(failure) = cutover::abort(self, why).await {
                        return RunEnd::Failed(failure);
                    }
                }
                self.run_online().await
            }
        };
        done.unwrap_or_else(RunEnd::Failed)
    }

    async fn run_online(&mut self) -> Result<RunEnd> {
        loop {
            let live_options = LiveOptions::new(&self.row.spec);
            let (event_sender, mut events) = EventSender::channel();
            let finish = CancellationToken::new();
            let own = self.own();
            let full = self.row.spec.method == Some(model::migration::Method::Full);
            let (source, target) = (self.node(Side::Source)?, self.node(Side::Target)?);
            let migration = Migration {
                source: source.clone(),
                target: target.clone(),
                options: Options {
                    route: route(&self.row.spec),
                    conflict: Conflict::Replace,
                    until: if full { Until::Full } else { Until::Stopped },
                    bandwidth: live_options.bandwidth.clone(),
                    spool: SpoolLimits { command: self.engine.command_max, ..SpoolLimits::default() },
                    spool_dir: self.engine.spool_dir()?,
                    backoff: self.engine.backoff,
                    reconnect: live_options.reconnect.clone(),
                    event_sender,
                    skip_commands: Arc::new(own.skip_commands.iter().cloned().collect()),
                    functions: functions(&own),
                },
                clock: self.engine.clock.clone(),
                progress: self.running.progress.clone(),
                stop: self.running.stop.clone(),
                finish: finish.clone(),
                names: names(self.id, &source, &target, &route(&self.row.spec)),
                shard: None,
            };
            let job = Job(self.engine.lanes.handle().spawn(async move { migration.run().await }));
            match self.supervise(job, &mut events, &live_options, &finish).await? {
                Supervised::Ended(summary) => return self.evaluate(summary).await,
                Supervised::Failed(failure) => return Ok(RunEnd::Failed(failure)),
                Supervised::LeaseLost => return Ok(RunEnd::LeaseLost),
                // The cut-over has put everything back: it goes on where it was.
                Supervised::CutoverAborted => {}
                Supervised::CutOver => return Ok(RunEnd::Stopped),
            }
        }
    }

    async fn run_import(&mut self) -> Result<RunEnd> {
        let live_options = LiveOptions::new(&self.row.spec);
        let (_event_sender, mut events) = EventSender::channel();
        let finish = CancellationToken::new();
        let task = import::ImportTask {
            engine: self.engine.clone(),
            id: self.id.to_owned(),
            spec: MigrationSpec { own: self.own(), ..self.row.spec.clone() },
            target: self.node(Side::Target)?,
            bandwidth: live_options.bandwidth.clone(),
            progress: self.running.progress.clone(),
            stop: self.running.stop.clone(),
        };
        let job = Job(self.engine.lanes.handle().spawn(async move { task.run().await }));
        match self.supervise(job, &mut events, &live_options, &finish).await? {
            Supervised::Ended(summary) => self.evaluate(summary).await,
            Supervised::Failed(failure) => Ok(RunEnd::Failed(failure)),
            Supervised::LeaseLost => Ok(RunEnd::LeaseLost),
            Supervised::CutoverAborted | Supervised::CutOver => Ok(RunEnd::Stopped),
        }
    }

    async fn evaluate(&mut self, summary: Summary) -> Result<RunEnd> {
        for (what, n) in &summary.full.unsupported {
            self.log(MessageCode::Unsupported, &[format!("{n} × {what}")]).await?;
        }
        for failed in summary.failed.iter().take(20) {
            self.log(MessageCode::Unsupported, std::slice::from_ref(failed)).await?;
        }
        if summary.full.empty > 0 {
            let m = format!(
                "{} empty collections were skipped, as a server does when it loads a file",
                summary.full.empty
            );
            self.log(MessageCode::Warning, &[m]).await?;
        }
        for about in &summary.notes {
            self.log(MessageCode::Warning, std::slice::from_ref(about)).await?;
        }
        if !summary.done {
            return Ok(RunEnd::Stopped);
        }
        if !summary.failed.is_empty() || !summary.full.unsupported.is_empty() {
            let n = summary.failed.len() as u64 + summary.full.unsupported.values().sum::<u64>();
            let m = format!("{n} keys or parts could not be migrated; the log lists them");
            return Ok(RunEnd::Failed(Failure::new(Kind::Unsupported, "migration", m).at(Side::Target)));
        }
        self.row.stats.source_keys = self.running.progress.keys.load(Ordering::Relaxed);
        let target = self.node(Side::Target)?;
        if self.row.state.kind == MigrationKind::Online {
            compare_ends(
                self.engine.clone(),
                (self.id.to_owned(), self.fence),
                self.node(Side::Source)?,
                target.clone(),
                route(&self.row.spec),
            )
            .await;
        }
        let server = query_server(&target).await;
        count_keys(&mut self.row.stats, &route(&self.row.spec), None, server.as_ref());
        Ok(RunEnd::Finished)
    }
}

/// Work that ends with whoever watches it: nobody writes to a target unseen.
pub(super) struct Job(pub(super) JoinHandle<Result<Summary>>);

impl Drop for Job {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How watching a job ended.
enum Supervised {
    Ended(Summary),
    Failed(Failure),
    LeaseLost,
    CutoverAborted,
    CutOver,
}

/// What an end says of itself, if it can be asked.
pub(super) async fn query_server(node: &Node) -> Option<ServerInfo> {
    let asked = tokio::time::timeout(Duration::from_secs(4), QueryClient::open(node, Side::Target)).await;
    asked.ok()?.ok().map(|(_, server, _)| server)
}

/// The same of both ends of a migration, where what stands at the target about it is not counted.
async fn query_both(
    id: &str,
    route: &Route,
    source: Option<Node>,
    target: Option<Node>,
) -> (Option<ServerInfo>, Option<ServerInfo>) {
    let names = source.as_ref().zip(target.as_ref()).map(|(source, target)| names(id, source, target, route));
    let from = async { query_server(source.as_ref()?).await };
    let to = async {
        let asked = async {
            let (mut query, mut server, _) = QueryClient::open(target.as_ref()?, Side::Target).await.ok()?;
            let ours = cleanup::count_reserved_keys(&mut query, names.as_ref()?).await.unwrap_or(0);
            server.keys = server.keys.saturating_sub(ours);
            for (_, keys) in server.by_db.iter_mut().filter(|(db, _)| *db == 0) {
                *keys = keys.saturating_sub(ours);
            }
            Some(server)
        };
        tokio::time::timeout(Duration::from_secs(4), asked).await.ok()?
    };
    tokio::join!(from, to)
}

/// Counts and compares both ends for the log of a migration that is held under a fence; what cannot be asked in time is left
/// out.
async fn compare_ends(
    engine: Arc<Engine>,
    (id, fence): (String, i64),
    source: Node,
    target: Node,
    route: Route,
) {
    let compared = async {
        let counted = query_both(&id, &route, Some(source.clone()), Some(target.clone())).await;
        let (Some(a), Some(b)) = counted else { return Ok(()) };
        let found = compare(&source, &target, &route, Depth::Sample).await?;
        let now = engine.clock.now_ms();
        let mut unit = engine.store.write().await?;
        unit.hold_migration(&id, fence).await?;
        let parts = [a.keys, a.expires, b.keys, b.expires].map(|n| n.to_string());
        append_log(&mut unit, &id, MessageCode::Counted, now, &parts).await?;
        let keys = found.keys.to_string();
        if found.is_same() {
            append_log(&mut unit, &id, MessageCode::Compared, now, &[keys]).await?;
        } else {
            let differ = found.differ + found.expiry_differs + found.missing + found.extra;
            let first = found.examples.first().cloned().unwrap_or_default();
            append_log(&mut unit, &id, MessageCode::Different, now, &[keys, differ.to_string(), first])
                .await?;
        }
        unit.save().await
    };
    let compared: std::result::Result<Result<()>, _> = tokio::time::timeout(COMPARE_TIMEOUT, compared).await;
    if let Ok(Err(failure)) = compared {
        tracing::debug!(migration = %id, "cannot compare source and target: {failure}");
    }
}

/// Keys at both ends, of the databases that are migrated.
fn count_keys(
    stats: &mut MigrationStats,
    route: &Route,
    source: Option<&ServerInfo>,
    target: Option<&ServerInfo>,
) {
    let of = |server: &ServerInfo, wanted: &dyn Fn(u32) -> bool| {
        server.by_db.iter().filter(|(db, _)| wanted(*db)).map(|(_, keys)| keys).sum()
    };
    if let Some(source) = source {
        stats.source_keys = of(source, &|db| route.db(db).is_some());
    }
    if let Some(target) = target {
        let only = route.all_into.or(route.only_db.and_then(|db| route.db(db)));
        stats.target_keys = of(target, &|db| only.is_none_or(|only| only == db));
    }
}

/// Numbers of two moments make rates.
#[derive(Clone, Copy)]
struct RateSample {
    at: Instant,
    bytes: u64,
    commands: u64,
}

fn rate_sample(progress: &Progress) -> RateSample {
    let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    RateSample {
        at: Instant::now(),
        bytes: get(&progress.full_bytes) + get(&progress.stream_bytes),
        commands: get(&progress.keys) + get(&progress.commands),
    }
}

impl LeasedMigration<'_> {
    /// Stays beside a job: renews the lease, stores numbers and events, carries out what the user asks.
    async fn supervise(
        &mut self,
        mut job: Job,
        events: &mut mpsc::Receiver<Event>,
        live_options: &LiveOptions,
        finish: &CancellationToken,
    ) -> Result<Supervised> {
        let mut changes = self.engine.store.changes();
        // What was asked for since the row was read is seen at once.
        changes.mark_changed();
        let mut tick = tokio::time::interval(STATISTICS_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut ticks, mut last, mut logged_tenths) = (0u32, rate_sample(&self.running.progress), 0);
        let (counted, mut counts) = mpsc::channel::<(Option<ServerInfo>, Option<ServerInfo>)>(1);
        loop {
            tokio::select! {
                done = &mut job.0 => {
                    while let Ok(one) = events.try_recv() {
                        self.handle_event(one).await?;
                    }
                    return Ok(match done {
                        Ok(Ok(summary)) => Supervised::Ended(summary),
                        Ok(Err(failure)) => Supervised::Failed(failure),
                        Err(e) => Supervised::Failed(Failure::new(Kind::Internal, "migration", e.to_string())),
                    });
                }
                Some(one) = events.recv() => self.handle_event(one).await?,
                Some((source, target)) = counts.recv() => {
                    count_keys(&mut self.row.stats, &route(&self.row.spec), source.as_ref(), target.as_ref());
                }
                _ = tick.tick() => {
                    if self.renewed.elapsed() >= RENEW_INTERVAL && !self.renew().await? {
                        return Ok(Supervised::LeaseLost);
                    }
                    if ticks.is_multiple_of(COUNT_EVERY_TICKS) {
                        let (source, target) = (self.node(Side::Source).ok(), self.node(Side::Target).ok());
                        let (counted, id, route) = (counted.clone(), self.id.to_owned(), route(&self.row.spec));
                        tokio::spawn(async move {
                            let _ = counted.try_send(query_both(&id, &route, source, target).await);
                        });
                    }
                    ticks += 1;
                    logged_tenths = self.save_statistics(&mut last, logged_tenths).await?;
                }
                _ = changes.changed() => {
                    let mut unit = self.engine.store.read().await?;
                    let row = unit.migration(self.id).await?;
                    drop(unit);
                    if is_stopping(row.as_ref()) {
                        self.running.stop.cancel();
                    }
                    let Some(row) = row else { continue };
                    live_options.update(&row.spec);
                    self.row.spec = row.spec;
                    self.row.cutover = row.cutover;
                    let asked = row.state.switch == Some(Switch::Exchanging);
                    self.row.state = row.state;
                    if asked {
                        let cutover = Cutover::new(self, finish.clone())?;
                        return Ok(match cutover.run(self, job).await? {
                            cutover::Outcome::Done => Supervised::CutOver,
                            cutover::Outcome::Aborted => Supervised::CutoverAborted,
                            cutover::Outcome::Stopped => Supervised::Ended(Summary::default()),
                        });
                    }
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<bool> {
        let until = self.engine.clock.now_ms() + LEASE_MS;
        let mut unit = self.engine.store.write().await?;
        let leased = unit.renew_migration(self.id, self.fence, until).await?;
        unit.save().await?;
        self.renewed = Instant::now();
        Ok(leased)
    }

    /// One event: a line of the log, and what it means for the phase.
    async fn handle_event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::SnapshotStarted { replid, offset, keys, resync } => {
                if resync {
                    self.log(MessageCode::FullResync, &[]).await?;
                }
                self.row.stats.full_syncs += 1;
                self.row.stats.percent = 0;
                self.apply(MigrationEvent::Resync).await?;
                self.log(MessageCode::FullSyncStarted, &[offset.to_string(), replid, keys.to_string()]).await
            }
            Event::SnapshotLoaded { keys, seconds } => {
                self.row.stats.percent = 100;
                self.count_now().await;
                self.log(MessageCode::FullSyncDone, &[keys.to_string(), format!("{seconds:.1}")]).await?;
                match self.row.spec.method {
                    Some(model::migration::Method::Incremental) => self.apply(MigrationEvent::Loaded).await,
                    _ => Ok(()),
                }
            }
            Event::Resumed { offset } => {
                self.row.stats.percent = 100;
                self.row.stats.partial_syncs += 1;
                self.count_now().await;
                self.apply(MigrationEvent::Loaded).await?;
                self.log(MessageCode::Resumed, &[offset.to_string()]).await
            }
            Event::CaughtUp => {
                self.log(MessageCode::CaughtUp, &[]).await?;
                let (source, target) = (self.node(Side::Source)?, self.node(Side::Target)?);
                tokio::spawn(compare_ends(
                    self.engine.clone(),
                    (self.id.to_owned(), self.fence),
                    source,
                    target,
                    route(&self.row.spec),
                ));
                Ok(())
            }
            Event::Note(note) => self.log(MessageCode::Warning, &[note]).await,
            Event::Disconnected { failure, delay } => {
                self.log(
                    MessageCode::Disconnected,
                    &[super::log_messages::format_failure(&failure), format!("{:.1}", delay.as_secs_f64())],
                )
                .await
            }
        }
    }

    /// Counts both ends for the phase that begins now; ends that take their time are counted by the next tick.
    async fn count_now(&mut self) {
        let route = route(&self.row.spec);
        let (source, target) = (self.node(Side::Source).ok(), self.node(Side::Target).ok());
        let counted = tokio::time::timeout(COUNT_TIMEOUT, query_both(self.id, &route, source, target)).await;
        if let Ok((source, target)) = counted {
            count_keys(&mut self.row.stats, &route, source.as_ref(), target.as_ref());
        }
    }

    /// Writes the numbers of this moment down; a line of the log at each tenth of the snapshot.
    async fn save_statistics(&mut self, last: &mut RateSample, mut logged_tenths: u64) -> Result<u64> {
        let progress = &self.running.progress;
        let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let now = rate_sample(progress);
        let seconds = (now.at - last.at).as_secs_f64().max(0.001);
        let rate = |a: u64, b: u64| (a.saturating_sub(b) as f64 / seconds) as u64;
        let stats = &mut self.row.stats;
        stats.kib_per_s = rate(now.bytes, last.bytes) / 1024;
        stats.ops_per_s = rate(now.commands, last.commands);
        (stats.lag_bytes, stats.lag_ms) = (get(&progress.lag_bytes), get(&progress.lag_ms));
        let (keys, expected) = (get(&progress.keys), get(&progress.keys_expected));
        let loading = get(&progress.phase) == 1 && stats.percent < 100;
        if loading {
            stats.percent = (keys * 100).checked_div(expected).unwrap_or(0).min(99).max(stats.percent);
        }
        let (percent, stats) = (stats.percent, stats.clone());
        *last = now;
        let mut unit = self.write().await?;
        if loading && percent / 10 > logged_tenths {
            logged_tenths = percent / 10;
            let parts = [percent, keys, expected].map(|n| n.to_string());
            append_log(&mut unit, self.id, MessageCode::FullSyncProgress, self.engine.clock.now_ms(), &parts)
                .await?;
        }
        unit.set_migration_stats(self.id, &stats).await?;
        unit.save().await?;
        Ok(logged_tenths)
    }

    /// Counts both ends when it rests, beside the answer to whoever stopped it.
    fn count_once_more(&self) {
        let (source, target) = (self.node(Side::Source).ok(), self.node(Side::Target).ok());
        let (engine, id, route) = (self.engine.clone(), self.id.to_owned(), route(&self.row.spec));
        tokio::spawn(async move {
            let (source, target) = query_both(&id, &route, source, target).await;
            let noted = async {
                let mut unit = engine.store.write().await?;
                // Whoever has claimed it since counts for itself.
                let rests = |m: &MigrationRow| !m.state.phase.is_open() && m.owner.is_none();
                let Some(row) = unit.migration(&id).await?.filter(rests) else { return Ok(()) };
                let mut stats = row.stats;
                count_keys(&mut stats, &route, source.as_ref(), target.as_ref());
                unit.set_migration_stats(&id, &stats).await?;
                unit.save().await
            };
            let noted: Result<()> = noted.await;
            if let Err(failure) = noted {
                tracing::debug!(migration = %id, "cannot save the final statistics: {failure}");
            }
        });
    }

    /// Writes down how it ended and gives the lease back, in one transaction.
    async fn finish(&mut self, ended: RunEnd) -> Result<()> {
        let (id, now) = (self.id, self.engine.clock.now_ms());
        if matches!(ended, RunEnd::Stopped) {
            self.count_once_more();
        }
        let mut unit = self.engine.store.write().await?;
        if !unit.release_migration(id, self.fence).await? {
            tracing::warn!(migration = id, "migration {id}: the lease was taken over by another worker");
            return Ok(());
        }
        let mut stats: MigrationStats = self.row.stats.clone();
        match ended {
            RunEnd::Finished => {
                tracing::info!(migration = id, "migration {id} finished");
                (stats.percent, stats.lag_bytes, stats.lag_ms) = (100, 0, 0);
                let _ = unit.apply_migration(id, MigrationEvent::Finished, now).await?;
                append_log(&mut unit, id, MessageCode::Done, now, &[]).await?;
            }
            RunEnd::Stopped => {
                // A shutdown lets it stay as it is, to go on at the next start; a stop lets it rest.
                let was = unit.migration(id).await?.map(|m| m.state.phase);
                let _ = unit.apply_migration(id, MigrationEvent::Rested, now).await?;
                if was == Some(Phase::Stopping) {
                    tracing::info!(migration = id, "migration {id} stopped");
                    append_log(&mut unit, id, MessageCode::Stopped, now, &[]).await?;
                }
            }
            RunEnd::Failed(failure) => {
                tracing::error!(migration = id, "migration {id} failed: {failure}");
                fail(&mut unit, id, &super::log_messages::format_failure(&failure), now).await?;
            }
            RunEnd::LeaseLost => return Ok(()),
        }
        (stats.kib_per_s, stats.ops_per_s) = (0, 0);
        unit.set_migration_stats(id, &stats).await?;
        unit.save().await
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use pace::backoff::Backoff;
    use store::{NewMigration, Store, TaskRow};

    use super::*;
    use crate::engine::{Opened, Places, Setup};

    struct Nowhere;

    #[async_trait]
    impl Places for Nowhere {
        async fn open(&self, _: &TaskRow, _: &str, _: Side) -> Result<Opened> {
            Err(Failure::new(Kind::Invalid, "open", "there is no such place"))
        }
    }

    async fn engine(dir: &std::path::Path) -> Arc<Engine> {
        let setup = Setup {
            store: Store::embedded(dir).await.unwrap(),
            clock: Arc::new(pace::clock::MockClock::at(1_000_000)),
            places: Arc::new(Nowhere),
            data_dir: dir.to_owned(),
            memory: 64 << 20,
            running_tasks: 1,
            zone_minutes: 0,
            threads: 1,
            backoff: Backoff::default(),
        };
        let engine = Engine::start(setup).unwrap();
        let made = NewMigration {
            id: "m".into(),
            project: "p".into(),
            name: String::new(),
            description: String::new(),
            kind: MigrationKind::Online,
            spec: MigrationSpec::default(),
            secrets: "{}".into(),
            phase: Phase::Loading,
            job: "j".into(),
            now: 1,
        };
        let mut unit = engine.store.write().await.unwrap();
        unit.insert_migration(made).await.unwrap();
        unit.save().await.unwrap();
        engine
    }

    async fn claim(engine: &Arc<Engine>, owner: &str, now: i64) -> (i64, MigrationRow) {
        let mut unit = engine.store.write().await.unwrap();
        let fence = unit.claim_migration("m", owner, now, now + 10).await.unwrap().unwrap();
        let row = unit.migration("m").await.unwrap().unwrap();
        unit.save().await.unwrap();
        (fence, row)
    }

    #[tokio::test]
    async fn f4_a_worker_that_lost_its_lease_writes_nothing_about_a_migration() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path()).await;
        let (fence, row) = claim(&engine, "one", 1).await;
        let running = RunningMigration {
            project: "p".into(),
            progress: Arc::default(),
            stop: CancellationToken::new(),
        };
        let mut late = LeasedMigration {
            engine: &engine,
            id: "m",
            fence,
            running: &running,
            row,
            secrets: EndSecrets::default(),
            redirects: vec![],
            renewed: Instant::now(),
        };
        late.log(MessageCode::CaughtUp, &[]).await.unwrap();
        claim(&engine, "two", 12).await;
        let lost = |done: Result<()>| assert_eq!(done.unwrap_err().kind, Kind::LeaseLost);
        lost(late.log(MessageCode::CaughtUp, &[]).await);
        lost(late.apply(MigrationEvent::Finished).await);
        let mut last = rate_sample(&running.progress);
        lost(late.save_statistics(&mut last, 0).await.map(drop));
        // Neither end is touched by a cut-over that is another worker's now.
        lost(cutover::abort(&mut late, "it is too late").await);
        lost(cutover::finish(&mut late).await);
        lost(cutover::roll_back(&mut late).await);
        let mut unit = engine.store.read().await.unwrap();
        let row = unit.migration("m").await.unwrap().unwrap();
        assert_eq!((row.state.phase, row.error), (Phase::Loading, None));
        assert_eq!(unit.migration_logs("m", "", 0, 10).await.unwrap().1, 1);
    }

    #[test]
    fn identity_of_a_migration_never_changes() {
        let (source, target) =
            (Node::parse("redis://a:1/3").unwrap(), Node::parse("rediss://b:2,c:3").unwrap());
        let route = Route { only_db: Some(3), db_map: BTreeMap::from([(3, 4)]), ..Route::default() };
        assert_eq!(names("id", &source, &target, &route).id, "id:a5700046");
        assert_eq!(names("id", &target, &source, &Route::default()).id, "id:323be3ba");
    }
}
