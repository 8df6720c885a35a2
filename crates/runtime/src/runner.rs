//! One task from lease to release.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flow_control::limit::LimitBounds;
use model::error::{Error, Kind, Reason, Result, Side};
use model::parent::Parent;
use model::task::{Event, TaskId, Visible};
use object_migration::{Job, JobEnd, Progress};
use storage::retrying::RetryingStore;
use storage::{Fact, ObjectStore};
use store::{FENCE_AFTER, LEASE_MS, RENEW_INTERVAL, StoreTx, TaskBandwidth, TaskRow};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, RunningTask};
use crate::environment::OpenedStore;
use crate::panics::catch_panic;
use crate::webhooks::notify_task_end;

/// Shortest time between two checks of archived objects.
const RESTORE_MIN_MS: i64 = 5_000;
/// Longest time between two checks of archived objects.
const RESTORE_MAX_MS: i64 = 900_000;
/// First delay before a failed task is retried; it doubles with each attempt.
const TASK_RETRY_FIRST_MS: i64 = 5_000;
/// Longest delay before a failed task is retried.
const TASK_RETRY_MAX_MS: i64 = 320_000;
/// Between two attempts to begin a task when the store fails.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// Task-level attempts before a passing error fails the task.
const MAX_ATTEMPTS: u32 = 5;

/// Runs a task here if its lease can be had; used by the dispatcher.
pub(crate) async fn run(engine: Arc<Engine>, id: TaskId) -> TaskId {
    let stop = CancellationToken::new();
    // However it ends, no worker holds the task afterwards.
    let done = catch_panic(run_leased(&engine, id, stop)).await.flatten();
    // It may be deleted while it is picked up.
    let is_deleted = |f: &Error| f.kind == Kind::NotFound && f.side == Side::Local;
    if let Err(failure) = done.or_else(|f| if is_deleted(&f) { Ok(()) } else { Err(f) }) {
        tracing::error!(task = id, "cannot run task: {failure}");
        // It stays dispatched for this long, so that the dispatcher does not try again at once.
        tokio::time::sleep(RETRY_DELAY).await;
    }
    engine.running().remove(&id);
    engine.dispatched().remove(&id);
    engine.ended.notify_one();
    id
}

/// Runs one task in the foreground until it ends or is stopped; returns its last numbers.
///
/// # Errors
/// When the store fails; the task's own failure is in the store.
pub async fn run_to_end(
    engine: &Arc<Engine>,
    id: TaskId,
    stop: CancellationToken,
) -> Result<Option<Arc<Progress>>> {
    run_leased(engine, id, stop).await?;
    Ok(engine.running().remove(&id).map(|r| r.progress))
}

async fn run_leased(engine: &Arc<Engine>, id: TaskId, stop: CancellationToken) -> Result<()> {
    let now = engine.clock.now_ms();
    let mut tx = engine.store.write().await?;
    let Some(fence) = tx.claim_task(id, &engine.owner, now, now + LEASE_MS).await? else { return Ok(()) };
    let was = tx.task(id).await?;
    // Other processes may have started tasks of the project since the plan was made.
    if let Some(waiting) = was.as_ref().filter(|t| t.state.visible() == Visible::Waiting)
        && !matches!(waiting.parent, Parent::Sync(_))
        && tx.running_tasks(&waiting.project).await? >= engine.running_tasks.load(Ordering::Relaxed).into()
    {
        return Ok(());
    }
    if tx.apply(id, Event::Claim, now).await?.is_err() {
        // It was stopped or ended since the plan was made; dropping the transaction gives the lease back.
        return Ok(());
    }
    if was.is_some_and(|t| t.state.visible() == Visible::Waiting || t.started_at.is_none()) {
        tx.mark_started(id, now).await?;
    }
    let Some(task) = tx.task(id).await? else { return Ok(()) };
    let secrets = match tx.task_secrets(id).await {
        // What cannot be opened now cannot be opened later: the task ends and says why.
        Err(failure) if failure.reason == Reason::SecretNotOpened => Err(failure),
        secrets => Ok(secrets?.unwrap_or_default()),
    };
    let progress = Progress::new(task.counters, task.precounted, task.precount_done, task.spec.bandwidth);
    let remembers = engine.remembers_keys() || task.spec.extensions.delete;
    let progress = Arc::new(if remembers { progress.remembering_keys() } else { progress });
    let running =
        RunningTask { project: task.project.clone(), progress: progress.clone(), stop: stop.clone() };
    engine.running().insert(id, running);
    tx.commit().await?;
    let limits = TaskBandwidth { windows: task.spec.windows.clone(), bandwidth: task.spec.bandwidth };
    engine.set_bandwidth(id, &limits, now, 1);
    tracing::info!(task = id, name = %task.name, "task started");

    // In a task of its own: it must go on while the work below waits, and the work while it waits.
    let keeper = tokio::spawn(keep_lease(engine.clone(), id, fence, stop.clone()));
    let ended = match secrets {
        Ok(secrets) => {
            catch_panic(open_and_run(engine, &task, &secrets, fence, progress, stop.clone())).await
        }
        Err(failure) => Err(failure),
    };
    keeper.abort();
    let ended = ended.unwrap_or_else(JobEnd::Failed);
    release(engine, &task, fence, ended, &stop).await
}

