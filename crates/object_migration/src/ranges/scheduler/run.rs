//! Runs the ranges of one pass: starts their runners, probes for places to split them, and applies what probes found.

use std::collections::VecDeque;
use std::sync::Arc;

use flow_control::io_threads::IoThreads;
use model::error::{Error, Kind, Result, Side};
use model::key::Key;
use model::selection::Scope;
use storage::{Fact, SharedStore, StartAfter};
use store::{NewRange, RangeRow};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::list_probe::{ListProbe, TopFolders};
use super::{ActiveRange, OpenListing, ProbeResult, RangeFuture, RangeScheduler, SplitLog, row_of};
use crate::listing::feed::list_folders;
use crate::listing::lister::{Lister, PAGE_KEYS};

/// What runs for one pass: the runners of ranges, the probes, and the ranges that wait for a runner.
struct RunningRanges<'a, R> {
    io_threads: &'a IoThreads,
    /// Makes the runner of one range.
    run: R,
    queue: VecDeque<RangeRow>,
    runners: JoinSet<Result<()>>,
    probes: JoinSet<ProbeAnswer>,
    next_id: i64,
}

/// The answer to one probe, with what was asked.
type ProbeAnswer = (Scope, ListProbe, Result<ProbeResult>);

impl<'a, R> RunningRanges<'a, R>
where
    R: Fn(Arc<ActiveRange>, RangeRow, Option<OpenListing>) -> RangeFuture,
{
    fn new(rows: Vec<RangeRow>, io_threads: &'a IoThreads, run: R) -> Self {
        Self {
            io_threads,
            run,
            next_id: rows.iter().map(|r| r.id).max().unwrap_or(0) + 1,
            queue: rows.into_iter().filter(|r| !r.done).collect(),
            runners: JoinSet::new(),
            probes: JoinSet::new(),
        }
    }

    fn spawn_runner(&mut self, range: Arc<ActiveRange>, row: RangeRow, opened: Option<OpenListing>) {
        self.runners.spawn_on((self.run)(range, row, opened), self.io_threads.handle());
    }
}

