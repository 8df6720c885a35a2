//! Runs one task from the state of the ledger until it ends or is stopped.

pub mod delete_extras;
pub(crate) mod feeds;
mod finish;
pub(crate) mod precount;
pub mod restored;

use std::path::PathBuf;
use std::sync::Arc;

use flow_control::backoff::Backoff;
use flow_control::budget::Memory;
use flow_control::clock::SharedClock;
use flow_control::io_threads::IoThreads;
use model::error::{Error, Kind, Result, Side};
use model::key::{Key, Order};
use model::policy::{Check, MetadataRule, StoragePolicy};
use model::selection::Scope;
use storage::retrying::RetryingStore;
use storage::{Fact, ObjectStore};
use store::{LEASE_MS, NewRange, Pass, RangeRow, Store, StoreTx, TaskRow};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::compare::{OverwriteRule, ahead_ms};
use crate::glob::Filter;
use crate::job::feeds::{failed_feed, restored_feed};
use crate::job::precount::Precount;
use crate::ledger::outcome;
use crate::ledger::{Ledger, LedgerTask};
use crate::listing::lister::{Lister, fall_back_to_weaker_order};
use crate::progress::Progress;
use crate::ranges::runner::RangeContext;
use crate::ranges::scheduler::RangeScheduler;
use crate::transfer::ObjectCopier;
use crate::transfer::parts_limit::PartsLimit;

/// Ranges of one task that are listed at once.
pub const MAX_RANGES: usize = 16;
/// Ranges that the precount lists at once.
const PRECOUNT_RANGES: usize = 4;
/// The precount begins only when copying has not finished listing by then.
const PRECOUNT_DELAY: std::time::Duration = std::time::Duration::from_millis(1500);
/// Walks of one run before a listing that keeps no promise ends the task: two weaker orders at each end, and tokens that were
/// refused.
pub(crate) const MAX_LISTINGS: i64 = 9;
/// Large objects under way at once.
const MAX_MULTIPART_OBJECTS: usize = 8;
/// Answers to writes that cannot be called back are waited for so long at a stop.
const RESPONSE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// A task that runs in this process, with everything that it needs.
#[derive(Debug)]
pub struct Job {
    /// The task as it stands in the store.
    pub task: TaskRow,
    /// The store.
    pub store: Store,
    /// Where from.
    pub source: Arc<RetryingStore>,
    /// Where to.
    pub target: Arc<RetryingStore>,
    /// Threads that move bytes.
    pub io_threads: Arc<IoThreads>,
    /// Memory of all engine buffers.
    pub memory: Arc<Memory>,
    /// Live numbers.
    pub progress: Arc<Progress>,
    /// Cancelled: the job must stop.
    pub stop: CancellationToken,
    /// Who works.
    pub owner: String,
    /// Lease number.
    pub fence: i64,
    /// Directory for outcome files.
    pub data_dir: PathBuf,
    /// Difference of the source's clock to that of this process, milliseconds.
    pub source_skew_ms: i64,
    /// Difference of the target's clock to that of this process, milliseconds.
    pub target_skew_ms: i64,
    /// Only count.
    pub dry_run: bool,
    /// Retries of one transfer.
    pub backoff: Backoff,
}

/// How a job ended.
#[derive(Debug)]
pub enum JobEnd {
    /// Every key is settled.
    Finished {
        /// Objects that failed.
        failed: u64,
    },
    /// Everything else is settled; archived objects are waited for since this instant, milliseconds.
    WaitsForRestore {
        /// When the first of them was asked for.
        since: i64,
    },
    /// Stopped on request; the ledger is exact.
    Stopped,
    /// The task as a whole cannot go on.
    Failed(Error),
}

impl Job {
    /// Works until the end, a stop, or a failure of the whole task.
    pub async fn run(self, clock: SharedClock) -> JobEnd {
        match self.run_task(&clock).await {
            Ok(ended) => ended,
            Err(failure) if failure.kind == Kind::Stopped => JobEnd::Stopped,
            Err(failure) => JobEnd::Failed(failure),
        }
    }

