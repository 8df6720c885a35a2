//! Live numbers of a running job, for progress bars and the API.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use flow_control::budget::Bandwidth;
use flow_control::limit::Limit;
use model::count::{Counters, Tally};
use model::error::Error;
use storage::retrying::Requests;

use crate::listed_keys::ListedKeys;

/// Shared by a job and the code that shows its progress.
#[derive(Debug)]
pub struct Progress {
    /// Bytes read from the source since the job began, whatever became of them.
    pub moved: Arc<AtomicU64>,
    /// The limit of the whole task; changing it takes effect with the next chunk.
    pub bandwidth: Arc<Bandwidth>,
    began: Instant,
    state: Mutex<State>,
    /// Requests at both ends, once the stores are open.
    pub requests: Mutex<Vec<Arc<Requests>>>,
    /// Limits of both ends.
    pub limits: Mutex<Vec<Arc<Limit>>>,
    /// What this run has settled, where its deletions are to keep it.
    pub listed: Option<Arc<ListedKeys>>,
}

#[derive(Debug, Default)]
struct State {
    settled: Counters,
    precounted: Tally,
    precount_done: bool,
    retries: u64,
    speed: f64,
    mark: (u64, f64),
    last_retry: Option<String>,
}

/// A look at the numbers.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Settled, since the task began.
    pub settled: Counters,
    /// Counted by the precount.
    pub precounted: Tally,
    /// The precount is complete.
    pub precount_done: bool,
    /// Attempts after the first.
    pub retries: u64,
    /// Bytes per second, recently.
    pub speed: f64,
    /// Requests in flight allowed now, of the tighter end.
    pub limit: u32,
    /// The last error that was retried, in one sentence.
    pub last_retry: Option<String>,
}

impl Progress {
    /// Starts with what the ledger holds already.
    pub fn new(settled: Counters, precounted: Tally, precount_done: bool, rate: u64) -> Self {
        Self {
            moved: Arc::default(),
            bandwidth: Arc::new(Bandwidth::new(rate)),
            began: Instant::now(),
            state: Mutex::new(State { settled, precounted, precount_done, ..State::default() }),
            requests: Mutex::default(),
            limits: Mutex::default(),
            listed: None,
        }
    }

    /// The same, remembering the keys that are settled.
    #[must_use]
    pub fn remembering_keys(self) -> Self {
        Self { listed: Some(Arc::default()), ..self }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn record(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.state().settled);
    }

    pub(crate) fn add_precounted(&self, more: Tally) {
        self.state().precounted += more;
    }

    pub(crate) fn precount_ended(&self) {
        self.state().precount_done = true;
    }

    pub(crate) fn reset(&self) {
        self.state().settled = Counters::default();
    }

    pub(crate) fn record_retry(&self, failure: &Error) {
        let mut s = self.state();
        s.retries += 1;
        s.last_retry = Some(failure.to_string());
    }

    /// The numbers now. The speed is smoothed over calls at least half a second apart.
    pub fn snapshot(&self) -> Snapshot {
        let moved = self.moved.load(Ordering::Relaxed);
        let now = self.began.elapsed().as_secs_f64();
        let lock = |m: &Mutex<Vec<Arc<Limit>>>| {
            let limits = m.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            limits.iter().map(|l| l.current()).min().unwrap_or(0)
        };
        let limit = lock(&self.limits);
        let stores = self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let again: u64 = stores.iter().map(|r| r.retries.load(Ordering::Relaxed)).sum();
        drop(stores);
        let mut s = self.state();
        let (before, then) = s.mark;
        if now - then >= 0.5 {
            let recent = (moved - before) as f64 / (now - then);
            s.speed = if then == 0.0 { recent } else { 0.6 * s.speed + 0.4 * recent };
            s.mark = (moved, now);
        }
        Snapshot {
            settled: s.settled,
            precounted: s.precounted,
            precount_done: s.precount_done,
            retries: s.retries + again,
            speed: s.speed,
            limit,
            last_retry: s.last_retry.clone(),
        }
    }

    /// Requests by kind at both ends: list, head, get, put.
    pub fn request_counts(&self) -> [u64; 4] {
        let stores = self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut sum = [0; 4];
        for r in stores.iter() {
            for (slot, counter) in sum.iter_mut().zip([&r.list, &r.head, &r.get, &r.put]) {
                *slot += counter.load(Ordering::Relaxed);
            }
        }
        sum
    }
}
