//! The ranges of one pass that are being walked now, and the rule that splits the largest when I/O threads are idle.
//!
//! A split asks the source for a whole page somewhere inside a range. If keys come back that lie inside any
//! range, that range ends at the first of them and a new range begins there, with the page already in hand:
//! a good guess wastes nothing. An empty answer teaches that nothing lies behind the guess.
//!
//! Decision: ADR 0005, `docs/adr/0005-splits-by-speculative-pages.md`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use model::error::{Error, Kind, Result, Side};
use model::key::{Key, Order};
use model::selection::Scope;
use storage::{Entry, Page, SharedStore, StartAfter};
use store::{NewRange, Pass, RangeRow};
use tokio::sync::Notify;

use crate::listing::lister::Lister;
use crate::ranges::key_distribution::{KeyDistribution, common_prefix_len};

mod list_probe;
mod probe_budget;
mod probes;
mod run;

use list_probe::TopFolders;
use probe_budget::ProbeBudget;

/// Part of the key space that one runner walks.
#[derive(Debug)]
pub(crate) struct ActiveRange {
    pub(crate) id: i64,
    pub(crate) scope: Scope,
    state: Mutex<RangeState>,
}

#[derive(Debug)]
struct RangeState {
    start: Key,
    /// The furthest key that is known to be this range's: the last that was listed, or one that an earlier run has settled.
    position: Key,
    upto: Option<Key>,
    /// The last key of the range was listed.
    end_listed: bool,
    /// Nothing lies behind this, as an empty probe has shown.
    end_bound: Option<Key>,
    listed: u64,
    /// Keys expected in all, before the first page tells better.
    expected: f64,
    /// Characters shared by the whole last page.
    common_len: usize,
    /// The subtrees around the position have been asked about.
    boundaries_probed: bool,
    finished: bool,
}

impl RangeState {
    /// Ends the range at a key, from which the new range goes on to the end of this one.
    fn split_off(
        &mut self,
        id: i64,
        scope: &Scope,
        at: Key,
        common_len: usize,
        expected: f64,
    ) -> ActiveRange {
        let upper = ActiveRange::new(id, scope.clone(), at.clone(), self.upto.take(), expected);
        {
            let mut state = upper.state();
            state.end_bound = self.end_bound.take();
            state.common_len = common_len;
        }
        self.upto = Some(at);
        (self.end_listed, self.end_bound) = (false, None);
        upper
    }
}

impl ActiveRange {
    fn new(id: i64, scope: Scope, start: Key, upto: Option<Key>, expected: f64) -> Self {
        let reach = RangeState {
            end_listed: upto.as_ref() == Some(&start),
            position: start.clone(),
            start,
            upto,
            end_bound: None,
            listed: 0,
            expected,
            common_len: 0,
            boundaries_probed: false,
            finished: false,
        };
        Self { id, scope, state: Mutex::new(reach) }
    }

    /// A range that is fed with chosen keys is not a gap of the key space: nothing may be split off it.
    fn is_listed(&self) -> bool {
        self.id > 0
    }

    /// Ends the range for good, so that nothing is split off it any more; answers its last key.
    pub(crate) fn finish(&self) -> Option<Key> {
        let mut r = self.state();
        r.finished = true;
        r.upto.clone()
    }

    /// Whether a page reaches the end of the range, which splits only ever move towards its beginning.
    pub(crate) fn ends_within(&self, page: &Page, order: Order) -> bool {
        let last = page.entries.last().filter(|_| order != Order::Unknown);
        let state = self.state();
        last.zip(state.upto.as_ref())
            .is_some_and(|(last, upto)| order.compare(last.key.as_bytes(), upto.as_bytes()).is_ge())
    }

    fn bounds(&self) -> (Key, Option<Key>) {
        let r = self.state();
        (r.start.clone(), r.upto.clone())
    }

