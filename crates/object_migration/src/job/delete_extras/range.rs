//! The deletion of extra objects within one range of keys.

use std::collections::HashSet;
use std::sync::Arc;

use flow_control::clock::SharedClock;
use model::error::{Error, Policy, Result, Side};
use model::key::{Key, Order};
use model::selection::Scope;
use store::{Checkpoint, FailedObject, RangeRow};

use super::{BATCH_KEYS, ExtraDeletion, ExtraObject, MAX_HELD_REFUSALS, stopped};
use crate::job::Job;
use crate::ledger::outcome::{self, Outcome};
use crate::ledger::{Ledger, Report};
use crate::listing::feed::Feed;
use crate::listing::lister::Lister;

/// Failures that are read at once.
const FAILURES_PAGE: u64 = 1000;

/// A range of the target while it is pruned.
pub(super) struct DeletionRange<'a> {
    pub(super) job: &'a Job,
    pub(super) ledger: &'a Ledger,
    pub(super) clock: &'a SharedClock,
    pub(super) row: RangeRow,
    pub(super) lines: String,
    pub(super) failed: Vec<FailedObject>,
    /// Removals that were refused since the place where a walk would begin again after an interruption: the current page,
    /// or the first key where no order tells the place. They are counted when that place moves, else each walk would
    /// count them.
    pub(super) held_refusals: Vec<(ExtraObject, Error)>,
}

impl DeletionRange<'_> {
    fn record_outcome(&mut self, one: &ExtraObject, outcome: &Outcome) {
        outcome.count(&mut self.row.counters, one.size);
        self.job.progress.record(|c| outcome.count(c, one.size));
        if self.job.task.spec.record_outcomes {
            outcome::append_line(&mut self.lines, outcome, &one.key, one.size, 0);
        }
        if let Outcome::Failed(failure) = outcome {
            let (key, failure) = (one.key.clone(), failure.clone());
            self.failed.push(FailedObject { key, size: one.size, failure, at: self.clock.now_ms() });
        }
    }

    fn count_refusals(&mut self) {
        for (one, failure) in std::mem::take(&mut self.held_refusals) {
            self.record_outcome(&one, &Outcome::Failed(failure));
        }
    }

    /// Keys that are named as failed in this run.
    async fn failed_keys(&self) -> Result<HashSet<Key>> {
        let began = self.job.task.run_began_at;
        let mut keys = HashSet::new();
        let mut after = Key::default();
        let mut tx = self.job.store.read().await?;
        loop {
            let page = tx.failures(self.job.task.id, &after, FAILURES_PAGE).await?;
            let Some(last) = page.last() else { return Ok(keys) };
            after = last.key.clone();
            keys.extend(page.into_iter().filter(|f| f.at >= began).map(|f| f.key));
        }
    }

    pub(super) async fn report(&mut self, ahead: Vec<Key>, done: bool) -> Result<()> {
        let checkpoint = Checkpoint {
            id: self.row.id,
            fence: self.job.fence,
            cursor: self.row.cursor.clone(),
            ahead,
            done,
            upto: self.row.upto.clone(),
            counters: self.row.counters,
        };
        let (lines, failed) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.failed));
        self.ledger.report(Report { lines, failed, ..Report::only(checkpoint) }).await
    }

    /// Walks the range to its end, or until stopped.
    pub(super) async fn run(mut self, deletion: &Arc<ExtraDeletion>, remove: bool) -> Result<()> {
        let save = &deletion.save_prefix;
        for one in deletion.deleted_before(&self.row.ahead).await? {
            self.record_outcome(&one, &Outcome::Deleted);
        }
        self.report(vec![], false).await?;
        let prefix = format!("{save}{}", self.row.scope.prefix());
        let after = if self.row.cursor.is_empty() { Key::default() } else { self.row.cursor.under(save) };
        let unordered = deletion.target.capability().list_order == Order::Unknown;
        if unordered && !remove {
            // What would be deleted is found again from the first key on.
            let before = std::mem::take(&mut self.row.counters).skipped;
            self.job.progress.record(|c| {
                c.skipped.objects = c.skipped.objects.saturating_sub(before.objects);
                c.skipped.bytes = c.skipped.bytes.saturating_sub(before.bytes);
            });
        }
        let mut pages = match (&self.row.scope, after.is_empty()) {
            // Its order does not matter: the walk begins again where no order tells where it was.
            (Scope::Prefix(_), _) if unordered => {
                Feed::of_listing(Lister::unordered(deletion.target.clone(), &prefix, Side::Target))
            }
            (scope, _) => Feed::of_scope(deletion.target.clone(), scope, &prefix, after, Side::Target),
        };
        // An ordered walk before this one may have counted refusals, whose keys are found again.
        let counted = if unordered { self.failed_keys().await? } else { HashSet::new() };
        loop {
            let page = tokio::select! {
                page = pages.next() => page,
                () = self.job.stop.cancelled() => return Err(stopped()),
            };
            let Some(page) = page else {
                self.count_refusals();
                return self.report(vec![], true).await;
            };
            let entries = page?.page.entries;
            let last = entries.last().map(|e| Key::new(&e.key.as_bytes()[save.len()..]));
            let mut found = deletion.extras_of_page(entries).await?;
            found.retain(|one| !counted.contains(&one.key));
            if remove {
                for batch in found.chunks(BATCH_KEYS) {
                    let batch = deletion.still_extra(batch.to_vec()).await?;
                    self.delete(deletion, &batch).await?;
                }
            } else {
                found.iter().for_each(|one| self.record_outcome(one, &Outcome::Skipped("would be deleted")));
            }
            if !unordered {
                self.count_refusals();
            }
            self.row.cursor = last.unwrap_or(self.row.cursor.clone());
            self.report(vec![], false).await?;
        }
    }

    pub(super) async fn delete(
        &mut self,
        deletion: &Arc<ExtraDeletion>,
        found: &[ExtraObject],
    ) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        self.report(found.iter().map(ExtraObject::to_ledger).collect(), false).await?;
        self.ledger.flush().await?;
        let mut broke = None;
        let removed = deletion.delete(found, &self.job.stop).await?;
        if removed.len() < found.len() {
            broke = Some(stopped());
        }
        let mut refused = Vec::new();
        for (one, went) in removed {
            match went {
                Ok(()) => self.record_outcome(&one, &Outcome::Deleted),
                Err(f) if matches!(f.kind.policy(), Policy::StopTask) => broke = Some(f),
                Err(f) => refused.push((one, f)),
            }
        }
        if let Some(failure) = broke {
            // The page is checked again by the run that resumes.
            self.report(vec![], false).await?;
            return Err(failure);
        }
        for (one, failure) in refused {
            // So many refusals are the task's failure.
            if self.held_refusals.len() >= MAX_HELD_REFUSALS {
                return Err(failure);
            }
            self.held_refusals.push((one, failure));
        }
        Ok(())
    }
}
