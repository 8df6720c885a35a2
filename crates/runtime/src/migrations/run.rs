//! One migration from lease to release.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flow_control::budget::Bandwidth;
use model::error::{Error, Kind, Result, Side};
use model::migration::{CutoverState, MigrationEvent, MigrationKind, MigrationSpec, Phase, ResumeMode};
use redis_migration::connection::server::ServerInfo;
use redis_migration::reconnect::ReconnectPolicy;
use redis_migration::snapshot::restore::Conflict;
use redis_migration::source::spool::SpoolLimits;
use redis_migration::{Event, EventSender, Migration, Options, Reconnect, Summary, Until};
use store::{LEASE_MS, MigrationStats, RENEW_INTERVAL};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, RunningMigration};
use crate::migrations::cutover::{self, Cutover};
use crate::migrations::endpoints::EndSecrets;
use crate::migrations::identity::{functions, names, route};
use crate::migrations::import;
use crate::migrations::lease::{Job, LeasedMigration, is_stopping};
use crate::migrations::log::{append_log, fail};
use crate::migrations::log_messages::{MessageCode, format_failure};
use crate::migrations::statistics::{compare_ends, count_keys, query_both, query_server, rate_sample};
use crate::panics::catch_panic;

/// How often numbers are written down.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);
/// Both ends are asked for their keys at every so many ticks.
const COUNT_EVERY_TICKS: u32 = 2;

const MIB: u64 = 1 << 20;

/// Runs a migration here if its lease can be had; used by the dispatcher.
pub(crate) async fn run(engine: Arc<Engine>, id: String, running: RunningMigration) -> String {
    if let Err(failure) = catch_panic(lease_and_run(&engine, &id, &running)).await.flatten() {
        tracing::error!(migration = %id, "cannot run migration: {failure}");
    }
    engine.migrations().remove(&id);
    engine.ended.notify_one();
    id
}

async fn lease_and_run(engine: &Arc<Engine>, id: &str, running: &RunningMigration) -> Result<()> {
    let now = engine.clock.now_ms();
    let mut tx = engine.store.write().await?;
    let Some(fence) = tx.claim_migration(id, &engine.owner, now, now + LEASE_MS).await? else {
        return Ok(());
    };
    let Some(row) = tx.migration(id).await? else { return Ok(()) };
    let secrets = EndSecrets::from_json(&tx.migration_secrets(id).await?.unwrap_or_default());
    let redirects = tx.redirects().await?;
    tx.commit().await?;
    tracing::info!(migration = id, name = %row.name, "migration started");
    let mut leased =
        LeasedMigration { engine, id, fence, running, row, secrets, redirects, renewed: Instant::now() };
    let ended = catch_panic(leased.run_by_state()).await.unwrap_or_else(RunEnd::Failed);
    leased.finish(ended).await
}

/// How the work on a migration ended.
pub(super) enum RunEnd {
    /// It did what it was to do.
    Finished,
    /// It is stopped, to be resumed later.
    Stopped,
    /// It cannot go on.
    Failed(Error),
    /// Somebody else holds it now.
    LeaseLost,
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
        self.bandwidth.set_rate(u64::from(spec.bandwidth_mb.unwrap_or(0)) * MIB);
        self.reconnect.set(match spec.resume {
            ResumeMode::Auto => ReconnectPolicy::Always,
            ResumeMode::Manual => ReconnectPolicy::Never,
        });
    }
}

impl LeasedMigration<'_> {
    async fn run_by_state(&mut self) -> RunEnd {
        let done = match (self.row.state.cutover, self.row.state.kind) {
            (Some(CutoverState::RollingBack), _) => cutover::roll_back(self).await.map(|()| RunEnd::Stopped),
            (Some(CutoverState::Committed), _) => cutover::finish(self).await.map(|()| RunEnd::Stopped),
            (_, MigrationKind::Import) => self.run_import().await,
            (switch, MigrationKind::Online) => {
                if switch == Some(CutoverState::InProgress) {
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
            let job = Job(self.engine.io_threads.handle().spawn(async move { migration.run().await }));
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
        let job = Job(self.engine.io_threads.handle().spawn(async move { task.run().await }));
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
            return Ok(RunEnd::Failed(Error::new(Kind::Unsupported, "migration", m).at(Side::Target)));
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

/// How watching a job ended.
enum Supervised {
    Ended(Summary),
    Failed(Error),
    LeaseLost,
    CutoverAborted,
    CutOver,
}

impl LeasedMigration<'_> {
    /// Runs concurrently with a job: renews the lease, stores numbers and events, carries out what the user asks.
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
                        Err(e) => Supervised::Failed(Error::new(Kind::Internal, "migration", e.to_string())),
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
                    if self.reload_row(live_options).await? {
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

    /// Reads the row again and carries out what it asks of the job; true when a cut-over is asked for.
    async fn reload_row(&mut self, live_options: &LiveOptions) -> Result<bool> {
        let mut tx = self.engine.store.read().await?;
        let row = tx.migration(self.id).await?;
        drop(tx);
        if is_stopping(row.as_ref()) {
            self.running.stop.cancel();
        }
        let Some(row) = row else { return Ok(false) };
        live_options.update(&row.spec);
        self.row.spec = row.spec;
        self.row.cutover = row.cutover;
        self.row.state = row.state;
        Ok(self.row.state.cutover == Some(CutoverState::InProgress))
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
                    &[format_failure(&failure), format!("{:.1}", delay.as_secs_f64())],
                )
                .await
            }
        }
    }

    /// Writes down how it ended and gives the lease back, in one transaction.
    async fn finish(&mut self, ended: RunEnd) -> Result<()> {
        let (id, now) = (self.id, self.engine.clock.now_ms());
        if matches!(ended, RunEnd::Stopped) {
            self.count_once_more();
        }
        let mut tx = self.engine.store.write().await?;
        if !tx.release_migration(id, self.fence).await? {
            tracing::warn!(migration = id, "the lease was taken over by another worker");
            return Ok(());
        }
        let mut stats: MigrationStats = self.row.stats.clone();
        match ended {
            RunEnd::Finished => {
                tracing::info!(migration = id, "migration finished");
                (stats.percent, stats.lag_bytes, stats.lag_ms) = (100, 0, 0);
                let _ = tx.apply_migration(id, MigrationEvent::Finished, now).await?;
                append_log(&mut tx, id, MessageCode::Done, now, &[]).await?;
            }
            RunEnd::Stopped => {
                // A shutdown lets it stay as it is, to go on at the next start; a stop marks it as stopped.
                let was = tx.migration(id).await?.map(|m| m.state.phase);
                let _ = tx.apply_migration(id, MigrationEvent::Drained, now).await?;
                if was == Some(Phase::Stopping) {
                    tracing::info!(migration = id, "migration stopped");
                    append_log(&mut tx, id, MessageCode::Stopped, now, &[]).await?;
                }
            }
            RunEnd::Failed(failure) => {
                tracing::error!(migration = id, "migration failed: {failure}");
                fail(&mut tx, id, &format_failure(&failure), now).await?;
            }
            RunEnd::LeaseLost => return Ok(()),
        }
        (stats.kib_per_s, stats.ops_per_s) = (0, 0);
        tx.set_migration_stats(id, &stats).await?;
        tx.commit().await
    }
}

#[cfg(test)]
mod tests;
