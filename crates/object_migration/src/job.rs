//! One task's work from the ledger's state to its end or its rest.

use std::path::PathBuf;
use std::sync::Arc;

use model::failure::{Failure, Kind, Result, Side};
use model::key::{Key, Order};
use model::member::Member;
use model::policy::{Check, MetadataRule, StoragePolicy};
use model::selection::Scope;
use model::spec::Face;
use pace::backoff::Backoff;
use pace::budget::Memory;
use pace::clock::SharedClock;
use pace::lanes::Lanes;
use storage::guard::Guarded;
use storage::{Fact, ObjectStore, Page, Position};
use store::{NewRange, Pass, RangeRow, Store, TaskRow, Unit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::compare::{Rule, ahead_ms};
use crate::feed::{Feed, one};
use crate::field::Field;
use crate::glob::Filter;
use crate::ledger::{Ledger, LedgerTask};
use crate::lister::{Listed, Lister, distrust};
use crate::outcome;
use crate::parts_limit::PartsLimit;
use crate::progress::Progress;
use crate::range::Ranges;
use crate::records;
use crate::restored::restored_feed;
use crate::survey::Survey;
use crate::transfer::Carrier;

/// Ranges of one task that are listed at once.
pub const RANGES: usize = 16;
/// Ranges that the survey lists at once.
const SURVEY_RANGES: usize = 4;
/// The survey begins only when copying has not finished listing by then.
const SURVEY_AFTER: std::time::Duration = std::time::Duration::from_millis(1500);
/// Walks of one run before a listing that keeps no promise ends the task: two weaker orders at each end, and tokens that were
/// refused.
pub(crate) const WALKS_MAX: i64 = 9;
/// Large objects under way at once.
const LARGE: usize = 8;
const LEASE_MS: i64 = 30_000;
/// Answers to writes that cannot be called back are waited for so long at a stop.
const ANSWERS: std::time::Duration = std::time::Duration::from_secs(5);

/// A task lent to this process, with everything that it needs.
#[derive(Debug)]
pub struct Job {
    /// The task as it stands in the store.
    pub task: TaskRow,
    /// The store.
    pub store: Store,
    /// Where from.
    pub source: Arc<Guarded>,
    /// Where to.
    pub target: Arc<Guarded>,
    /// Threads that move bytes.
    pub lanes: Arc<Lanes>,
    /// Memory of all engine buffers.
    pub memory: Arc<Memory>,
    /// Live numbers.
    pub progress: Arc<Progress>,
    /// Cancelled: come to rest.
    pub stop: CancellationToken,
    /// Who works.
    pub owner: String,
    /// Lease number.
    pub fence: i64,
    /// Directory for outcome files.
    pub data_dir: PathBuf,
    /// Difference of the source's clock to ours, milliseconds.
    pub source_skew_ms: i64,
    /// Difference of the target's clock to ours, milliseconds.
    pub target_skew_ms: i64,
    /// Only count.
    pub dry_run: bool,
    /// Retries of one transfer.
    pub backoff: Backoff,
}

/// How a job ended.
#[derive(Debug)]
pub enum Ended {
    /// Every key is settled.
    Finished {
        /// Objects that failed.
        failed: u64,
    },
    /// Everything else is settled; archived objects are waited for since this instant, milliseconds.
    Waits {
        /// When the first of them was asked for.
        since: i64,
    },
    /// Stopped on request; the ledger is exact.
    Rested,
    /// The task as a whole cannot go on.
    Broke(Failure),
}

impl Job {
    /// Works until the end, a stop, or a failure of the whole task.
    pub async fn run(self, clock: SharedClock) -> Ended {
        match self.work(&clock).await {
            Ok(ended) => ended,
            Err(failure) if failure.kind == Kind::Stopped => Ended::Rested,
            Err(failure) => Ended::Broke(failure),
        }
    }

    async fn work(&self, clock: &SharedClock) -> Result<Ended> {
        let task = &self.task;
        let mut unit = self.store.read().await?;
        let mut rows = unit.ranges(task.id, Pass::Copy).await?;
        let survey_rows = unit.ranges(task.id, Pass::Survey).await?;
        let uploads = unit.uploads(task.id).await?;
        drop(unit);
        let resumed = !rows.is_empty();
        self.note_listing().await?;
        self.check_beyond().await?;
        if !resumed {
            rows = self.begin(Pass::Copy, 1).await?;
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
        let carrier = Arc::new(Carrier {
            spec: task.spec.clone(),
            source: self.source.clone(),
            target: self.target.clone(),
            memory: self.memory.clone(),
            lanes: self.lanes.clone(),
            progress: self.progress.clone(),
            backoff: self.backoff,
            ledger: ledger.clone(),
            stop: halt.clone(),
            server_side: self.server_side(),
            large: tokio::sync::Semaphore::new(LARGE),
            large_max: LARGE,
            parts: PartsLimit::new(tokio::time::Instant::now()),
            sent: TaskTracker::new(),
            crc_proofs: Arc::default(),
        });
        let counting = self.stop.child_token();
        let survey = self.survey(&ledger, survey_rows, counting.clone());
        let copying = self.copy(carrier.clone(), rows, resumed, clock);
        let walked = {
            let (mut survey, mut copying) = (std::pin::pin!(survey), std::pin::pin!(copying));
            let mut surveying = !self.dry_run;
            loop {
                tokio::select! {
                    done = &mut copying => break done,
                    counted = &mut survey, if surveying => {
                        surveying = false;
                        if let Err(failure) = counted {
                            tracing::info!(task = task.id, "counting the source was abandoned: {failure}");
                        }
                    }
                }
            }
        };
        counting.cancel();
        let walked = match walked {
            Ok(()) if !self.stop.is_cancelled() => self.propagate(&ledger, clock).await,
            walked => walked,
        };
        if self.stop.is_cancelled() {
            // What cannot be called back arrives before the task says that it rests.
            carrier.sent.close();
            let _ = tokio::time::timeout(ANSWERS, carrier.sent.wait()).await;
        }
        let flushed = ledger.flush().await;
        let finished = walked.is_ok() && !self.stop.is_cancelled();
        if finished {
            self.abort_leftovers(&carrier).await;
        }
        drop((ledger, carrier));
        let written = writer.await;
        // The ledger's own trouble explains all others.
        match written {
            Ok(result) => result?,
            Err(e) => return Err(Failure::new(Kind::Internal, "ledger", e.to_string())),
        }
        walked?;
        flushed?;
        if !finished {
            return Ok(Ended::Rested);
        }
        self.finish(clock).await
    }

    /// A unit that counts only while this worker holds the task.
    pub(crate) async fn write(&self) -> Result<Unit> {
        let mut unit = self.store.write().await?;
        unit.hold_task(self.task.id, self.fence).await?;
        Ok(unit)
    }

    /// A target that may not be listed is said: each key is asked for.
    async fn note_listing(&self) -> Result<()> {
        if self.target.capability().list_allowed {
            return Ok(());
        }
        let note = format!(
            "the credentials do not permit listing {}: each key is requested separately",
            self.target.place()
        );
        let mut unit = self.write().await?;
        unit.set_note(self.task.id, &note).await?;
        unit.save().await
    }

    /// What the stores at the two ends cannot do is refused, not left out in silence.
    async fn check_beyond(&self) -> Result<()> {
        let beyond = &self.task.spec.beyond;
        let refused = |m: &str, side| Err(Failure::new(Kind::Invalid, "open", m).at(side));
        for (store, side) in [(&self.source, Side::Source), (&self.target, Side::Target)] {
            if beyond.acl && !store.capability().acl {
                return refused("this store has no per-object ACLs; hint: remove `acl` (--acl)", side);
            }
        }
        if !beyond.versions || beyond.dry_run {
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

    /// Deletions travel only behind a complete copy.
    async fn propagate(&self, ledger: &Ledger, clock: &SharedClock) -> Result<()> {
        let spec = &self.task.spec;
        if !spec.beyond.delete || spec.selection.names_keys() {
            return Ok(());
        }
        ledger.flush().await?;
        let mut unit = self.write().await?;
        let pruning = !unit.ranges(self.task.id, Pass::Prune).await?.is_empty();
        let failed = unit.task(self.task.id).await?.map_or(0, |t| t.counters.failed.objects);
        let note = match failed {
            _ if self.task.failed_only => {
                "nothing was deleted at the target: this run only retried failed objects; hint: start the whole task"
                    .to_owned()
            }
            1.. if !pruning => format!("nothing was deleted at the target: {failed} objects failed"),
            _ => {
                drop(unit);
                return self.prune(ledger, clock).await;
            }
        };
        unit.set_note(self.task.id, &note).await?;
        unit.save().await
    }

    fn server_side(&self) -> bool {
        let spec = &self.task.spec;
        let same = self.source.service().is_some() && self.source.service() == self.target.service();
        same && spec.metadata == MetadataRule::All
            && !spec.beyond.acl
            && !spec.beyond.versions
            && spec.storage == StoragePolicy::Standard
            && !spec.kms
            && self.target.capability().copy
    }

    /// First ranges of a pass: one for each scope of the selection, or one over the failed objects.
    pub(crate) async fn begin(&self, pass: Pass, first_id: i64) -> Result<Vec<RangeRow>> {
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
        let mut unit = self.write().await?;
        unit.insert_ranges(task.id, &new, &self.owner, 0, self.fence).await?;
        let rows = unit.ranges(task.id, pass).await?;
        unit.save().await?;
        Ok(rows)
    }

    async fn copy(
        &self,
        carrier: Arc<Carrier>,
        rows: Vec<RangeRow>,
        resumed: bool,
        clock: &SharedClock,
    ) -> Result<()> {
        let (mut rows, mut carrier) = (rows, carrier);
        let mut doubts_all = resumed && self.found_orders().await? != [None, None];
        self.look_at_target().await;
        for run in 1.. {
            let walked = self.walk(&carrier, rows, resumed, doubts_all, clock).await;
            match walked {
                Err(f) if f.kind == Kind::Disorder && run < WALKS_MAX && self.distrusts(&f) => {
                    self.begin_again(&carrier, &f).await?;
                    rows = self.begin(Pass::Copy, 1_000_000 * run).await?;
                    carrier = Arc::new(carrier.again(self.stop.child_token()));
                    doubts_all = true;
                }
                other => {
                    other?;
                    break;
                }
            }
        }
        self.copy_restored(&carrier, clock).await
    }

    /// What earlier runs found out about the order of listings, which the ends are told.
    async fn found_orders(&self) -> Result<[Option<Order>; 2]> {
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
    async fn look_at_target(&self) {
        let save = &self.task.spec.save_prefix;
        while self.target.capability().list_allowed && self.target.capability().list_order != Order::Unknown {
            let mut lister = Lister::new(self.target.clone(), save, Side::Target).sure();
            match lister.next().await {
                Err(f) if f.kind == Kind::Disorder && distrust(&*self.target, &f) => {}
                // Whatever else is wrong with it is met, and told, by the copy itself.
                _ => return,
            }
        }
    }

    /// A listing broke its promise. True when there is a weaker one to go by: another order, at last none; or, where
    /// there was none already, when a token did not lead on and the walk begins again.
    fn distrusts(&self, failure: &Failure) -> bool {
        let end = if failure.side == Side::Target { &self.target } else { &self.source };
        distrust(&**end, failure) || failure.side != Side::Target
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
    async fn begin_again(&self, carrier: &Arc<Carrier>, failure: &Failure) -> Result<()> {
        let orders = [self.source.capability().list_order, self.target.capability().list_order];
        let note = match orders.contains(&Order::Unknown) {
            true => format!("fell back to a serial listing with one request per key: {}", failure.message),
            false => format!("fell back to a listing in folder order: {}", failure.message),
        };
        tracing::warn!(task = self.task.id, "{note}");
        carrier.ledger.begin_again(note, orders).await?;
        self.progress.forget_settled();
        Ok(())
    }

    pub(crate) async fn walk(
        &self,
        carrier: &Arc<Carrier>,
        rows: Vec<RangeRow>,
        resumed: bool,
        doubts_all: bool,
        clock: &SharedClock,
    ) -> Result<()> {
        let spec = &self.task.spec;
        let field = Field::new(Pass::Copy, RANGES, self.source.clone());
        let ranges = Arc::new(Ranges {
            carrier: carrier.clone(),
            field: field.clone(),
            rule: Rule {
                overwrite: spec.overwrite,
                since_ms: spec.since_ms,
                own_since_ms: self.task.created_at + self.target_skew_ms,
                size_proves: matches!(spec.check, Check::Size | Check::None),
                mtime_kept: self.source.capability().mtime_kept && self.target.capability().mtime_kept,
                ahead_ms: self.ahead_ms(),
            },
            filter: Filter::new(&spec.include, &spec.exclude),
            clock: clock.clone(),
            fence: self.fence,
            resumed: resumed || doubts_all,
            doubts_all,
            record: spec.record_outcomes,
        });
        let idle = || carrier.idle();
        let failed_only = self.task.failed_only;
        let task = self.task.id;
        let store = self.store.clone();
        let now = clock.now_ms();
        field
            .walk(rows, &self.lanes, &carrier.ledger, &carrier.stop, idle, move |extent, row, page| {
                let ranges = ranges.clone();
                let store = store.clone();
                Box::pin(async move {
                    let source = ranges.carrier.source.clone();
                    let again = match row.id {
                        ..0 => Some(restored_feed(store, task, row.cursor.clone(), source, now)),
                        _ if failed_only => Some(failed_feed(store, task, row.cursor.clone(), source)),
                        _ => None,
                    };
                    ranges.run(extent, row, page, again).await
                })
            })
            .await
    }

    /// Counts what there is, unless copying is done with listing before it begins.
    async fn survey(&self, ledger: &Ledger, rows: Vec<RangeRow>, stop: CancellationToken) -> Result<()> {
        if self.task.scan_over || self.task.failed_only {
            return Ok(());
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(SURVEY_AFTER) => {}
        }
        let rows = if rows.is_empty() { self.begin(Pass::Survey, 1_000_000_000).await? } else { rows };
        let field = Field::new(Pass::Survey, SURVEY_RANGES, self.source.clone());
        let spec = &self.task.spec;
        let survey = Arc::new(Survey {
            field: field.clone(),
            source: self.source.clone(),
            ledger: ledger.clone(),
            progress: self.progress.clone(),
            filter: Filter::new(&spec.include, &spec.exclude),
            stop: stop.clone(),
            fence: self.fence,
        });
        field
            .walk(
                rows,
                &self.lanes,
                ledger,
                &stop,
                || true,
                move |extent, row, page| Box::pin(survey.clone().run(extent, row, page)),
            )
            .await?;
        if !stop.is_cancelled() {
            self.progress.survey_ended();
            let mut unit = self.write().await?;
            unit.set_scan_over(self.task.id).await?;
            unit.save().await?;
        }
        Ok(())
    }

    /// Uploads of objects that vanished from the source meanwhile leave nothing half done behind.
    async fn abort_leftovers(&self, carrier: &Carrier) {
        let open: Vec<Key> = {
            let open = carrier.ledger.uploads.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            open.keys().cloned().collect()
        };
        for key in open {
            carrier.abandon(&key).await;
        }
        if let Err(f) = carrier.ledger.flush().await {
            tracing::warn!("{f}");
        }
    }

    /// What the source holds and no object can be made of is said, not dropped in silence.
    async fn tell_ignored(&self) -> Result<()> {
        let ignored = self.source.ignored();
        if ignored.is_empty() {
            return Ok(());
        }
        let some = ignored.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        let note = format!("{} source entries are not regular files and were skipped: {some}", ignored.len());
        let mut unit = self.write().await?;
        unit.set_note(self.task.id, &note).await?;
        unit.save().await
    }

    async fn finish(&self, clock: &SharedClock) -> Result<Ended> {
        let task = &self.task;
        let mut unit = self.write().await?;
        if task.failed_only {
            unit.drop_failures_before(task.id, task.started_at.unwrap_or(0)).await?;
        }
        unit.set_scan_over(task.id).await?;
        let now = unit.task(task.id).await?;
        let waits = unit.waits_since(task.id).await?;
        unit.save().await?;
        if let Some(since) = waits {
            return Ok(Ended::Waits { since });
        }
        let (failed, found, outcome_len) = now
            .map_or((0, 1, 0), |t| (t.counters.failed.objects, t.counters.settled().objects, t.outcome_len));
        let whole = task.spec.selection.entries().iter().any(String::is_empty);
        let alone = matches!(task.member, Member::Nobody) && task.spec.face != Face::Cli;
        // An empty bucket is complete; a prefix or key that selects nothing is a mistake (OMS §4.1).
        if found == 0 && !whole && alone && !task.failed_only && !task.spec.selection.names_keys() {
            let m = "the selection does not match any object of the source";
            return Err(Failure::new(Kind::NotFound, "select", m));
        }
        let spec = &task.spec;
        self.tell_ignored().await?;
        // A foreground copy keeps its outcome file here, and leaves none at the target.
        let writes = spec.face != Face::Cli && !spec.beyond.dry_run;
        if writes && (spec.record_outcomes || spec.record_failures) {
            let plan = records::Plan {
                task: task.id,
                name: task.name.clone(),
                member: task.member.clone(),
                outcome: outcome::path_in(&self.data_dir, task.id),
                outcome_len,
                outcomes: spec.record_outcomes,
                failures: spec.record_failures,
                reports: spec.beyond.reports.clone(),
                failed,
                now: clock.now_ms(),
            };
            let target: storage::SharedStore = self.target.clone();
            let written = tokio::select! {
                records = records::write(&plan, &self.store, &target) => records,
                () = self.stop.cancelled() => return Ok(Ended::Rested),
            };
            let json = serde_json::to_value(&written)
                .map_err(|e| Failure::new(Kind::Internal, "records", e.to_string()))?;
            let mut unit = self.write().await?;
            unit.set_records(task.id, &json).await?;
            unit.save().await?;
        }
        Ok(Ended::Finished { failed })
    }
}

/// The failed objects of an earlier run, as pages of entries; those that are gone are left out.
fn failed_feed(store: Store, task: i64, after: Key, source: Arc<Guarded>) -> Feed {
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    let work = tokio::spawn(async move {
        let mut after = after;
        loop {
            let rows = async { store.read().await?.failures(task, &after, 200).await };
            let rows = match rows.await {
                Ok(rows) => rows,
                Err(f) => {
                    let _ = tx.send(Err(f)).await;
                    return;
                }
            };
            let more = rows.len() == 200;
            let mut page = Page::default();
            for row in rows {
                after = row.key.clone();
                match one(&*source, row.key).await {
                    Ok(found) => page.entries.extend(found.entries),
                    Err(f) => {
                        let _ = tx.send(Err(f.at(Side::Source))).await;
                        return;
                    }
                }
            }
            page.next = more.then(|| Position::After(after.clone()));
            if tx.send(Ok(Listed { page, from: Position::Start })).await.is_err() || !more {
                return;
            }
        }
    });
    Feed::of(rx, work.abort_handle())
}
