//! The runner of one range of the copy pass: lists, compares, dispatches, settles, reports.

mod decide;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use flow_control::clock::SharedClock;
use model::count::Counters;
use model::error::{Error, Kind, Result, Side};
use model::key::{Key, Order};
use model::selection::Scope;
use storage::{Entry, ObjectStore, Page, Position};
use store::{Checkpoint, FailedObject, RangeRow, Restore};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::compare::{Action, EntrySource, OverwriteRule};
use crate::glob::Filter;
use crate::ledger::Report;
use crate::ledger::outcome::{self, Outcome};
use crate::listing::feed::{Feed, TargetEntry, TargetLookup};
use crate::listing::lister::{ListedPage, Lister};
use crate::ranges::scheduler::{ActiveRange, MissingEnd, OpenListing, RangeScheduler};
use crate::ranges::window::{Window, position_of};
use crate::transfer::plan::{Plan, plan};
use crate::transfer::{ObjectCopier, Permits, TransferEnd};
use decide::Need;

/// How long transfers in flight may go on after a stop.
pub(crate) const STOP_GRACE: Duration = Duration::from_millis(300);

/// What all ranges of a job share.
pub(crate) struct RangeContext {
    pub(crate) copier: Arc<ObjectCopier>,
    pub(crate) scheduler: Arc<RangeScheduler>,
    pub(crate) rule: OverwriteRule,
    pub(crate) filter: Filter,
    pub(crate) clock: SharedClock,
    pub(crate) fence: i64,
    /// The task went on after an interruption: some keys' outcome may be unknown.
    pub(crate) resumed: bool,
    /// The ledger began again: whatever stands at the target may be this task's own.
    pub(crate) all_outcomes_unknown: bool,
    pub(crate) record_outcomes: bool,
}

struct RangeRunner {
    shared: Arc<RangeContext>,
    row: RangeRow,
    window: Window,
    pending: VecDeque<Entry>,
    counters: Counters,
    lines: String,
    failed: Vec<FailedObject>,
    waiting: Vec<Restore>,
    restored: Vec<Key>,
    changed: bool,
    in_flight: JoinSet<(u64, Entry, TransferEnd)>,
    interrupted: bool,
    /// What stands at the target is asked for key by key.
    needs_head: bool,
    /// The first pending key is decided about and waits for permits.
    ready: Option<Ready>,
}

/// A key that is to be copied, or asked about first.
#[derive(Clone, Copy)]
struct Ready {
    needs_head: bool,
}

impl RangeContext {
    /// The entries of a range behind its cursor, and the page that is in hand already.
    fn feed_of_range(
        &self,
        range: &Arc<ActiveRange>,
        cursor: &Key,
        unordered: bool,
        opened: Option<OpenListing>,
        failed_only: Option<Feed>,
    ) -> Result<(Feed, Option<Page>)> {
        let prefix = range.scope.prefix().to_owned();
        let source = self.copier.source.clone();
        let order = source.capability().list_order;
        let is_last = {
            let range = range.clone();
            move |page: &Page| range.ends_within(page, order)
        };
        // A range that begins with a page in hand goes on behind that page.
        Ok(match (failed_only, opened) {
            (Some(feed), _) => (feed, None),
            (None, Some(OpenListing { page, .. })) if range.ends_within(&page, order) => {
                (Feed::empty(), Some(page))
            }
            (None, Some(OpenListing { page, lister })) => {
                (Feed::of_listing_until(lister, is_last), Some(page))
            }
            (None, None) if unordered => {
                let from = position_of(cursor).ok_or_else(|| {
                    let m = "the ledger has a key where an unordered listing needs a page token";
                    Error::new(Kind::OutOfOrderListing, "list", m).at(Side::Source)
                })?;
                let lister = Lister::at_position(source, &prefix, from, Side::Source);
                (Feed::of_listing(lister), None)
            }
            (None, None) if matches!(range.scope, Scope::Prefix(_)) => {
                let lister = Lister::after(source, &prefix, cursor.clone(), Side::Source);
                (Feed::of_listing_until(lister, is_last), None)
            }
            (None, None) => {
                (Feed::of_scope(source, &range.scope, &prefix, cursor.clone(), Side::Source), None)
            }
        })
    }

