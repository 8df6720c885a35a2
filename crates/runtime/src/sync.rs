//! Works off the events of sync tasks: the keys that wait longest become a batch, which is a task of its own with
//! everything that tasks have. When it has ended its outcome is counted and its events are forgotten, in one
//! transaction; whoever is killed in between finds the batch as it is.
//!
//! Decision: ADR 0008, `docs/adr/0008-groups-and-sync-tasks-make-tasks.md`.

use model::error::{Kind, Result};
use model::parent::Parent;
use model::selection::Selection;
use model::spec::TaskSpec;
use model::task::{Priority, TaskId, Visible};
use store::{NewTask, StoreTx, SyncRow};

use crate::engine::Engine;
use crate::naming::free_name;

/// Keys of one batch.
const BATCH_KEYS: u64 = 500;
/// After a batch that failed as a whole, its events wait so long, milliseconds.
const RETRY_DELAY_MS: i64 = 15_000;

impl Engine {
    /// Looks after every sync task that has something to do.
    pub(crate) async fn step_syncs(&self, now: i64) -> Result<()> {
        let mut tx = self.store.read().await?;
        let (busy, orphans) = (tx.busy_syncs(now).await?, tx.orphan_batches().await?);
        drop(tx);
        for task in orphans.into_iter().filter(|t| !self.dispatched().contains(t)).collect::<Vec<_>>() {
            let mut tx = self.store.write().await?;
            // It may have been claimed since it was found.
            if !tx.orphan_batches().await?.contains(&task) {
                continue;
            }
            tx.delete_task(task).await?;
            tx.commit().await?;
            self.delete_files(task);
        }
        for sync in busy {
            match sync.batch_task {
                Some(task) => self.finish_batch(&sync, task, now).await?,
                None if sync.retry_at <= now => self.begin_batch(&sync, now).await?,
                None => {}
            }
        }
        Ok(())
    }

    async fn begin_batch(&self, seen: &SyncRow, now: i64) -> Result<()> {
        let mut tx = self.store.write().await?;
        let Some(sync) = as_it_is(&mut tx, seen).await? else { return Ok(()) };
        let (keys, upto) = tx.next_events(&sync.id, BATCH_KEYS).await?;
        let sweep = sync.running && sync.full_scan_at > 0 && sync.full_scan_at <= now;
        // Events first: a sweep finds their keys too, but later.
        let selection = match (keys.is_empty(), sweep) {
            (false, _) => Selection::Keys(keys),
            (true, true) => Selection::Prefix(vec![String::new()]),
            (true, false) => return Ok(()),
        };
        let sweep = matches!(selection, Selection::Prefix(_));
        let spec = TaskSpec { selection, ..sync.spec.clone() };
        let (id, name) = free_name(&mut tx, &spec, now, self.zone_minutes).await?;
        let task = NewTask {
            id,
            project: sync.project.clone(),
            name,
            spec,
            secrets: tx.sync_secrets(&sync.id).await?,
            priority: Priority::High,
            parent: Parent::Sync(sync.id.clone()),
            now,
        };
        tx.insert_task(task).await?;
        match sweep {
            true => tx.begin_full_scan(&sync.id, id).await?,
            false => tx.begin_batch(&sync.id, id, upto).await?,
        }
        tx.commit().await
    }

    /// Counts what a batch did, once it has ended.
    async fn finish_batch(&self, seen: &SyncRow, task: TaskId, now: i64) -> Result<()> {
        let mut tx = self.store.write().await?;
        let Some(sync) = as_it_is(&mut tx, seen).await? else { return Ok(()) };
        let every = i64::from(sync.spec.extensions.full_scan_interval_minutes) * 60_000;
        let Some(task) = tx.task(task).await? else {
            match sync.full_scan_running {
                true => tx.end_full_scan(&sync.id, now + RETRY_DELAY_MS).await?,
                false => tx.end_batch(&sync, false, now).await?,
            }
            return tx.commit().await;
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
                tx.count_sync(&sync.id, kind, now, n).await?;
            }
        }
        match sync.full_scan_running {
            true => tx.end_full_scan(&sync.id, now + if done { every } else { RETRY_DELAY_MS }).await?,
            false => tx.end_batch(&sync, done, if done { 0 } else { now + RETRY_DELAY_MS }).await?,
        }
        tx.delete_task(task.id).await?;
        tx.commit().await?;
        self.delete_files(task.id);
        Ok(())
    }
}