impl RangeScheduler {
    /// Walks all ranges with `run`, splitting while `idle` says that more could be done. Ends when nothing is
    /// left, or after a stop when every runner has ended. The first error stops all others, and is the
    /// answer.
    pub(crate) async fn run(
        self: &Arc<Self>,
        rows: Vec<RangeRow>,
        io_threads: &IoThreads,
        log: &dyn SplitLog,
        stop: &CancellationToken,
        idle: impl Fn() -> bool,
        run: impl Fn(Arc<ActiveRange>, RangeRow, Option<OpenListing>) -> RangeFuture,
    ) -> Result<()> {
        let mut ranges = RunningRanges::new(rows, io_threads, run);
        let mut broken: Option<Error> = None;
        let mut again = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            if !stop.is_cancelled() {
                self.start_queued(&mut ranges);
            }
            let asks = self.source.capability().list_start_after != StartAfter::Broken;
            if ranges.queue.is_empty() && asks && self.max_active > 1 && !stop.is_cancelled() && idle() {
                self.start_probes(&mut ranges);
            }
            if ranges.runners.is_empty() && (ranges.queue.is_empty() || stop.is_cancelled()) {
                return broken.map_or(Ok(()), Err);
            }
            tokio::select! {
                biased;
                Some(ended) = ranges.runners.join_next() => {
                    let ended = ended.unwrap_or_else(|e| {
                        Err(Error::new(Kind::Internal, "copy", format!("a range worker ended unexpectedly: {e}")).caused_by(e))
                    });
                    if let Err(failure) = ended {
                        broken.get_or_insert(failure);
                        stop.cancel();
                    }
                    self.active().retain(|e| !e.state().finished);
                }
                Some(answer) = ranges.probes.join_next(), if !ranges.probes.is_empty() => {
                    let mut answers = vec![answer];
                    answers.extend(std::iter::from_fn(|| ranges.probes.try_join_next()));
                    for (scope, probe, answer) in answers.into_iter().flatten() {
                        let Some((guess, opened)) = self.page_of_probe(&scope, probe, answer) else { continue };
                        if stop.is_cancelled() { continue }
                        self.split(&mut ranges, scope, &guess, opened, log).await?;
                    }
                }
                () = self.changed.notified() => {}
                _ = again.tick() => {}
            }
        }
    }

    /// Starts runners for waiting ranges, up to the number that may run at once.
    fn start_queued<R>(&self, ranges: &mut RunningRanges<'_, R>)
    where
        R: Fn(Arc<ActiveRange>, RangeRow, Option<OpenListing>) -> RangeFuture,
    {
        while ranges.runners.len() < self.max_active {
            let Some(row) = ranges.queue.pop_front() else { break };
            let (start, upto) = (row.cursor.clone(), row.upto.clone());
            let range = ActiveRange::new(row.id, row.scope.clone(), start, upto, f64::from(PAGE_KEYS));
            // Keys settled ahead of the cursor are this range's own: no split may give them to another.
            let ahead = row.ahead.iter().max_by(|a, b| self.order.compare(a.as_bytes(), b.as_bytes()));
            if let Some(last) = ahead {
                range.state().position = last.clone();
            }
            let range = Arc::new(range);
            self.active().push(range.clone());
            ranges.spawn_runner(range, row, None);
        }
    }

    /// Starts as many probes as runners could be added.
    fn start_probes<R>(&self, ranges: &mut RunningRanges<'_, R>) {
        let free = self.max_active.saturating_sub(ranges.runners.len() + ranges.probes.len());
        for (scope, probe) in self.next_probes(free, ranges.probes.len()) {
            let answer = send_probe(self.source.clone(), scope, probe);
            ranges.probes.spawn_on(answer, ranges.io_threads.handle());
        }
    }

    /// Keeps what a probe says about folders or the server; the probed key and its page when it asked for one.
    fn page_of_probe(
        &self,
        scope: &Scope,
        probe: ListProbe,
        answer: Result<ProbeResult>,
    ) -> Option<(Key, OpenListing)> {
        if let Some((guess, _)) = probe.guess() {
            self.probes_in_flight().retain(|(s, g)| !(s == scope && g == guess));
        }
        // A probe that failed is only a lost guess; the range itself gets the same error.
        match (probe, answer) {
            (ListProbe::Folders, Ok(ProbeResult::Folders(page))) => {
                self.probe_budget().waste_keys(page.entries.len() + page.folders.len());
                self.top_folders().insert(scope.clone(), Some(TopFolders::from_page(page, self.order)));
            }
            (ListProbe::Folders, _) => {
                self.top_folders().insert(scope.clone(), Some(TopFolders::default()));
            }
            (ListProbe::Page(guess), Ok(ProbeResult::Page(opened))) => {
                self.probe_budget().count_page_probe();
                return Some((guess, *opened));
            }
            (ListProbe::FirstKey(guess), Ok(ProbeResult::Page(opened))) => return Some((guess, *opened)),
            (_, failed) => {
                // A server that does not begin where it is asked to is not asked again.
                if failed.is_err_and(|f| f.kind == Kind::OutOfOrderListing) {
                    self.source.learn(Fact::StartAfter(StartAfter::Broken));
                }
            }
        }
        None
    }

    /// Splits a range where a probe found keys, writes the split down and starts the new range.
    async fn split<R>(
        &self,
        ranges: &mut RunningRanges<'_, R>,
        scope: Scope,
        guess: &Key,
        opened: OpenListing,
        log: &dyn SplitLog,
    ) -> Result<()>
    where
        R: Fn(Arc<ActiveRange>, RangeRow, Option<OpenListing>) -> RangeFuture,
    {
        let listed = opened.page.entries.len();
        let Some((lower, upper, opened)) = self.apply_probe(&scope, guess, opened, ranges.next_id) else {
            self.probe_budget().waste_keys(listed);
            return Ok(());
        };
        ranges.next_id += 1;
        let (after, upto) = upper.bounds();
        let new = NewRange { id: upper.id, pass: self.pass, scope, after: after.clone(), upto };
        let row = row_of(&new);
        log.split(lower, after, new).await?;
        ranges.spawn_runner(upper, row, Some(opened));
        Ok(())
    }
}

/// Asks the source what a probe wants to know.
async fn send_probe(source: SharedStore, scope: Scope, probe: ListProbe) -> ProbeAnswer {
    let prefix = scope.prefix().to_owned();
    let answer = match probe.guess() {
        None => list_folders(&*source, &prefix).await.map(ProbeResult::Folders),
        Some((guess, keys)) => {
            let mut lister = Lister::probe(source, &prefix, guess, keys, Side::Source);
            lister.next().await.map(|listed| {
                let page = listed.map(|l| l.page).unwrap_or_default();
                ProbeResult::Page(Box::new(OpenListing { page, lister }))
            })
        }
    };
    (scope, probe, answer)
}