    /// Walks one range to its end, or until stopped; a stopped range leaves an exact checkpoint.
    pub(crate) async fn run(
        self: Arc<Self>,
        range: Arc<ActiveRange>,
        row: RangeRow,
        opened: Option<OpenListing>,
        failed_only: Option<Feed>,
    ) -> Result<()> {
        let copier = self.copier.clone();
        let listed = matches!(range.scope, Scope::Prefix(_)) && failed_only.is_none();
        let unordered = listed && copier.source.capability().list_order == Order::Unknown;
        let (cursor, ahead) = (row.cursor.clone(), row.ahead.clone());
        let (feed, first) = self.feed_of_range(&range, &cursor, unordered, opened, failed_only)?;
        let mut target = self.target_lookup(&range, &row);
        let interrupted = self.resumed && row.id > 0;
        let window = if unordered { Window::unordered(cursor, ahead) } else { Window::new(cursor, ahead) };
        let mut runner = RangeRunner {
            window,
            counters: row.counters,
            shared: self.clone(),
            row,
            pending: VecDeque::new(),
            lines: String::new(),
            failed: Vec::new(),
            waiting: Vec::new(),
            restored: Vec::new(),
            changed: false,
            in_flight: JoinSet::new(),
            interrupted,
            needs_head: matches!(target, TargetLookup::Head),
            ready: None,
        };
        match runner.run_until_done(&range, feed, first, &mut target).await {
            Ok(RunEnd::Complete) => runner.report_progress(Some(range.finish())).await,
            Ok(RunEnd::Stopped) => runner.shut_down().await,
            // Without the lease nothing may be written.
            Err(failure) if failure.kind == Kind::LeaseLost => Err(failure),
            Err(failure) => {
                runner.shut_down().await?;
                Err(failure)
            }
        }
    }
}

/// How a walk of a range ended.
enum RunEnd {
    Complete,
    Stopped,
}

