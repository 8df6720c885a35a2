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
use storage::{Entry, Fact, Page, SharedStore, StartAfter};
use store::{NewRange, Pass, RangeRow};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::feed::folders;
use crate::lister::{Lister, PAGE};
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
    /// The furthest key that is known to be this range's: the last that was listed, or one that an earlier run has settled.
    at: Key,
    upto: Option<Key>,
    /// The last key of the range was listed.
    met: bool,
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
            met: upto.as_ref() == Some(&start),
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

    /// Ends the range for good, so that nothing is split off it any more; answers its last key.
    pub(crate) fn end(&self) -> Option<Key> {
        let mut r = self.reach();
        r.over = true;
        r.upto.clone()
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

/// The first page of a range that was split off, and the walk that goes on behind it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) page: Page,
    pub(crate) lister: Lister,
}

/// What of a page belongs to a range.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) entries: Vec<Entry>,
    /// The range is over.
    pub(crate) over: bool,
    /// It is over and its last key did not come.
    pub(crate) unmet: Option<Unmet>,
}

/// The key that a range ends with, which did not come: unless it is gone, keys were left out.
#[derive(Debug)]
pub(crate) struct Unmet {
    prefix: String,
    upto: Key,
    /// What came behind the range instead; none when nothing did.
    beyond: Option<Key>,
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

/// What the source answered a question.
enum Answer {
    Folders(Page),
    Page(Box<Opened>),
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

