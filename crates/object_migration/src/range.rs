//! The runner of one range of the copy pass: lists, compares, dispatches, settles, reports.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use model::count::Counters;
use model::failure::{Failure, Kind, Result, Side};
use model::key::{Key, Order};
use model::policy::Overwrite;
use model::selection::Scope;
use pace::clock::SharedClock;
use storage::{Entry, ObjectStore, Page, Position};
use store::{Checkpoint, FailedObject, RangeRow, Restore};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::compare::{Action, Known, Rule};
use crate::feed::{Feed, Stands, TargetSide, entry_of};
use crate::field::{Extent, Field, Opened, Unmet};
use crate::glob::Filter;
use crate::ledger::Report;
use crate::lister::{Listed, Lister};
use crate::outcome::{self, Outcome};
use crate::plan::{Plan, plan};
use crate::transfer::{Carrier, End, Places};
use crate::window::{Window, position_of};

/// How long transfers in flight may go on after a stop.
pub(crate) const GRACE: Duration = Duration::from_millis(300);

/// What all ranges of a job share.
pub(crate) struct Ranges {
    pub(crate) carrier: Arc<Carrier>,
    pub(crate) field: Arc<Field>,
    pub(crate) rule: Rule,
    pub(crate) filter: Filter,
    pub(crate) clock: SharedClock,
    pub(crate) fence: i64,
    /// The task went on after an interruption: some keys' outcome may be unknown.
    pub(crate) resumed: bool,
    /// The ledger began again: whatever stands at the target may be this task's own.
    pub(crate) doubts_all: bool,
    pub(crate) record: bool,
}

struct Runner {
    shared: Arc<Ranges>,
    row: RangeRow,
    window: Window,
    pending: VecDeque<Entry>,
    counters: Counters,
    lines: String,
    failed: Vec<FailedObject>,
    waiting: Vec<Restore>,
    restored: Vec<Key>,
    changed: bool,
    flights: JoinSet<(u64, Entry, End)>,
    in_doubt: bool,
    /// What stands at the target is asked for key by key.
    asks: bool,
    /// The first pending key is decided about and waits for places.
    ready: Option<Ready>,
}

/// A key that is to be copied, or asked about first.
#[derive(Clone, Copy)]
struct Ready {
    asks: bool,
}

impl Ranges {
    /// Walks one range to its end, or until stopped; a stopped range leaves an exact checkpoint.
    pub(crate) async fn run(
        self: Arc<Self>,
        extent: Arc<Extent>,
        row: RangeRow,
        opened: Option<Opened>,
        failed_only: Option<Feed>,
    ) -> Result<()> {
        let carrier = self.carrier.clone();
        let prefix = extent.scope.prefix().to_owned();
        let listed = matches!(extent.scope, Scope::Prefix(_)) && failed_only.is_none();
        let unordered = listed && carrier.source.capability().list_order == Order::Unknown;
        let (cursor, ahead) = (row.cursor.clone(), row.ahead.clone());
        // A range that begins with a page in hand goes on behind that page.
        let (feed, first) = match (failed_only, opened) {
            (Some(feed), _) => (feed, None),
            (None, Some(Opened { page, lister })) => (Feed::list(lister), Some(page)),
            (None, None) if unordered => {
                let from = position_of(&cursor).ok_or_else(|| {
                    let m = "the ledger has a key where an unordered listing needs a page token";
                    Failure::new(Kind::Disorder, "list", m).at(Side::Source)
                })?;
                let lister = Lister::at(carrier.source.clone(), &prefix, from, Side::Source);
                (Feed::list(lister), None)
            }
            (None, None) => {
                let feed =
                    Feed::scope(carrier.source.clone(), &extent.scope, &prefix, cursor.clone(), Side::Source);
                (feed, None)
            }
        };
        let mut target = self.target_side(&extent, &row);
        let in_doubt = self.resumed && row.id > 0;
        let window = if unordered { Window::unordered(cursor, ahead) } else { Window::new(cursor, ahead) };
        let mut runner = Runner {
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
            flights: JoinSet::new(),
            in_doubt,
            asks: matches!(target, TargetSide::Head),
            ready: None,
        };
        match runner.drive(&extent, feed, first, &mut target).await {
            Ok(Drive::Over) => runner.report(Some(extent.end())).await,
            Ok(Drive::Stopped) => runner.come_to_rest().await,
            // Whoever lost the lease writes nothing any more.
            Err(failure) if failure.kind == Kind::LeaseLost => Err(failure),
            Err(failure) => {
                runner.come_to_rest().await?;
                Err(failure)
            }
        }
    }