    async fn run_task(&self, clock: &SharedClock) -> Result<JobEnd> {
        let task = &self.task;
        let mut tx = self.store.read().await?;
        let mut rows = tx.ranges(task.id, Pass::Copy).await?;
        let precount_rows = tx.ranges(task.id, Pass::Precount).await?;
        let uploads = tx.uploads(task.id).await?;
        drop(tx);
        let resumed = !rows.is_empty();
        self.note_unlistable_target().await?;
        self.check_extensions().await?;
        if !resumed {
            rows = self.begin_pass(Pass::Copy, 1).await?;
        }
        let ledger_task = LedgerTask {
            store: self.store.clone(),
            task: task.id,
            owner: self.owner.clone(),
            fence: self.fence,
            target: self.target.clone(),
            outcome: outcome::path_in(&self.data_dir, task.id),
            outcome_len: task.outcome_len,
            lease_until: clock.now_ms() + LEASE_MS,
        };
        let (ledger, writer) = Ledger::start(ledger_task, uploads);
        // Ends with the task's stop, and when one range's failure ends them all.
        let halt = self.stop.child_token();
        let copier = Arc::new(self.object_copier(&ledger, halt));
        let counting = self.stop.child_token();
        let precount = self.precount(&ledger, precount_rows, counting.clone());
        let copying = self.copy_all(copier.clone(), rows, resumed, clock);
        let walked = self.copy_while_counting(copying, precount).await;
        counting.cancel();
        let walked = match walked {
            Ok(()) if !self.stop.is_cancelled() => self.propagate_deletions(&ledger, clock).await,
            walked => walked,
        };
        if self.stop.is_cancelled() {
            // Requests that cannot be cancelled end before the task is stored as paused.
            copier.uncancellable.close();
            let _ = tokio::time::timeout(RESPONSE_TIMEOUT, copier.uncancellable.wait()).await;
        }
        let flushed = ledger.flush().await;
        let finished = walked.is_ok() && !self.stop.is_cancelled();
        if finished {
            self.abort_leftovers(&copier).await;
        }
        drop((ledger, copier));
        let written = writer.await;
        // The ledger's own trouble explains all others.
        match written {
            Ok(result) => result?,
            Err(e) => return Err(Error::new(Kind::Internal, "ledger", e.to_string())),
        }
        walked?;
        flushed?;
        if !finished {
            return Ok(JobEnd::Stopped);
        }
        self.finish(clock).await
    }

    fn object_copier(&self, ledger: &Ledger, stop: CancellationToken) -> ObjectCopier {
        ObjectCopier {
            spec: self.task.spec.clone(),
            source: self.source.clone(),
            target: self.target.clone(),
            memory: self.memory.clone(),
            io_threads: self.io_threads.clone(),
            progress: self.progress.clone(),
            backoff: self.backoff,
            ledger: ledger.clone(),
            stop,
            server_side: self.server_side(),
            multipart: tokio::sync::Semaphore::new(MAX_MULTIPART_OBJECTS),
            multipart_max: MAX_MULTIPART_OBJECTS,
            parts: PartsLimit::new(tokio::time::Instant::now()),
            uncancellable: TaskTracker::new(),
            crc_proofs: Arc::default(),
        }
    }

    /// Waits until the copy ends; the concurrent precount may end before, fail, or be dropped with it.
    async fn copy_while_counting(
        &self,
        copying: impl Future<Output = Result<()>>,
        precount: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let (mut precount, mut copying) = (std::pin::pin!(precount), std::pin::pin!(copying));
        let mut precounting = !self.dry_run;
        loop {
            tokio::select! {
                done = &mut copying => return done,
                counted = &mut precount, if precounting => {
                    precounting = false;
                    if let Err(failure) = counted {
                        tracing::info!(task = self.task.id, "counting the source was abandoned: {failure}");
                    }
                }
            }
        }
    }

    /// A transaction that counts only while this worker holds the task.
    pub(crate) async fn begin_write(&self) -> Result<StoreTx> {
        let mut tx = self.store.write().await?;
        tx.hold_task(self.task.id, self.fence).await?;
        Ok(tx)
    }

    /// A target that may not be listed is said: each key is asked for.
    async fn note_unlistable_target(&self) -> Result<()> {
        if self.target.capability().list_allowed {
            return Ok(());
        }
        let note = format!(
            "the credentials do not permit listing {}: each key is requested separately",
            self.target.location()
        );
        let mut tx = self.begin_write().await?;
        tx.set_note(self.task.id, &note).await?;
        tx.commit().await
    }

    /// What the stores of source and target do not support is rejected, not skipped silently.
    async fn check_extensions(&self) -> Result<()> {
        let extensions = &self.task.spec.extensions;
        let refused = |m: &str, side| Err(Error::new(Kind::Invalid, "open", m).at(side));
        for (store, side) in [(&self.source, Side::Source), (&self.target, Side::Target)] {
            if extensions.acl && !store.capability().acl {
                return refused("this store has no per-object ACLs; hint: remove `acl` (--acl)", side);
            }
        }
        if !extensions.versions || extensions.dry_run {
            return Ok(());
        }
        if !self.target.capability().versions {
            return refused(
                "this kind of store does not support versions; hint: remove `versions` \
                 (--all-versions)",
                Side::Target,
            );
        }
        if !self.target.keeps_versions().await? {
            let m = "versioning is not enabled for the target bucket; hint: enable it first";
            return refused(m, Side::Target);
        }
        Ok(())
    }