    /// Cuts a page to what belongs to the range now, and moves its position.
    pub(crate) fn take(&self, extent: &Extent, page: Page) -> Taken {
        // Locks are always taken in this order: sketches, questions, extents, one extent's reach.
        let mut sketches = self.sketches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut r = extent.reach();
        let mut entries = page.entries;
        let (whole, mut beyond) = (entries.len(), None);
        if self.order != Order::Unknown {
            let inside = entries.partition_point(|e| self.order.within(e.key.as_bytes(), r.upto.as_ref()));
            beyond = entries.get(inside).map(|e| e.key.clone());
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
        // Not by the furthest key, which an earlier run may have settled before those in front of it.
        r.met |= entries.last().is_some_and(|last| Some(&last.key) == r.upto.as_ref());
        let met = r.met;
        r.over = page.next.is_none() || entries.len() < whole || met;
        let over = r.over;
        let unmet = r.upto.clone().filter(|_| over && !met && self.proves_ends());
        let unmet = unmet.map(|upto| Unmet { prefix: extent.scope.prefix().to_owned(), upto, beyond });
        drop(r);
        drop(sketches);
        self.moved.notify_one();
        Taken { entries, over, unmet }
    }

    /// The listing of a range has ended without a page that said so; the key that should have come at its end.
    pub(crate) fn ended(&self, extent: &Extent) -> Option<Unmet> {
        let mut r = extent.reach();
        r.over = true;
        let unmet = r.upto.clone().filter(|_| !r.met && self.proves_ends());
        let unmet = unmet.map(|upto| Unmet { prefix: extent.scope.prefix().to_owned(), upto, beyond: None });
        drop(r);
        self.moved.notify_one();
        unmet
    }

    /// A range ends with a key that was seen. In a server's order, that key's absence means that others lie behind it
    /// in a way that nobody told; in our own order it is only gone.
    fn proves_ends(&self) -> bool {
        self.order != Order::Unknown && self.source.capability().list_start_after != StartAfter::Exact
    }

    /// Fails when the key that ended a range is there, by its own answer or in a listing, and did not come; and when the
    /// server, asked for what lies behind it, says something else than what came.
    pub(crate) async fn prove_end(&self, unmet: Option<Unmet>) -> Result<()> {
        let Some(Unmet { prefix, upto, beyond }) = unmet else { return Ok(()) };
        let at = |f: Failure| f.at(Side::Source);
        let there = crate::lister::there(&*self.source, &upto).await.map_err(at)?
            || crate::lister::is_listed(self.source.clone(), &upto, Side::Source).await.map_err(at)?;
        if !there && crate::lister::first_behind(&*self.source, &prefix, &upto).await.map_err(at)? == beyond {
            return Ok(());
        }
        let m = format!("`{upto}` exists but was not listed at its previous position");
        Err(Failure::new(Kind::Disorder, "list", m).at(Side::Source))
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
        run: impl Fn(Arc<Extent>, RangeRow, Option<Opened>) -> Running,
    ) -> Result<()> {
        let mut next_id = rows.iter().map(|r| r.id).max().unwrap_or(0) + 1;
        let mut queue: VecDeque<RangeRow> = rows.into_iter().filter(|r| !r.done).collect();
        let mut runners: JoinSet<Result<()>> = JoinSet::new();
        let mut questions: JoinSet<(Scope, Question, Result<Answer>)> = JoinSet::new();
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
            let asks = self.source.capability().list_start_after != StartAfter::Broken;
            if queue.is_empty() && asks && self.width > 1 && !stop.is_cancelled() && idle() {
                let free = self.width.saturating_sub(runners.len() + questions.len());
                for (scope, question) in self.questions(free) {
                    let (source, prefix) = (self.source.clone(), scope.prefix().to_owned());
                    questions.spawn_on(
                        async move {
                            let answer = match &question {
                                Question::Folders => folders(&*source, &prefix).await.map(Answer::Folders),
                                Question::Page(guess) => {
                                    let mut lister = Lister::guess(source, &prefix, guess, Side::Source);
                                    lister.next().await.map(|listed| {
                                        let page = listed.map(|l| l.page).unwrap_or_default();
                                        Answer::Page(Box::new(Opened { page, lister }))
                                    })
                                }
                            };
                            (scope, question, answer)
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
                        Err(Failure::new(Kind::Internal, "copy", format!("a range worker ended unexpectedly: {e}")))
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
                    for (scope, question, answer) in answers.into_iter().flatten() {
                        if let Question::Page(guess) = &question {
                            self.asked().retain(|(s, g)| !(*s == scope && g == guess));
                        }
                        // A question that failed is only a lost guess; the range itself meets the same trouble.
                        let (guess, opened) = match (question, answer) {
                            (Question::Folders, Ok(Answer::Folders(page))) => {
                                self.landmarks().insert(scope, Some(Landmarks::of(page, self.order)));
                                continue;
                            }
                            (Question::Folders, _) => {
                                self.landmarks().insert(scope, Some(Landmarks::default()));
                                continue;
                            }
                            (Question::Page(guess), Ok(Answer::Page(opened))) => (guess, opened),
                            (Question::Page(_), failed) => {
                                // A server that does not begin where it is asked to is not asked again.
                                if failed.is_err_and(|f| f.kind == Kind::Disorder) {
                                    self.source.learn(Fact::StartAfter(StartAfter::Broken));
                                }
                                continue;
                            }
                        };
                        if stop.is_cancelled() { continue }
                        let Some((lower, upper, opened)) = self.settle(&scope, &guess, *opened, next_id) else {
                            continue;
                        };
                        next_id += 1;
                        let (after, upto) = upper.bounds();
                        let new = NewRange { id: upper.id, pass: self.pass, scope, after: after.clone(), upto };
                        let row = fresh_row(&new);
                        log.split(lower, after, new).await?;
                        runners.spawn_on(run(upper, row, Some(opened)), lanes.handle());
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
        mut opened: Opened,
        id: i64,
    ) -> Option<(i64, Arc<Extent>, Opened)> {
        let page = &mut opened.page;
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
        (r.met, r.known_end) = (false, None);
        let lower = holder.id;
        drop(r);
        page.entries.remove(0);
        let upper = Arc::new(upper);
        extents.push(upper.clone());
        Some((lower, upper, opened))
    }
}

#[cfg(test)]
mod tests;