/// Renews the lease, and stops the work when the lease is lost or a stop is requested.
async fn keep_lease(engine: Arc<Engine>, id: TaskId, fence: i64, stop: CancellationToken) {
    let mut changes = engine.store.changes();
    let mut renew = tokio::time::interval(RENEW_INTERVAL);
    let mut renewed = Instant::now();
    loop {
        let is_stopped = tokio::select! {
            _ = changes.changed() => should_stop(&engine, id).await,
            _ = renew.tick() => match renew_lease(&engine, id, fence).await {
                Ok(held) => {
                    renewed = Instant::now();
                    !held || should_stop(&engine, id).await
                }
                // A shared database may come back in time; nothing is written to it until then. An embedded one has failed.
                Err(failure) => {
                    tracing::warn!(task = id, "cannot renew the lease: {failure}");
                    !engine.store.is_shared() || renewed.elapsed() >= FENCE_AFTER
                }
            },
        };
        if is_stopped {
            stop.cancel();
        }
    }
}

async fn renew_lease(engine: &Engine, id: TaskId, fence: i64) -> Result<bool> {
    let renewing = async {
        let mut tx = engine.store.work().await?;
        let held = tx.renew_task(id, fence, engine.clock.now_ms() + LEASE_MS).await?;
        tx.commit().await?;
        Ok(held)
    };
    if !engine.store.is_shared() {
        // Nobody else may claim it, however long the disk takes.
        return renewing.await;
    }
    let late = |_| Error::new(Kind::Timeout, "renew", "the database did not answer in time");
    tokio::time::timeout(RENEW_INTERVAL, renewing).await.map_err(late)?
}

async fn should_stop(engine: &Engine, id: TaskId) -> bool {
    let read = async { engine.store.read().await?.task_state(id).await };
    // A database that does not answer must not keep the lease from being renewed, or given up.
    let Ok(read) = tokio::time::timeout(RENEW_INTERVAL, read).await else { return false };
    match read {
        Ok(Some(state)) => state.visible() == Visible::Pausing,
        Ok(None) => true,
        Err(_) => false,
    }
}