    /// Deletions are propagated only after a complete copy.
    async fn propagate_deletions(&self, ledger: &Ledger, clock: &SharedClock) -> Result<()> {
        let spec = &self.task.spec;
        if !spec.extensions.delete || spec.selection.names_keys() {
            return Ok(());
        }
        ledger.flush().await?;
        let mut tx = self.begin_write().await?;
        let deletion = !tx.ranges(self.task.id, Pass::DeleteExtras).await?.is_empty();
        let failed = tx.task(self.task.id).await?.map_or(0, |t| t.counters.failed.objects);
        let note = match failed {
            _ if self.task.failed_only => {
                "nothing was deleted at the target: this run only retried failed objects; hint: start the whole task"
                    .to_owned()
            }
            1.. if !deletion => format!("nothing was deleted at the target: {failed} objects failed"),
            _ => {
                drop(tx);
                return self.delete_extras(ledger, clock).await;
            }
        };
        tx.set_note(self.task.id, &note).await?;
        tx.commit().await
    }

    fn server_side(&self) -> bool {
        let spec = &self.task.spec;
        let same = self.source.service().is_some() && self.source.service() == self.target.service();
        same && spec.metadata == MetadataRule::All
            && !spec.extensions.acl
            && !spec.extensions.versions
            && spec.storage == StoragePolicy::Standard
            && !spec.kms
            && self.target.capability().copy
    }

    /// First ranges of a pass: one for each scope of the selection, or one over the failed objects.
    pub(crate) async fn begin_pass(&self, pass: Pass, first_id: i64) -> Result<Vec<RangeRow>> {
        let task = &self.task;
        let scopes = if task.failed_only && pass == Pass::Copy {
            vec![Scope::Prefix(String::new())]
        } else {
            task.spec.selection.scopes()
        };
        let first_id = if task.failed_only && pass == Pass::Copy { 0 } else { first_id };
        let new: Vec<NewRange> = scopes
            .into_iter()
            .zip(first_id..)
            .map(|(scope, id)| NewRange { id, pass, scope, after: Key::default(), upto: None })
            .collect();
        let mut tx = self.begin_write().await?;
        tx.insert_ranges(task.id, &new, &self.owner, 0, self.fence).await?;
        let rows = tx.ranges(task.id, pass).await?;
        tx.commit().await?;
        Ok(rows)
    }

    async fn copy_all(
        &self,
        copier: Arc<ObjectCopier>,
        rows: Vec<RangeRow>,
        resumed: bool,
        clock: &SharedClock,
    ) -> Result<()> {
        let (mut rows, mut copier) = (rows, copier);
        let mut all_outcomes_unknown = resumed && self.recorded_list_orders().await? != [None, None];
        self.check_target_order().await;
        for run in 1.. {
            let walked = self.run_ranges(&copier, rows, resumed, all_outcomes_unknown, clock).await;
            match walked {
                Err(f) if f.kind == Kind::OutOfOrderListing && run < MAX_LISTINGS && self.falls_back(&f) => {
                    self.restart_copy(&copier, &f).await?;
                    rows = self.begin_pass(Pass::Copy, 1_000_000 * run).await?;
                    copier = Arc::new(copier.with_stop(self.stop.child_token()));
                    all_outcomes_unknown = true;
                }
                other => {
                    other?;
                    break;
                }
            }
        }
        self.copy_restored(&copier, clock).await
    }

    /// What earlier runs found out about the order of listings, which the ends are told.
    async fn recorded_list_orders(&self) -> Result<[Option<Order>; 2]> {
        let orders = self.store.read().await?.list_orders(self.task.id).await?;
        for (end, order) in [&self.source, &self.target].into_iter().zip(orders) {
            if let Some(order) = order {
                end.learn(Fact::ListOrder(order));
            }
        }
        Ok(orders)
    }

    /// Ranges begin anywhere in the target's listing, and what it does not show there is written: its order is looked at from its
    /// beginning first.
    async fn check_target_order(&self) {
        let save = &self.task.spec.save_prefix;
        while self.target.capability().list_allowed && self.target.capability().list_order != Order::Unknown {
            let mut lister = Lister::new(self.target.clone(), save, Side::Target).with_checked_order();
            match lister.next().await {
                Err(f)
                    if f.kind == Kind::OutOfOrderListing && fall_back_to_weaker_order(&*self.target, &f) => {}
                // Other errors occur, and are reported, during the copy.
                _ => return,
            }
        }
    }