    /// Decides about one key, whatever stands at the target.
    fn decide(&self, entry: &Entry, stands: Option<&Entry>, in_doubt: bool, known: Known) -> Action {
        if self.carrier.spec.beyond.versions {
            // What stands at the target is compared version by version, when the key's turn comes.
            return if self.rule.leaves_out(entry) {
                Action::Skip("not modified since")
            } else {
                Action::Copy
            };
        }
        let action = self.rule.decide(entry, stands, in_doubt, known);
        // An unfinished upload of ours goes on, whatever stands at the target.
        match action {
            Action::Skip(_) if self.carrier.ledger.upload_of(&entry.key).is_some() => Action::Copy,
            action => action,
        }
    }

    /// Asks about one key, at the source where its listing tells nothing, then at the target where the rule wants to
    /// know, and does what the rule says.
    async fn ask_then_fly(&self, entry: Entry, places: Places, in_doubt: bool) -> (Entry, End) {
        let carrier = &self.carrier;
        let entry = match carrier.source.capability().list_bare {
            false => entry,
            true => match carrier.source.head(&entry.key, None).await {
                Ok(meta) => entry_of(entry.key, meta),
                Err(f) if f.kind == Kind::NotFound => {
                    let end = carrier.gone(&entry.key, f, 0).await;
                    return (entry, end);
                }
                Err(f) => {
                    let end = carrier.ended(f, 0);
                    return (entry, end);
                }
            },
        };
        let (mut entry, mut stands) = (entry, None);
        if self.asks_target() {
            let to = entry.key.under(&carrier.spec.save_prefix);
            match carrier.target.head(&to, None).await {
                Ok(meta) => stands = Some((meta.sums, entry_of(to, meta))),
                // A key that the target cannot even be asked about fails when it is written, with that reason.
                Err(f) if matches!(f.kind, Kind::NotFound | Kind::KeyRefused | Kind::Invalid) => {}
                Err(f) => {
                    let end = carrier.ended(f, entry.size);
                    return (entry, end);
                }
            }
        }
        let there = stands.as_ref().map(|(_, there)| there);
        let mut action = self.decide(&entry, there, in_doubt, Known::Listed);
        let comparable = |t: &Entry| t.size == entry.size && entry.etag.proves(&t.etag).is_none();
        let crc_decides = self.asks_crc() && !self.rule.leaves_out(&entry) && there.is_some_and(comparable);
        if action == Action::Ask || crc_decides {
            // Only the object's own answer tells whether its ETag is a digest, and which checksums it has.
            match carrier.source.head(&entry.key, None).await {
                Ok(meta) => {
                    let equal = stands.as_ref().and_then(|(sums, _)| meta.sums.agree(sums));
                    let class = entry.class.take();
                    entry = Entry { class, ..entry_of(entry.key, meta) };
                    action = match equal {
                        Some(true) if !in_doubt => Action::Skip("same checksum"),
                        Some(false) if self.rule.overwrite != Overwrite::Never => Action::Copy,
                        _ => self.decide(&entry, there, in_doubt, Known::Asked),
                    };
                }
                Err(f) if f.kind == Kind::NotFound => {
                    let end = carrier.gone(&entry.key, f, entry.size).await;
                    return (entry, end);
                }
                Err(f) => {
                    let end = carrier.ended(f, entry.size);
                    return (entry, end);
                }
            }
        }
        let end = match action {
            Action::Copy | Action::Ask => fly(carrier.clone(), entry.clone(), places).await,
            Action::Skip(why) => End::Outcome(Outcome::Skipped(why), entry.size),
            Action::Adopt(proof) => End::Outcome(Outcome::Copied(proof), entry.size),
        };
        (entry, end)
    }

    /// True when what stands at the target matters.
    fn asks_target(&self) -> bool {
        !self.carrier.spec.beyond.versions && (self.rule.needs_target() || self.resumed)
    }

    /// True when the rule may compare the CRC-64 that both stores keep, which only a HEAD tells.
    fn asks_crc(&self) -> bool {
        let (source, target) = (self.carrier.source.capability(), self.carrier.target.capability());
        matches!(self.rule.overwrite, Overwrite::Checksum | Overwrite::Crc64) && source.ecma && target.ecma
    }

