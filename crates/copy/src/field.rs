//! The ranges of one pass that are being walked now, and the rule that splits the largest when lanes are idle.
//!
//! A split asks the source for a whole page somewhere inside a range. If keys come back that lie inside any
//! range, that range ends at the first of them and a new range begins there, with the page already in hand:
//! a good guess wastes nothing. An empty answer teaches that nothing lies behind the guess.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use model::failure::{Failure, Kind, Result, Side};
use model::key::{Key, Order};
use model::selection::Scope;
use pace::lanes::Lanes;
use storage::{Entry, Page, SharedStore};
use store::{NewRange, Pass, RangeRow};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::feed::{PAGE, fetch, folders};
use crate::sketch::{Sketch, shared};

mod questions;

use questions::{Landmarks, Question};

/// Part of the key space that one runner walks.
#[derive(Debug)]
pub(crate) struct Extent {
    pub(crate) id: i64,
    pub(crate) scope: Scope,
    state: Mutex<Reach>,
}

#[derive(Debug)]
struct Reach {
    start: Key,
    at: Key,
    upto: Option<Key>,
    /// Nothing lies behind this, as a fruitless question has shown.
    known_end: Option<Key>,
    listed: u64,
    /// Keys expected in all, before the first page tells better.
    expected: f64,
    /// Characters shared by the whole last page.
    common: usize,
    /// The subtrees around the position have been asked about.
    laddered: bool,
    over: bool,
}

impl Extent {
    fn new(id: i64, scope: Scope, start: Key, upto: Option<Key>, expected: f64) -> Self {
        let reach = Reach {
            at: start.clone(),
            start,
            upto,
            known_end: None,
            listed: 0,
            expected,
            common: 0,
            laddered: false,
            over: false,
        };
        Self { id, scope, state: Mutex::new(reach) }
    }

    /// A range that is fed with chosen keys is not a stretch of the key space: nothing may be split off it.
    fn is_listed(&self) -> bool {
        self.id > 0
    }

    fn bounds(&self) -> (Key, Option<Key>) {
        let r = self.reach();
        (r.start.clone(), r.upto.clone())
    }

    fn reach(&self) -> MutexGuard<'_, Reach> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn fresh_row(new: &NewRange) -> RangeRow {
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

/// All ranges of a pass.
pub(crate) struct Field {
    pass: Pass,
    order: Order,
    /// Ranges walked at once.
    width: usize,
    source: SharedStore,
    extents: Mutex<Vec<Arc<Extent>>>,
    sketches: Mutex<HashMap<Scope, Sketch>>,
    /// First-level folders, where known: keys certainly lie behind them. None while they are being asked for.
    landmarks: Mutex<HashMap<Scope, Option<Landmarks>>>,
    /// Questions under way: a range is treated as cut there already.
    asked: Mutex<Vec<(Scope, Key)>>,
    moved: Notify,
}

type Running = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;

impl Field {
    pub(crate) fn new(pass: Pass, width: usize, source: SharedStore) -> Arc<Self> {
        let order = source.capability().list_order;
        Arc::new(Self {
            pass,
            order,
            width: if order == Order::Unknown { 1 } else { width.max(1) },
            source,
            extents: Mutex::default(),
            sketches: Mutex::default(),
            landmarks: Mutex::default(),
            asked: Mutex::default(),
            moved: Notify::new(),
        })
    }