    /// A listing broke its promise. True when there is a weaker one to go by: another order, at last none; or, where
    /// there was none already, when a token did not lead on and the walk begins again.
    fn falls_back(&self, failure: &Error) -> bool {
        let end = if failure.side == Side::Target { &self.target } else { &self.source };
        fall_back_to_weaker_order(&**end, failure) || failure.side != Side::Target
    }

    /// How far the clock that dates the target's objects is ahead of the source's. A target that keeps the times that it is given
    /// does not date them.
    fn ahead_ms(&self) -> i64 {
        match self.target.capability().mtime_kept {
            true => 0,
            false => ahead_ms(self.target_skew_ms, self.source_skew_ms),
        }
    }

    /// Begins the copy again from nothing, and says so.
    async fn restart_copy(&self, copier: &Arc<ObjectCopier>, failure: &Error) -> Result<()> {
        let orders = [self.source.capability().list_order, self.target.capability().list_order];
        let note = match orders.contains(&Order::Unknown) {
            true => format!("fell back to a serial listing with one request per key: {}", failure.message),
            false => format!("fell back to a listing in folder order: {}", failure.message),
        };
        tracing::warn!(task = self.task.id, "{note}");
        copier.ledger.restart_copy(note, orders).await?;
        self.progress.reset();
        Ok(())
    }

    pub(crate) async fn run_ranges(
        &self,
        copier: &Arc<ObjectCopier>,
        rows: Vec<RangeRow>,
        resumed: bool,
        all_outcomes_unknown: bool,
        clock: &SharedClock,
    ) -> Result<()> {
        let spec = &self.task.spec;
        let scheduler = RangeScheduler::new(Pass::Copy, MAX_RANGES, self.source.clone());
        let ranges = Arc::new(RangeContext {
            copier: copier.clone(),
            scheduler: scheduler.clone(),
            rule: OverwriteRule {
                overwrite: spec.overwrite,
                since_ms: spec.since_ms,
                own_since_ms: self.task.created_at + self.target_skew_ms,
                size_proves: matches!(spec.check, Check::Size | Check::None),
                mtime_kept: self.source.capability().mtime_kept && self.target.capability().mtime_kept,
                ahead_ms: self.ahead_ms(),
            },
            filter: Filter::new(&spec.include, &spec.exclude)?,
            clock: clock.clone(),
            fence: self.fence,
            resumed: resumed || all_outcomes_unknown,
            all_outcomes_unknown,
            record_outcomes: spec.record_outcomes,
        });
        let idle = || copier.has_capacity();
        let failed_only = self.task.failed_only;
        let task = self.task.id;
        let store = self.store.clone();
        let now = clock.now_ms();
        scheduler
            .run(rows, &self.io_threads, &copier.ledger, &copier.stop, idle, move |range, row, page| {
                let ranges = ranges.clone();
                let store = store.clone();
                Box::pin(async move {
                    let source = ranges.copier.source.clone();
                    let again = match row.id {
                        ..0 => Some(restored_feed(store, task, row.cursor.clone(), source, now)),
                        _ if failed_only => Some(failed_feed(store, task, row.cursor.clone(), source)),
                        _ => None,
                    };
                    ranges.run(range, row, page, again).await
                })
            })
            .await
    }

    /// Counts what there is, unless copying is done with listing before it begins.
    async fn precount(&self, ledger: &Ledger, rows: Vec<RangeRow>, stop: CancellationToken) -> Result<()> {
        if self.task.precount_done || self.task.failed_only {
            return Ok(());
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(PRECOUNT_DELAY) => {}
        }
        let rows = if rows.is_empty() { self.begin_pass(Pass::Precount, 1_000_000_000).await? } else { rows };
        let scheduler = RangeScheduler::new(Pass::Precount, PRECOUNT_RANGES, self.source.clone());
        let spec = &self.task.spec;
        let precount = Arc::new(Precount {
            scheduler: scheduler.clone(),
            source: self.source.clone(),
            ledger: ledger.clone(),
            progress: self.progress.clone(),
            filter: Filter::new(&spec.include, &spec.exclude)?,
            stop: stop.clone(),
            fence: self.fence,
        });
        scheduler
            .run(
                rows,
                &self.io_threads,
                ledger,
                &stop,
                || true,
                move |range, row, page| Box::pin(precount.clone().run(range, row, page)),
            )
            .await?;
        if !stop.is_cancelled() {
            self.progress.precount_ended();
            let mut tx = self.begin_write().await?;
            tx.set_precount_done(self.task.id).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}