    fn target_side(&self, extent: &Extent, row: &RangeRow) -> TargetSide {
        let (source, target) = (self.carrier.source.capability(), self.carrier.target.capability());
        if source.list_bare || self.asks_crc() {
            return TargetSide::Head;
        }
        if !self.asks_target() {
            return TargetSide::Unasked;
        }
        let single = matches!(extent.scope, Scope::Key(_)) || row.id <= 0;
        if !target.list_allowed
            || source.list_order != target.list_order
            || source.list_order == Order::Unknown
            || single
        {
            return TargetSide::Head;
        }
        let save = &self.carrier.spec.save_prefix;
        let prefix = format!("{save}{}", extent.scope.prefix());
        let after = if row.cursor.is_empty() { row.cursor.clone() } else { row.cursor.under(save) };
        let feed =
            Feed::list(Lister::behind(self.carrier.target.clone(), &prefix, after, Side::Target).sure());
        TargetSide::Merge { feed, held: VecDeque::new(), over: false, order: target.list_order }
    }
}

/// What the runner waits for before the next key can go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// A free place at both ends.
    Places,
    /// The next page of the target's listing.
    TargetPage,
    /// Room in the window, or another page of the source.
    Nothing,
}

/// How a walk of a range ended.
enum Drive {
    Over,
    Stopped,
}