    fn extents(&self) -> MutexGuard<'_, Vec<Arc<Extent>>> {
        self.extents.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Cuts a page to what belongs to the range now, and moves its position; true when the range is over.
    pub(crate) fn take(&self, extent: &Extent, page: Page) -> (Vec<Entry>, bool) {
        // Locks are always taken in this order: sketches, questions, extents, one extent's reach.
        let mut sketches = self.sketches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut r = extent.reach();
        let mut entries = page.entries;
        let whole = entries.len();
        if self.order != Order::Unknown {
            let inside = entries.partition_point(|e| self.order.within(e.key.as_bytes(), r.upto.as_ref()));
            entries.truncate(inside);
        }
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            r.common = shared(&first.key, &last.key);
            if r.listed == 0 {
                r.start = first.key.clone();
            }
            if self.order.compare(last.key.as_bytes(), r.at.as_bytes()).is_gt() {
                r.at = last.key.clone();
            }
            r.listed += entries.len() as u64;
            let sketch = sketches.entry(extent.scope.clone()).or_insert_with(|| Sketch::new(self.order));
            let step = (entries.len() / 24).max(1);
            sketch.observe(entries.iter().step_by(step).chain(Some(last)).map(|e| &e.key));
        }
        r.over = !page.more || entries.len() < whole || r.upto.as_ref().is_some_and(|u| *u == r.at);
        let over = r.over;
        drop(r);
        drop(sketches);
        self.moved.notify_one();
        (entries, over)
    }