async fn open_and_run(
    engine: &Arc<Engine>,
    task: &TaskRow,
    secrets: &str,
    fence: i64,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> JobEnd {
    let open = async |side: Side| engine.resolver.open(task, secrets, side).await.map_err(|f| f.at(side));
    let both = async { Ok::<_, Error>((open(Side::Source).await?, open(Side::Target).await?)) };
    let (source, target) = tokio::select! {
        opened = both => match opened {
            Ok(opened) => opened,
            Err(failure) => return JobEnd::Failed(failure),
        },
        () = stop.cancelled() => return JobEnd::Stopped,
    };
    let skew_of = |opened: &OpenedStore| opened.probe.skew_ms.unwrap_or(0);
    let (source_skew_ms, target_skew_ms) = (skew_of(&source), skew_of(&target));
    let bounds = limit_bounds(task.spec.concurrency, &*source.store, &*target.store);
    let ends = limited(engine, &task.project, source, Side::Source, bounds)
        .and_then(|source| Ok((source, limited(engine, &task.project, target, Side::Target, bounds)?)));
    let (source, target) = match ends {
        Ok(ends) => ends,
        Err(failure) => return JobEnd::Failed(failure),
    };
    *progress.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
        vec![source.requests(), target.requests()];
    *progress.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
        vec![source.limit().clone(), target.limit().clone()];
    let job = Job {
        task: task.clone(),
        store: engine.store.clone(),
        source,
        target,
        io_threads: engine.io_threads.clone(),
        memory: engine.memory.clone(),
        progress,
        stop,
        owner: engine.owner.clone(),
        fence,
        data_dir: engine.data_dir.clone(),
        source_skew_ms,
        target_skew_ms,
        dry_run: false,
        backoff: engine.backoff,
    };
    job.run(engine.clock.clone()).await
}

/// How many requests a task may have in flight at each of its ends.
fn limit_bounds(concurrency: u32, source: &dyn ObjectStore, target: &dyn ObjectStore) -> LimitBounds {
    match concurrency {
        0 if source.as_directory().is_some() && target.as_directory().is_some() => LimitBounds::local(),
        0 => LimitBounds::ADAPTIVE,
        n => LimitBounds::at_most(n),
    }
}

/// An opened store with retries, within the limit of its project at the endpoint.
fn limited(
    engine: &Engine,
    project: &str,
    opened: OpenedStore,
    side: Side,
    bounds: LimitBounds,
) -> Result<Arc<RetryingStore>> {
    let limit = engine.limit(project, &opened.limit_key, bounds);
    limit.restart();
    let retrying = RetryingStore::new(opened.store, side, limit, engine.backoff);
    if let Some(refused) = opened.probe.list_refused {
        // A source must be listed, but for one that is a list itself; of a target each key can be asked for.
        if side == Side::Source && !retrying.capability().list_keys_only {
            return Err(refused.at(side));
        }
        retrying.learn(Fact::ListRefused);
    }
    Ok(Arc::new(retrying))
}

/// Writes down how it ended and gives the lease back, in one transaction.
async fn release(
    engine: &Engine,
    task: &TaskRow,
    fence: i64,
    ended: JobEnd,
    stop: &CancellationToken,
) -> Result<()> {
    let (id, now) = (task.id, engine.clock.now_ms());
    let mut tx = engine.store.write().await?;
    if !tx.release_task(id, fence).await? {
        tracing::warn!(task = id, "the lease was taken over by another worker");
        return Ok(());
    }
    match ended {
        JobEnd::Finished { failed } => finish(engine, &mut tx, task, failed, now).await?,
        JobEnd::WaitsForRestore { since } => {
            // Soon at first, then by half of the time that was waited, at most every quarter of an hour.
            let delay = ((now - since) / 2).clamp(RESTORE_MIN_MS, RESTORE_MAX_MS);
            tracing::info!(task = id, delay_ms = delay, "task postponed until archived objects are restored");
            tx.wait_until(id, now + delay).await?;
            let _ = tx.apply(id, Event::Postpone, now).await?;
        }
        JobEnd::Stopped => {
            // A shutdown lets the task stay as it is, to go on at the next start; a stop pauses it.
            let _ = tx.apply(id, Event::Drained, now).await?;
        }
        // The lease was held until now, whatever error the ledger's writer had: it is released.
        JobEnd::Failed(failure) if failure.kind == Kind::LeaseLost => {}
        JobEnd::Failed(failure)
            if failure.is_temporary() && task.attempts < MAX_ATTEMPTS && !stop.is_cancelled() =>
        {
            let delay = task_retry_delay(task.attempts);
            tracing::warn!(task = id, delay_ms = delay, "task failed and will be retried: {failure}");
            tx.set_error(id, &failure, now + delay).await?;
            let _ = tx.apply(id, Event::Postpone, now).await?;
        }
        JobEnd::Failed(failure) => fail(engine, &mut tx, task, &failure, now).await?,
    }
    tx.commit().await
}

/// The delay before a task is retried that has failed `attempts` times before, milliseconds.
fn task_retry_delay(attempts: u32) -> i64 {
    (TASK_RETRY_FIRST_MS << attempts.min(30)).min(TASK_RETRY_MAX_MS)
}

async fn finish(engine: &Engine, tx: &mut StoreTx, task: &TaskRow, failed: u64, now: i64) -> Result<()> {
    let id = task.id;
    tracing::info!(task = id, failed, "task ended");
    engine.delete_list(id);
    let bytes = tx.task(id).await?.map_or(0, |t| t.counters.copied.bytes);
    if tx.apply(id, Event::Finish { failed }, now).await?.is_ok_and(|s| s.visible() != Visible::Paused) {
        notify_task_end(tx, task, failed == 0, bytes, now).await?;
        tx.erase_secrets(id).await?;
    }
    Ok(())
}

async fn fail(engine: &Engine, tx: &mut StoreTx, task: &TaskRow, failure: &Error, now: i64) -> Result<()> {
    let id = task.id;
    tracing::error!(task = id, "task failed: {failure}");
    if !failure.kind.is_resumable() {
        engine.delete_list(id);
    }
    tx.set_error(id, failure, 0).await?;
    if tx.apply(id, Event::Fail, now).await?.is_ok_and(|s| s.visible() != Visible::Paused) {
        notify_task_end(tx, task, false, task.counters.copied.bytes, now).await?;
        tx.erase_secrets(id).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_retry_delays_double_up_to_the_maximum() {
        for (attempts, seconds) in [(0, 5), (1, 10), (2, 20), (5, 160), (6, 320), (7, 320), (u32::MAX, 320)] {
            assert_eq!(task_retry_delay(attempts), seconds * 1000, "after {attempts} attempts");
        }
    }
}