    fn state(&self) -> MutexGuard<'_, RangeState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A range of which nothing is settled yet.
pub(crate) fn row_of(new: &NewRange) -> RangeRow {
    RangeRow {
        id: new.id,
        pass: new.pass,
        scope: new.scope.clone(),
        upto: new.upto.clone(),
        cursor: new.after.clone(),
        ahead: vec![],
        done: false,
        counters: Default::default(),
        fence: 0,
    }
}

/// Where splits are written down before they count.
#[async_trait]
pub(crate) trait SplitLog: Send + Sync {
    async fn split(&self, lower: i64, upto: Key, upper: NewRange) -> Result<()>;
}

#[async_trait]
impl SplitLog for crate::ledger::Ledger {
    async fn split(&self, lower: i64, upto: Key, upper: NewRange) -> Result<()> {
        crate::ledger::Ledger::split(self, lower, upto, upper).await
    }
}

/// The first page of a range that was split off, and the walk that goes on behind it.
#[derive(Debug)]
pub(crate) struct OpenListing {
    pub(crate) page: Page,
    pub(crate) lister: Lister,
}

/// What of a page belongs to a range.
#[derive(Debug)]
pub(crate) struct RangePage {
    pub(crate) entries: Vec<Entry>,
    /// The range is over.
    pub(crate) finished: bool,
    /// It is over and its last key did not come.
    pub(crate) missing_end: Option<MissingEnd>,
}

/// The key that a range ends with, which did not come: unless it is gone, the listing omitted keys.
#[derive(Debug)]
pub(crate) struct MissingEnd {
    prefix: String,
    upto: Key,
    /// What came behind the range instead; none when nothing did.
    listed_instead: Option<Key>,
}

/// All ranges of a pass.
pub(crate) struct RangeScheduler {
    pass: Pass,
    order: Order,
    /// Ranges walked at once.
    max_active: usize,
    source: SharedStore,
    active: Mutex<Vec<Arc<ActiveRange>>>,
    distributions: Mutex<HashMap<Scope, KeyDistribution>>,
    /// First-level folders, where known: keys certainly lie behind them. None while they are being asked for.
    top_folders: Mutex<HashMap<Scope, Option<TopFolders>>>,
    /// Probes in flight: a range is treated as cut there already.
    probes_in_flight: Mutex<Vec<(Scope, Key)>>,
    probe_budget: Mutex<ProbeBudget>,
    changed: Notify,
}

/// The source's answer to a probe.
enum ProbeResult {
    Folders(Page),
    Page(Box<OpenListing>),
}

pub(crate) type RangeFuture = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;

impl RangeScheduler {
    pub(crate) fn new(pass: Pass, width: usize, source: SharedStore) -> Arc<Self> {
        let order = source.capability().list_order;
        Arc::new(Self {
            pass,
            order,
            max_active: if order == Order::Unknown { 1 } else { width.max(1) },
            source,
            active: Mutex::default(),
            distributions: Mutex::default(),
            top_folders: Mutex::default(),
            probes_in_flight: Mutex::default(),
            probe_budget: Mutex::default(),
            changed: Notify::new(),
        })
    }

    fn active(&self) -> MutexGuard<'_, Vec<Arc<ActiveRange>>> {
        self.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Cuts a page to what belongs to the range now, and moves its position.
    pub(crate) fn take_page(&self, range: &ActiveRange, page: Page) -> RangePage {
        // Locks are always taken in this order: distributions, probes, active ranges, one range's state.
        let mut distributions = self.distributions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut r = range.state();
        let mut entries = page.entries;
        let (whole, mut beyond) = (entries.len(), None);
        if self.order != Order::Unknown {
            let inside = entries.partition_point(|e| self.order.within(e.key.as_bytes(), r.upto.as_ref()));
            beyond = entries.get(inside).map(|e| e.key.clone());
            entries.truncate(inside);
        }
        {
            let mut budget = self.probe_budget();
            budget.use_keys(entries.len());
            budget.waste_keys(whole - entries.len());
        }
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            r.common_len = common_prefix_len(&first.key, &last.key);
            if r.listed == 0 {
                r.start = first.key.clone();
            }
            if self.order.compare(last.key.as_bytes(), r.position.as_bytes()).is_gt() {
                r.position = last.key.clone();
            }
            r.listed += entries.len() as u64;
            let distribution =
                distributions.entry(range.scope.clone()).or_insert_with(|| KeyDistribution::new(self.order));
            let step = (entries.len() / 24).max(1);
            distribution.observe(entries.iter().step_by(step).chain(Some(last)).map(|e| &e.key));
        }
        // Not by the furthest key, which an earlier run may have settled before those in front of it.
        r.end_listed |= entries.last().is_some_and(|last| Some(&last.key) == r.upto.as_ref());
        let met = r.end_listed;
        r.finished = page.next.is_none() || entries.len() < whole || met;
        let over = r.finished;
        let missing_end = r.upto.clone().filter(|_| over && !met && self.verifies_ends());
        let missing_end = missing_end.map(|upto| MissingEnd {
            prefix: range.scope.prefix().to_owned(),
            upto,
            listed_instead: beyond,
        });
        drop(r);
        drop(distributions);
        self.changed.notify_one();
        RangePage { entries, finished: over, missing_end }
    }