    /// Walks all ranges with `run`, splitting while `idle` says that more could be done. Ends when nothing is
    /// left, or after a stop when every runner has come to rest. The first error stops all others, and is the
    /// answer.
    pub(crate) async fn walk(
        self: &Arc<Self>,
        rows: Vec<RangeRow>,
        lanes: &Lanes,
        log: &dyn SplitLog,
        stop: &CancellationToken,
        idle: impl Fn() -> bool,
        run: impl Fn(Arc<Extent>, RangeRow, Option<Page>) -> Running,
    ) -> Result<()> {
        let mut next_id = rows.iter().map(|r| r.id).max().unwrap_or(0) + 1;
        let mut queue: VecDeque<RangeRow> = rows.into_iter().filter(|r| !r.done).collect();
        let mut runners: JoinSet<Result<()>> = JoinSet::new();
        let mut questions: JoinSet<(Scope, Question, Result<Page>)> = JoinSet::new();
        let mut broken: Option<Failure> = None;
        let mut again = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            while runners.len() < self.width && !stop.is_cancelled() {
                let Some(row) = queue.pop_front() else { break };
                let extent = Extent::new(
                    row.id,
                    row.scope.clone(),
                    row.cursor.clone(),
                    row.upto.clone(),
                    f64::from(PAGE),
                );
                // Keys settled ahead of the cursor are this range's own: no split may give them to another.
                let ahead = row.ahead.iter().max_by(|a, b| self.order.compare(a.as_bytes(), b.as_bytes()));
                if let Some(last) = ahead {
                    extent.reach().at = last.clone();
                }
                let extent = Arc::new(extent);
                self.extents().push(extent.clone());
                runners.spawn_on(run(extent, row, None), lanes.handle());
            }
            if queue.is_empty() && self.width > 1 && !stop.is_cancelled() && idle() {
                let free = self.width.saturating_sub(runners.len() + questions.len());
                for (scope, question) in self.questions(free) {
                    let (source, prefix) = (self.source.clone(), scope.prefix().to_owned());
                    questions.spawn_on(
                        async move {
                            let page = match &question {
                                Question::Folders => folders(&*source, &prefix).await,
                                Question::Page(guess) => fetch(&*source, &prefix, guess, Side::Source).await,
                            };
                            (scope, question, page)
                        },
                        lanes.handle(),
                    );
                }
            }
            if runners.is_empty() && (queue.is_empty() || stop.is_cancelled()) {
                return broken.map_or(Ok(()), Err);
            }
            tokio::select! {
                biased;
                Some(ended) = runners.join_next() => {
                    let ended = ended.unwrap_or_else(|e| {
                        Err(Failure::new(Kind::Internal, "copy", format!("a range ended: {e}")))
                    });
                    if let Err(failure) = ended {
                        broken.get_or_insert(failure);
                        stop.cancel();
                    }
                    self.extents().retain(|e| !e.reach().over);
                }
                Some(answer) = questions.join_next(), if !questions.is_empty() => {
                    let mut answers = vec![answer];
                    answers.extend(std::iter::from_fn(|| questions.try_join_next()));
                    for (scope, question, page) in answers.into_iter().flatten() {
                        if let Question::Page(guess) = &question {
                            self.asked().retain(|(s, g)| !(*s == scope && g == guess));
                        }
                        // A question that failed is only a lost guess; the range itself meets the same trouble.
                        let Question::Page(guess) = question else {
                            let known = page.map(|p| Landmarks::of(p, self.order)).unwrap_or_default();
                            self.landmarks().insert(scope, Some(known));
                            continue;
                        };
                        let Ok(page) = page else { continue };
                        if stop.is_cancelled() { continue }
                        let Some((lower, upper, page)) = self.settle(&scope, &guess, page, next_id) else { continue };
                        next_id += 1;
                        let (after, upto) = upper.bounds();
                        let new = NewRange { id: upper.id, pass: self.pass, scope, after: after.clone(), upto };
                        let row = fresh_row(&new);
                        log.split(lower, after, new).await?;
                        runners.spawn_on(run(upper, row, Some(page)), lanes.handle());
                    }
                }
                () = self.moved.notified() => {}
                _ = again.tick() => {}
            }
        }
    }

    fn asked(&self) -> MutexGuard<'_, Vec<(Scope, Key)>> {
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn landmarks(&self) -> MutexGuard<'_, HashMap<Scope, Option<Landmarks>>> {
        self.landmarks.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes a range out of an answer: ends the one that holds its first key there, and begins a new one.
    fn settle(
        &self,
        scope: &Scope,
        guess: &Key,
        mut page: Page,
        id: i64,
    ) -> Option<(i64, Arc<Extent>, Page)> {
        let mut sketches = self.sketches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut extents = self.extents();
        let asked = |e: &&Arc<Extent>| {
            let r = e.reach();
            e.is_listed()
                && e.scope == *scope
                && !r.over
                && self.order.compare(r.at.as_bytes(), guess.as_bytes()).is_lt()
                && self.order.within(guess.as_bytes(), r.upto.as_ref())
        };
        let first = page.entries.first().map(|e| e.key.clone());
        let holder = first.as_ref().and_then(|k| {
            extents.iter().find(|e| {
                let r = e.reach();
                e.is_listed()
                    && e.scope == *scope
                    && !r.over
                    && self.order.compare(r.at.as_bytes(), k.as_bytes()).is_lt()
                    && self.order.within(k.as_bytes(), r.upto.as_ref())
            })
        });
        let victim = extents.iter().find(asked);
        if let Some(v) = victim
            && holder.is_none_or(|h| !Arc::ptr_eq(h, v))
        {
            // Nothing of this range lies behind the guess.
            let mut r = v.reach();
            let nearer = r
                .known_end
                .as_ref()
                .is_none_or(|e| self.order.compare(guess.as_bytes(), e.as_bytes()).is_lt());
            if nearer {
                r.known_end = Some(guess.clone());
            }
            if let Some(sketch) = sketches.get_mut(scope) {
                sketch.deny(guess, &r.at);
            }
        }
        let (holder, first) = (holder?.clone(), first?);
        let mut r = holder.reach();
        if r.upto.as_ref() == Some(&first) {
            // Only the range's own last key lies behind the guess.
            r.known_end = Some(guess.clone());
            if let Some(sketch) = sketches.get_mut(scope) {
                sketch.deny(guess, &r.at);
            }
            return None;
        }
        let base = scope.prefix().chars().count();
        let expected = sketches.get(scope).map(|s| s.of(&r.at)).map_or(0.0, |s| {
            let left = self.left(s, base, &r);
            left * s.share_after(base, &r.at, &first, r.known_end.as_ref().or(r.upto.as_ref()))
        });
        let upper = Extent::new(id, scope.clone(), first.clone(), r.upto.take(), expected);
        {
            let mut u = upper.reach();
            u.known_end = r.known_end.take();
            u.common = page.entries.last().map_or(0, |last| shared(&first, &last.key));
        }
        r.upto = Some(first);
        r.known_end = None;
        let lower = holder.id;
        drop(r);
        page.entries.remove(0);
        let upper = Arc::new(upper);
        extents.push(upper.clone());
        Some((lower, upper, page))
    }
}

#[cfg(test)]
mod tests;
