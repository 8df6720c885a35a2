//! Works off the events of sync tasks: the keys that wait longest become a batch, which is a task of its own with
//! everything that tasks have. When it has ended its outcome is counted and its events are forgotten, in one
//! transaction; whoever is killed in between finds the batch as it is.

use model::failure::Result;
use model::member::Member;
use model::selection::Selection;
use model::spec::TaskSpec;
use model::task::{Priority, Visible};
use store::{NewTask, SyncRow, TaskRow};

use crate::engine::Engine;
use crate::naming::name_task;

/// Keys of one batch.
const BATCH: u64 = 500;
/// After a batch that failed as a whole, its events wait so long, milliseconds.
const AGAIN_MS: i64 = 15_000;

impl Engine {
    /// Looks after every sync task that has something to do.
    pub(crate) async fn step_syncs(&self, now: i64) -> Result<()> {
        let mut unit = self.store.read().await?;
        let (busy, orphans) = (unit.busy_syncs(now).await?, unit.orphan_batches().await?);
        drop(unit);
        for task in orphans.into_iter().filter(|t| !self.lent().contains(t)).collect::<Vec<_>>() {
            let mut unit = self.store.write().await?;
            unit.delete_task(task).await?;
            unit.save().await?;
            self.forget(task);
        }
        for sync in busy {
            match sync.batch_task {
                Some(task) => {
                    let task = self.store.read().await?.task(task).await?;
                    self.settle_batch(&sync, task, now).await?;
                }
                None if sync.retry_at <= now => self.begin_batch(&sync, now).await?,
                None => {}
            }
        }
        Ok(())
    }

    async fn begin_batch(&self, sync: &SyncRow, now: i64) -> Result<()> {
        let mut unit = self.store.write().await?;
        let (keys, upto) = unit.next_events(&sync.id, BATCH).await?;
        let sweep = sync.running && sync.sweep_at > 0 && sync.sweep_at <= now;
        // Events first: a sweep finds their keys too, but later.
        let selection = match (keys.is_empty(), sweep) {
            (false, _) => Selection::Keys(keys),
            (true, true) => Selection::Prefix(vec![String::new()]),
            (true, false) => return Ok(()),
        };
        let sweep = matches!(selection, Selection::Prefix(_));
        let spec = TaskSpec { selection, ..sync.spec.clone() };
        let (id, name) = name_task(&spec, now, self.zone_minutes)?;
        let task = NewTask {
            id,
            project: sync.project.clone(),
            name,
            spec,
            secrets: unit.sync_secrets(&sync.id).await?,
            priority: Priority::High,
            member: Member::Sync(sync.id.clone()),
            now,
        };
        unit.insert_task(task).await?;
        match sweep {
            true => unit.begin_sweep(&sync.id, id).await?,
            false => unit.begin_batch(&sync.id, id, upto).await?,
        }
        unit.save().await
    }

    /// Counts what a batch did, once it has ended.
    async fn settle_batch(&self, sync: &SyncRow, task: Option<TaskRow>, now: i64) -> Result<()> {
        let mut unit = self.store.write().await?;
        let every = i64::from(sync.spec.beyond.sweep_minutes) * 60_000;
        let Some(task) = task else {
            match sync.sweeping {
                true => unit.end_sweep(&sync.id, now + AGAIN_MS).await?,
                false => unit.end_batch(sync, false, now).await?,
            }
            return unit.save().await;
        };
        if !matches!(task.state.visible(), Visible::Succeeded | Visible::Failed) {
            return Ok(());
        }
        // A task-level error says nothing about the keys: they wait for another batch.
        let done = task.error.is_none();
        if done {
            let c = &task.counters;
            for (kind, n) in [
                ("SUCCESS", c.copied.objects + c.deleted.objects),
                ("FAILURE", c.failed.objects + c.gone.objects),
                ("SKIP", c.skipped.objects),
                ("SIZE", c.copied.bytes),
            ] {
                unit.count_sync(&sync.id, kind, now, n).await?;
            }
        }
        match sync.sweeping {
            true => unit.end_sweep(&sync.id, now + if done { every } else { AGAIN_MS }).await?,
            false => unit.end_batch(sync, done, if done { 0 } else { now + AGAIN_MS }).await?,
        }
        unit.delete_task(task.id).await?;
        unit.save().await?;
        self.forget(task.id);
        Ok(())
    }
}