impl RangeRunner {
    /// Walks the range until it is over, stopped or broken.
    async fn run_until_done(
        &mut self,
        range: &ActiveRange,
        mut feed: Feed,
        mut first: Option<Page>,
        target: &mut TargetLookup,
    ) -> Result<RunEnd> {
        let shared = self.shared.clone();
        let (copier, scheduler) = (&shared.copier, &shared.scheduler);
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut over, mut missing_end) = (false, None);
        let stop = copier.stop.clone();
        loop {
            let need = self.advance_pending(target)?;
            if over && self.pending.is_empty() && self.window.is_empty() {
                scheduler.verify_end(missing_end).await?;
                return Ok(RunEnd::Complete);
            }
            if first.is_some() && self.pending.is_empty() {
                let page = ListedPage { page: first.take().unwrap_or_default(), from: Position::Start };
                (over, missing_end) = self.take_page(scheduler, range, page);
                continue;
            }
            let wants_page = self.pending.is_empty() && !over;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(RunEnd::Stopped),
                Some(done) = self.in_flight.join_next(), if !self.in_flight.is_empty() => self.on_done(done)?,
                _ = tick.tick() => self.report_progress(None).await?,
                permits = copier.acquire_permits(), if need == Need::Permits => self.spawn_transfer(permits),
                more = target.next_page(), if need == Need::TargetPage => more?,
                page = feed.next(), if wants_page => match page {
                    None => (over, missing_end) = (true, scheduler.listing_ended(range)),
                    Some(page) => (over, missing_end) = self.take_page(scheduler, range, page?),
                },
            }
        }
    }

    /// Takes what of a page belongs to the range.
    fn take_page(
        &mut self,
        scheduler: &RangeScheduler,
        range: &ActiveRange,
        listed: ListedPage,
    ) -> (bool, Option<MissingEnd>) {
        self.window.begin_page(listed.from);
        let taken = scheduler.take_page(range, listed.page);
        self.pending.extend(taken.entries);
        (taken.finished, taken.missing_end)
    }

    /// Goes through pending keys as far as no waiting is needed.
    fn advance_pending(&mut self, target: &mut TargetLookup) -> Result<Need> {
        let shared = self.shared.clone();
        let copier = &shared.copier;
        while let Some(entry) = self.pending.front() {
            if !self.window.has_room() {
                return Ok(Need::Nothing);
            }
            if self.ready.is_some() {
                match copier.try_acquire_permits() {
                    Some(permits) => self.spawn_transfer(permits),
                    None => return Ok(Need::Permits),
                }
                continue;
            }
            if !shared.filter.keeps(entry.key.as_bytes()) {
                let entry = self.pending.pop_front().unwrap_or_else(|| unreachable!("just read"));
                if let Some(slot) = self.window.admit(entry.key) {
                    self.window.complete(slot);
                }
                continue;
            }
            let at_target = match target.lookup(&entry.key.under(&copier.spec.save_prefix)) {
                TargetEntry::NeedPage => return Ok(Need::TargetPage),
                // Compared in its own flight, so that many keys are asked for at once.
                TargetEntry::NeedHead => None,
                TargetEntry::Known(at_target) => Some(at_target),
            };
            let action =
                at_target.map_or(Action::Copy, |at_target| self.decide_listed(entry, at_target.as_ref()));
            match action {
                Action::Copy | Action::Head => {
                    self.ready = Some(Ready { needs_head: action == Action::Head })
                }
                action => self.finish_without_transfer(action),
            }
        }
        Ok(Need::Nothing)
    }

    fn decide_listed(&self, entry: &Entry, at_target: Option<&Entry>) -> Action {
        self.shared.decide_action(entry, at_target, self.outcome_may_be_unknown(), EntrySource::Listing)
    }

    /// True while an interruption may have swallowed a key's outcome.
    fn outcome_may_be_unknown(&self) -> bool {
        self.shared.all_outcomes_unknown || self.interrupted && self.window.may_hold_interrupted()
    }

    fn spawn_transfer(&mut self, permits: Permits) {
        let Some(ready) = self.ready.take() else { return };
        let Some(entry) = self.pending.pop_front() else { return };
        let Some(slot) = self.window.admit(entry.key.clone()) else { return };
        let shared = self.shared.clone();
        let ask = (ready.needs_head || self.needs_head).then(|| self.outcome_may_be_unknown());
        self.in_flight.spawn(async move {
            let (entry, end) = match ask {
                Some(interrupted) => shared.head_then_transfer(entry, permits, interrupted).await,
                None => {
                    let end = transfer(shared.copier.clone(), entry.clone(), permits).await;
                    (entry, end)
                }
            };
            (slot, entry, end)
        });
    }

    fn finish_without_transfer(&mut self, action: Action) {
        let Some(entry) = self.pending.pop_front() else { return };
        let Some(slot) = self.window.admit(entry.key.clone()) else { return };
        let outcome = match action {
            Action::Adopt(proof) => Outcome::Copied(proof),
            Action::Skip(why) => Outcome::Skipped(why),
            Action::Copy | Action::Head => return,
        };
        self.record_outcome(slot, &entry, &outcome, entry.size);
    }

    fn on_done(
        &mut self,
        done: std::result::Result<(u64, Entry, TransferEnd), tokio::task::JoinError>,
    ) -> Result<()> {
        let (slot, entry, end) = done.map_err(|e| {
            Error::new(
                Kind::Internal,
                "copy",
                format!(
                    "a transfer worker ended unexpectedly: \
                 {e}"
                ),
            )
        })?;
        match end {
            // Stopped in the middle: unsettled, and resumed from its finished parts.
            TransferEnd::TaskFailed(f) if f.kind == Kind::Stopped => Ok(()),
            TransferEnd::TaskFailed(failure) => Err(failure),
            TransferEnd::Outcome(outcome, size) => {
                self.record_outcome(slot, &entry, &outcome, size);
                Ok(())
            }
        }
    }

    fn record_outcome(&mut self, slot: u64, entry: &Entry, outcome: &Outcome, size: u64) {
        outcome.count(&mut self.counters, size);
        self.shared.copier.progress.record(|c| outcome.count(c, size));
        if self.shared.record_outcomes {
            outcome::append_line(&mut self.lines, outcome, &entry.key, size, entry.modified_ms);
        }
        if let Outcome::Failed(failure) = outcome {
            tracing::warn!(key = %entry.key, kind = ?failure.kind, "object failed: {failure}");
            let at = self.shared.clock.now_ms();
            self.failed.push(FailedObject { key: entry.key.clone(), size, failure: failure.clone(), at });
        }
        match outcome {
            Outcome::Waiting => {
                let asked_at = self.shared.clock.now_ms();
                self.waiting.push(Restore { key: entry.key.clone(), size, asked_at });
            }
            // A range of restored objects: this one is waited for no more.
            _ if self.row.id < 0 => self.restored.push(entry.key.clone()),
            _ => {}
        }
        if let Some(listed) = &self.shared.copier.progress.listed {
            listed.insert(&entry.key);
        }
        self.window.complete(slot);
        self.changed = true;
    }

    /// Tells the ledger what has been reached; `end` is the last key of a range that is done.
    async fn report_progress(&mut self, end: Option<Option<Key>>) -> Result<()> {
        let (done, upto) = (end.is_some(), end.flatten());
        if !self.changed && !done {
            return Ok(());
        }
        self.changed = false;
        let checkpoint = Checkpoint {
            id: self.row.id,
            fence: self.shared.fence,
            cursor: self.window.cursor().clone(),
            ahead: self.window.ahead(),
            done,
            upto,
            counters: self.counters,
        };
        let report = Report {
            checkpoint,
            lines: std::mem::take(&mut self.lines),
            failed: std::mem::take(&mut self.failed),
            waiting: std::mem::take(&mut self.waiting),
            restored: std::mem::take(&mut self.restored),
        };
        self.shared.copier.ledger.report(report).await
    }

    /// After a stop: what is in flight gets a moment, the rest is dropped, and the checkpoint is exact.
    async fn shut_down(mut self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + STOP_GRACE;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.in_flight.join_next()).await {
            if let Ok(done) = done {
                self.on_done(Ok(done))?;
            }
        }
        self.in_flight.shutdown().await;
        self.changed = true;
        self.report_progress(None).await
    }
}

async fn transfer(copier: Arc<ObjectCopier>, entry: Entry, permits: Permits) -> TransferEnd {
    if copier.spec.extensions.dry_run {
        return TransferEnd::Outcome(Outcome::Skipped("would be copied"), entry.size);
    }
    if copier.spec.extensions.versions {
        drop(permits);
        return copier.copy_versions(entry).await;
    }
    let planned = plan(entry.size, &entry.etag, None, copier.spec.part_size, copier.target.capability());
    let open = copier.ledger.upload_of(&entry.key).is_some();
    match planned {
        Plan::Single if !open => copier.copy_single(entry, permits).await,
        _ => {
            drop(permits);
            copier.copy_multipart(entry).await
        }
    }
}