/// A sync task as it is in the unit that changes it; none when it is gone, or its batch is another by now.
async fn as_it_is(tx: &mut StoreTx, seen: &SyncRow) -> Result<Option<SyncRow>> {
    match tx.sync_of(&seen.project, &seen.id).await {
        Ok(now) => Ok((now.batch_task == seen.batch_task).then_some(now)),
        Err(failure) if failure.kind == Kind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::task::Event;

    use super::*;

    /// An engine whose ledger holds a sync task that sweeps, with one event.
    async fn engine(dir: &std::path::Path) -> Arc<Engine> {
        let engine = crate::test_support::engine(dir).await;
        let spec = r#"{"face":"v2","selection":{"kind":"prefix","entries":[""]},"source":{"region":"r"},"target":{"region":"r"}}"#;
        let mut spec: TaskSpec = serde_json::from_str(spec).unwrap();
        spec.extensions.full_scan_interval_minutes = 1;
        let mut tx = engine.store.write().await.unwrap();
        tx.insert_sync("s", "p", &spec, "{}", 1).await.unwrap();
        tx.put_events("s", &["k".to_owned()], 2).await.unwrap();
        tx.commit().await.unwrap();
        engine
    }

    async fn seen(engine: &Engine) -> SyncRow {
        engine.store.read().await.unwrap().sync_of("p", "s").await.unwrap()
    }

    #[tokio::test]
    async fn f20_sync_batch_is_created_and_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path()).await;
        let before = seen(&engine).await;
        engine.begin_batch(&before, 10).await.unwrap();
        engine.begin_batch(&before, 11).await.unwrap();
        assert_eq!(engine.store.read().await.unwrap().count_open_tasks().await.unwrap(), 1);
        let under_way = seen(&engine).await;
        let task = under_way.batch_task.unwrap();
        let mut tx = engine.store.write().await.unwrap();
        tx.must_apply(task, Event::Claim, 12).await.unwrap();
        tx.must_apply(task, Event::Finish { failed: 0 }, 13).await.unwrap();
        tx.commit().await.unwrap();
        engine.finish_batch(&under_way, task, 14).await.unwrap();
        // Another event has come, and its batch is not the one that was settled.
        let mut tx = engine.store.write().await.unwrap();
        tx.put_events("s", &["l".to_owned()], 15).await.unwrap();
        tx.commit().await.unwrap();
        engine.begin_batch(&seen(&engine).await, 16).await.unwrap();
        engine.finish_batch(&under_way, task, 17).await.unwrap();
        assert!(seen(&engine).await.batch_task.is_some(), "the batch under way is forgotten");
    }

    #[tokio::test]
    async fn f20_stopped_sync_task_starts_no_batch() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path()).await;
        let mut tx = engine.store.write().await.unwrap();
        let sync = tx.sync_of("p", "s").await.unwrap();
        tx.end_batch(&SyncRow { batch_upto: i64::MAX, ..sync }, true, 0).await.unwrap();
        tx.commit().await.unwrap();
        let before = seen(&engine).await;
        let mut tx = engine.store.write().await.unwrap();
        tx.stop_sync("s").await.unwrap();
        tx.commit().await.unwrap();
        engine.begin_batch(&before, 10).await.unwrap();
        assert_eq!(engine.store.read().await.unwrap().count_open_tasks().await.unwrap(), 0);
    }
}
