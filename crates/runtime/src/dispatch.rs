//! The dispatcher: woken by every change and once a second, it carries out the plan.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use model::error::{Error, Kind, Result};
use model::parent::Parent;
use model::task::{Event, Observed, TaskId};
use store::{OpenTask, TaskBandwidth};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::panics::catch_panic;
use crate::plan::{Step, WAIT_MAX_MS, plan};
use crate::runner::run;

/// Time between two steps without a change.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit for running tasks and migrations to stop when the process ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);

/// A task may have been deleted since the plan was made: nothing is left to do then.
fn unless_deleted<T>(done: Result<T>) -> Result<Option<T>> {
    match done {
        Err(failure) if failure.kind == Kind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

impl Engine {
    /// Works until `stop`, then stops every task at a checkpoint (its visible state stays as it is), so
    /// that the next start goes on without a human.
    pub async fn serve(self: Arc<Self>, stop: CancellationToken) {
        let mut changes = self.store.changes();
        let mut runs: JoinSet<TaskId> = JoinSet::new();
        let mut moves: JoinSet<String> = JoinSet::new();
        loop {
            changes.mark_unchanged();
            if let Err(failure) = catch_panic(self.step(&mut runs, &mut moves)).await.flatten() {
                tracing::error!("dispatcher step failed: {failure}");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                _ = changes.changed() => {}
                () = self.ended.notified() => {}
                Some(_) = runs.join_next(), if !runs.is_empty() => {}
                Some(_) = moves.join_next(), if !moves.is_empty() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
        for running in self.running().values() {
            running.stop.cancel();
        }
        for moving in self.migrations().values() {
            moving.stop.cancel();
        }
        let all = async {
            while runs.join_next().await.is_some() {}
            while moves.join_next().await.is_some() {}
        };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, all).await.is_err() {
            tracing::warn!("some tasks did not stop in time; no progress is lost");
        }
    }

    async fn step(self: &Arc<Self>, runs: &mut JoinSet<TaskId>, moves: &mut JoinSet<String>) -> Result<()> {
        let now = self.clock.now_ms();
        self.step_migrations(now, moves).await?;
        if self.schedules(now).await? {
            self.step_syncs(now).await?;
            self.step_groups(now).await?;
            self.step_webhooks(now).await?;
        }
        let running = self.running_tasks.load(std::sync::atomic::Ordering::Relaxed);
        let mut tx = self.store.read().await?;
        let mut tasks = tx.active_tasks(&self.owner, now).await?;
        // Twice: as many may be dispatched and not claimed yet.
        tasks.extend(tx.waiting_tasks(2 * u64::from(running), now - WAIT_MAX_MS).await?);
        let runs_any = !self.running().is_empty();
        let bandwidths = if runs_any { tx.task_bandwidths(&self.owner).await? } else { vec![] };
        drop(tx);
        let mut here: HashSet<TaskId> = self.running().keys().copied().collect();
        here.extend(self.dispatched().iter().copied());
        self.share_bandwidth(&tasks, &bandwidths, &here, now);
        for step in plan(&tasks, &here, now, running) {
            match step {
                Step::Run(_) if !self.takes_work() => {}
                Step::Run(id) => {
                    self.dispatched().insert(id);
                    runs.spawn(run(self.clone(), id));
                }
                Step::Stop(id) => self.signal_stop(id),
                Step::MarkPaused(id) => {
                    let mut tx = self.store.write().await?;
                    if unless_deleted(tx.apply(id, Event::Drained, now).await)?.is_some() {
                        tx.commit().await?;
                    }
                }
                Step::Expire(id) => {
                    let late = Error::new(Kind::Timeout, "wait", "the task was not scheduled within 30 days");
                    let mut tx = self.store.write().await?;
                    if unless_deleted(tx.expire(id, &late, now).await)? == Some(true) {
                        tx.commit().await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether this process is the one that moves sync tasks, groups and webhooks on. An embedded database has one process.
    async fn schedules(&self, now: i64) -> Result<bool> {
        if !self.store.is_shared() {
            return Ok(true);
        }
        if self.draining.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(false);
        }
        let mut tx = self.store.write().await?;
        let has = tx.take_duty("scheduler", &self.owner, now).await?;
        tx.commit().await?;
        Ok(has)
    }

    /// Puts the bandwidth limits of this minute in force. The limit of a group is shared by its members that run.
    fn share_bandwidth(
        &self,
        tasks: &[OpenTask],
        bandwidths: &[(TaskId, TaskBandwidth)],
        here: &HashSet<TaskId>,
        now: i64,
    ) {
        let mut sharing: HashMap<&str, u64> = HashMap::new();
        let mut group_of: HashMap<TaskId, &str> = HashMap::new();
        for task in tasks {
            let runs = task.state.observed == Observed::Running || here.contains(&task.id);
            if let (true, Parent::Group(group)) = (runs, &task.parent) {
                *sharing.entry(group).or_default() += 1;
                group_of.insert(task.id, group);
            }
        }
        for (id, bandwidth) in bandwidths {
            let sharing = group_of.get(id).and_then(|group| sharing.get(group)).copied().unwrap_or(1);
            self.set_bandwidth(*id, bandwidth, now, sharing);
        }
    }

    /// Puts the bandwidth limit of this minute in force.
    pub(crate) fn set_bandwidth(&self, id: TaskId, limits: &TaskBandwidth, now: i64, sharing: u64) {
        if let Some(progress) = self.progress(id) {
            let minute = (now / 60_000 + i64::from(self.zone_minutes)).rem_euclid(1440);
            let minute = u16::try_from(minute).unwrap_or(0);
            let rate = model::policy::limit_at(&limits.windows, minute).unwrap_or(limits.bandwidth);
            progress.bandwidth.set_rate(if rate == 0 { 0 } else { (rate / sharing.max(1)).max(1) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_task_is_no_failure_of_the_dispatcher() {
        let gone: Result<()> = Err(Error::new(Kind::NotFound, "task", "task 1 does not exist"));
        assert_eq!(unless_deleted(gone).unwrap(), None);
        assert_eq!(unless_deleted(Ok(1)).unwrap(), Some(1));
        let broken: Result<()> = Err(Error::new(Kind::Internal, "store", "the database has failed"));
        assert!(unless_deleted(broken).is_err());
    }
}