impl Runner {
    /// Walks the range until it is over, stopped or broken.
    async fn drive(
        &mut self,
        extent: &Extent,
        mut feed: Feed,
        mut first: Option<Page>,
        target: &mut TargetSide,
    ) -> Result<Drive> {
        let shared = self.shared.clone();
        let (carrier, field) = (&shared.carrier, &shared.field);
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut over, mut unmet) = (false, None);
        let stop = carrier.stop.clone();
        loop {
            let need = self.advance(target)?;
            if over && self.pending.is_empty() && self.window.is_empty() {
                field.prove_end(unmet).await?;
                return Ok(Drive::Over);
            }
            if first.is_some() && self.pending.is_empty() {
                let page = Listed { page: first.take().unwrap_or_default(), from: Position::Start };
                (over, unmet) = self.take(field, extent, page);
                continue;
            }
            let wants_page = self.pending.is_empty() && !over;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Drive::Stopped),
                Some(done) = self.flights.join_next(), if !self.flights.is_empty() => self.landed(done)?,
                _ = tick.tick() => self.report(None).await?,
                places = carrier.places(), if need == Need::Places => self.dispatch(places),
                more = target.more(), if need == Need::TargetPage => more?,
                page = feed.next(), if wants_page => match page {
                    None => (over, unmet) = (true, field.ended(extent)),
                    Some(page) => (over, unmet) = self.take(field, extent, page?),
                },
            }
        }
    }

    /// Takes what of a page belongs to the range.
    fn take(&mut self, field: &Field, extent: &Extent, listed: Listed) -> (bool, Option<Unmet>) {
        self.window.page(listed.from);
        let taken = field.take(extent, listed.page);
        self.pending.extend(taken.entries);
        (taken.over, taken.unmet)
    }

    /// Goes through pending keys as far as no waiting is needed.
    fn advance(&mut self, target: &mut TargetSide) -> Result<Need> {
        let shared = self.shared.clone();
        let carrier = &shared.carrier;
        while let Some(entry) = self.pending.front() {
            if !self.window.has_room() {
                return Ok(Need::Nothing);
            }
            if self.ready.is_some() {
                match carrier.try_places() {
                    Some(places) => self.dispatch(places),
                    None => return Ok(Need::Places),
                }
                continue;
            }
            if !shared.filter.keeps(entry.key.as_bytes()) {
                let entry = self.pending.pop_front().unwrap_or_else(|| unreachable!("just read"));
                if let Some(place) = self.window.take(entry.key) {
                    self.window.settle(place);
                }
                continue;
            }
            let stands = match target.look(&entry.key.under(&carrier.spec.save_prefix)) {
                Stands::NeedPage => return Ok(Need::TargetPage),
                // Compared in its own flight, so that many keys are asked for at once.
                Stands::NeedHead => None,
                Stands::Known(stands) => Some(stands),
            };
            let action = stands.map_or(Action::Copy, |stands| self.decide(entry, stands.as_ref()));
            match action {
                Action::Copy | Action::Ask => self.ready = Some(Ready { asks: action == Action::Ask }),
                action => self.settle_now(action),
            }
        }
        Ok(Need::Nothing)
    }

    fn decide(&self, entry: &Entry, stands: Option<&Entry>) -> Action {
        self.shared.decide(entry, stands, self.doubts(), Known::Listed)
    }

    /// True while an interruption may have swallowed a key's outcome.
    fn doubts(&self) -> bool {
        self.shared.doubts_all || self.in_doubt && self.window.in_doubt()
    }

    fn dispatch(&mut self, places: Places) {
        let Some(ready) = self.ready.take() else { return };
        let Some(entry) = self.pending.pop_front() else { return };
        let Some(place) = self.window.take(entry.key.clone()) else { return };
        let shared = self.shared.clone();
        let ask = (ready.asks || self.asks).then(|| self.doubts());
        self.flights.spawn(async move {
            let (entry, end) = match ask {
                Some(in_doubt) => shared.ask_then_fly(entry, places, in_doubt).await,
                None => {
                    let end = fly(shared.carrier.clone(), entry.clone(), places).await;
                    (entry, end)
                }
            };
            (place, entry, end)
        });
    }

    fn settle_now(&mut self, action: Action) {
        let Some(entry) = self.pending.pop_front() else { return };
        let Some(place) = self.window.take(entry.key.clone()) else { return };
        let outcome = match action {
            Action::Adopt(proof) => Outcome::Copied(proof),
            Action::Skip(why) => Outcome::Skipped(why),
            Action::Copy | Action::Ask => return,
        };
        self.settled(place, &entry, &outcome, entry.size);
    }

    fn landed(&mut self, done: std::result::Result<(u64, Entry, End), tokio::task::JoinError>) -> Result<()> {
        let (place, entry, end) = done.map_err(|e| {
            Failure::new(
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
            End::Broke(f) if f.kind == Kind::Stopped => Ok(()),
            End::Broke(failure) => Err(failure),
            End::Outcome(outcome, size) => {
                self.settled(place, &entry, &outcome, size);
                Ok(())
            }
        }
    }

    fn settled(&mut self, place: u64, entry: &Entry, outcome: &Outcome, size: u64) {
        let count = |c: &mut Counters| match outcome {
            Outcome::Copied(proof) => c.copied_one(size, *proof),
            Outcome::Skipped(_) => c.skipped += model::count::Tally::one(size),
            Outcome::Failed(_) => c.failed += model::count::Tally::one(size),
            Outcome::Gone => c.gone += model::count::Tally::one(size),
            Outcome::Deleted => c.deleted += model::count::Tally::one(size),
            Outcome::Waiting => {}
        };
        count(&mut self.counters);
        self.shared.carrier.progress.settled(count);
        if self.shared.record {
            outcome::line(&mut self.lines, outcome, &entry.key, size, entry.modified_ms);
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
        self.window.settle(place);
        self.changed = true;
    }

    /// Tells the ledger what has been reached; `end` is the last key of a range that is done.
    async fn report(&mut self, end: Option<Option<Key>>) -> Result<()> {
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
        self.shared.carrier.ledger.report(report).await
    }

    /// After a stop: what is in flight gets a moment, the rest is dropped, and the checkpoint is exact.
    async fn come_to_rest(mut self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + GRACE;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.flights.join_next()).await {
            if let Ok(done) = done {
                self.landed(Ok(done))?;
            }
        }
        self.flights.shutdown().await;
        self.changed = true;
        self.report(None).await
    }
}

async fn fly(carrier: Arc<Carrier>, entry: Entry, places: Places) -> End {
    if carrier.spec.beyond.dry_run {
        return End::Outcome(Outcome::Skipped("would be copied"), entry.size);
    }
    if carrier.spec.beyond.versions {
        drop(places);
        return carrier.history(entry).await;
    }
    let planned = plan(entry.size, &entry.etag, None, carrier.spec.part_size, carrier.target.capability());
    let open = carrier.ledger.upload_of(&entry.key).is_some();
    match planned {
        Plan::Whole if !open => carrier.whole(entry, places).await,
        _ => {
            drop(places);
            carrier.large(entry).await
        }
    }
}