    /// The listing of a range has ended without a page that said so; the key that should have come at its end.
    pub(crate) fn listing_ended(&self, range: &ActiveRange) -> Option<MissingEnd> {
        let mut r = range.state();
        r.finished = true;
        let missing_end = r.upto.clone().filter(|_| !r.end_listed && self.verifies_ends());
        let missing_end = missing_end.map(|upto| MissingEnd {
            prefix: range.scope.prefix().to_owned(),
            upto,
            listed_instead: None,
        });
        drop(r);
        self.changed.notify_one();
        missing_end
    }

    /// A range ends with a key that was seen. In a server's order, that key's absence means that others lie behind it
    /// in a way that nobody told; in our own order it is only gone.
    fn verifies_ends(&self) -> bool {
        self.order != Order::Unknown && self.source.capability().list_start_after != StartAfter::Exact
    }

    /// Fails when the key that ended a range is there, by its own answer or in a listing, and did not come; and when the
    /// server, asked for what lies behind it, says something else than what came.
    pub(crate) async fn verify_end(&self, missing_end: Option<MissingEnd>) -> Result<()> {
        let Some(MissingEnd { prefix, upto, listed_instead: beyond }) = missing_end else { return Ok(()) };
        let at = |f: Error| f.at(Side::Source);
        let there = crate::listing::lister::exists(&*self.source, &upto).await.map_err(at)?
            || crate::listing::lister::is_listed(self.source.clone(), &upto, Side::Source)
                .await
                .map_err(at)?;
        if !there
            && crate::listing::lister::first_key_after(&*self.source, &prefix, &upto).await.map_err(at)?
                == beyond
        {
            return Ok(());
        }
        let m = format!("`{upto}` exists but was not listed at its previous position");
        Err(Error::new(Kind::OutOfOrderListing, "list", m).at(Side::Source))
    }

    fn probes_in_flight(&self) -> MutexGuard<'_, Vec<(Scope, Key)>> {
        self.probes_in_flight.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn probe_budget(&self) -> MutexGuard<'_, ProbeBudget> {
        self.probe_budget.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn top_folders(&self) -> MutexGuard<'_, HashMap<Scope, Option<TopFolders>>> {
        self.top_folders.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// True when a range still has to list the place of a key.
    fn will_list(&self, range: &ActiveRange, scope: &Scope, key: &Key) -> bool {
        let r = range.state();
        range.is_listed()
            && range.scope == *scope
            && !r.finished
            && self.order.compare(r.position.as_bytes(), key.as_bytes()).is_lt()
            && self.order.within(key.as_bytes(), r.upto.as_ref())
    }

    /// Makes a range out of an answer: ends the one that holds its first key there, and begins a new one.
    fn apply_probe(
        &self,
        scope: &Scope,
        guess: &Key,
        mut opened: OpenListing,
        id: i64,
    ) -> Option<(i64, Arc<ActiveRange>, OpenListing)> {
        let page = &mut opened.page;
        let mut distributions = self.distributions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut active = self.active();
        let first = page.entries.first().map(|e| e.key.clone());
        let holder = first.as_ref().and_then(|k| active.iter().find(|e| self.will_list(e, scope, k)));
        let victim = active.iter().find(|e| self.will_list(e, scope, guess));
        if let Some(v) = victim
            && holder.is_none_or(|h| !Arc::ptr_eq(h, v))
        {
            // Nothing of this range lies behind the guess.
            let mut r = v.state();
            let nearer = r
                .end_bound
                .as_ref()
                .is_none_or(|e| self.order.compare(guess.as_bytes(), e.as_bytes()).is_lt());
            if nearer {
                r.end_bound = Some(guess.clone());
            }
            if let Some(distribution) = distributions.get_mut(scope) {
                distribution.reject(guess, &r.position);
            }
        }
        let (holder, first) = (holder?.clone(), first?);
        let mut r = holder.state();
        if r.upto.as_ref() == Some(&first) {
            // Only the range's own last key lies behind the guess.
            r.end_bound = Some(guess.clone());
            if let Some(distribution) = distributions.get_mut(scope) {
                distribution.reject(guess, &r.position);
            }
            return None;
        }
        let base = scope.prefix().chars().count();
        let expected = distributions.get(scope).map(|s| s.for_key(&r.position)).map_or(0.0, |s| {
            let left = self.expected_left(s, base, &r);
            left * s.share_after(base, &r.position, &first, r.end_bound.as_ref().or(r.upto.as_ref()))
        });
        let common_len = page.entries.last().map_or(0, |last| common_prefix_len(&first, &last.key));
        let upper = r.split_off(id, scope, first, common_len, expected);
        let lower = holder.id;
        drop(r);
        page.entries.remove(0);
        let upper = Arc::new(upper);
        active.push(upper.clone());
        Some((lower, upper, opened))
    }
}

#[cfg(test)]
mod tests;
