//! The task of `whimbrel copy` in the foreground: progress, signals and retries.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flow_control::backoff::Backoff;
use flow_control::clock::SharedClock;
use model::error::{Error, Kind, Result};
use model::task::{Event, Visible};
use object_migration::Progress;
use runtime::engine::EngineConfig;
use runtime::{Engine, run_to_end};
use store::{Store, TaskRow};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;

use super::TASK;
use crate::open_store::EndPair;
use crate::printer::Printer;
use crate::report;

pub(super) fn start_engine(
    store: &Store,
    clock: &SharedClock,
    ends: &Arc<EndPair>,
    dir: &Path,
    memory: u64,
) -> Result<Arc<Engine>> {
    Engine::start(EngineConfig {
        store: store.clone(),
        clock: clock.clone(),
        resolver: ends.clone(),
        data_dir: dir.to_path_buf(),
        memory,
        running_tasks: 1,
        zone_minutes: 0,
        works: true,
        threads: 0,
        backoff: Backoff::default(),
    })
}

/// The task of this command while it runs, with its output and its signals.
struct ForegroundRun<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) store: &'a Store,
    pub(super) clock: &'a SharedClock,
    pub(super) printer: &'a Printer,
    pub(super) stop: CancellationToken,
    interrupt: Signal,
    terminate: Signal,
    tick: Interval,
    pub(super) interrupted: bool,
    pub(super) live: Option<Arc<Progress>>,
}

impl ForegroundRun<'_> {
    /// Runs the task once, until it ends, fails or was stopped.
    async fn run_once(&mut self) -> Result<()> {
        // In a task of its own, so that it goes on while an answer below waits.
        let (engine, stop) = (self.engine.clone(), self.stop.clone());
        let mut running = tokio::spawn(async move { run_to_end(&engine, TASK, stop).await });
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                _ = self.interrupt.recv(), if !self.interrupted => self.pause().await?,
                _ = self.terminate.recv(), if !self.interrupted => self.pause().await?,
                _ = self.tick.tick() => self.show_progress(),
            }
        };
        let ended = ended.map_err(|e| Error::new(Kind::Internal, "copy", e.to_string()))?;
        self.live = ended?.or(self.live.take());
        Ok(())
    }

    /// Stops the task because the user asked for it.
    async fn pause(&mut self) -> Result<()> {
        self.interrupted = true;
        pause(self.store, self.clock).await?;
        self.stop.cancel();
        Ok(())
    }

    fn show_progress(&mut self) {
        self.live = self.engine.progress(TASK).or(self.live.take());
        if let Some(progress) = &self.live {
            let line = report::line(&progress.snapshot());
            if self.printer.draws() { self.printer.progress(&line) } else { self.printer.note(&line) }
        }
    }

    /// Waits until a failed task is due again; Ctrl-C ends the wait.
    async fn wait_for_retry(&mut self, task: Option<TaskRow>) -> Result<()> {
        let due = self.store.read().await?.retry_at(TASK).await?;
        let wait = Duration::from_millis(u64::try_from(due - self.clock.now_ms()).unwrap_or(0));
        if let Some(error) = task.and_then(|t| t.error) {
            let wait = report::duration(wait.as_secs_f64());
            self.printer.note(&format!("{}; retrying in {wait}", error.message));
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            _ = self.interrupt.recv() => self.pause().await,
        }
    }
}

/// Runs the task and shows its progress; Ctrl-C pauses it.
pub(super) async fn follow(
    engine: &Arc<Engine>,
    store: &Store,
    clock: &SharedClock,
    stop: CancellationToken,
    printer: &Printer,
) -> Result<(bool, Option<Arc<Progress>>)> {
    let mut tick = tokio::time::interval(Duration::from_millis(if printer.draws() { 200 } else { 10_000 }));
    tick.tick().await;
    // Listened to all the time: what comes while something else is waited for is not lost.
    let handler = |kind| signal(kind).map_err(|e| Error::new(Kind::Internal, "signal", e.to_string()));
    let (interrupt, terminate) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    let (interrupted, live) = (false, None);
    let mut run =
        ForegroundRun { engine, store, clock, printer, stop, interrupt, terminate, tick, interrupted, live };
    loop {
        run.run_once().await?;
        // A task-level error that passes is retried as in the service.
        let task = store.read().await?.task(TASK).await?;
        if run.interrupted || task.as_ref().is_none_or(|t| t.state.visible() != Visible::Retrying) {
            return Ok((run.interrupted, run.live));
        }
        // Where nothing was ever reached, a person has to look at the address.
        if run.live.as_ref().is_none_or(|l| l.request_counts() == [0; 4]) {
            pause(store, clock).await?;
            return Ok((false, run.live));
        }
        run.wait_for_retry(task).await?;
        if run.interrupted {
            let mut tx = store.write().await?;
            let _ = tx.apply(TASK, Event::Drained, clock.now_ms()).await?;
            tx.commit().await?;
            return Ok((true, run.live));
        }
    }
}

async fn pause(store: &Store, clock: &SharedClock) -> Result<()> {
    let mut tx = store.write().await?;
    let _ = tx.apply(TASK, Event::Stop, clock.now_ms()).await?;
    tx.commit().await
}
