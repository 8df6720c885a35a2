//! How many parts of large objects a task moves at once: no more than the link needs.
//!
//! A stop drops the parts that are under way and cannot end within its grace; they are read again. So the limit begins
//! at [`MIN`] and doubles while that moves clearly more bytes per second. A limit that gains nothing is taken back.
//! [`HOLD`] later the next smaller and the next larger limit are tried in turn, because links and bandwidth limits
//! change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Parts in flight at the start, and at least.
const MIN: usize = 2;
/// Parts in flight at most; the endpoints' limits bound them too. Measured: more cost memory and gain nothing.
const MAX: usize = 16;
/// A rate is measured over so long. The first measure after a change of the limit is dropped.
pub(crate) const SAMPLE: Duration = Duration::from_millis(150);
/// A limit that has proved itself stays for so long.
const HOLD: Duration = Duration::from_secs(10);
/// A larger limit is kept when the rate grows by this factor.
const GAIN: f64 = 1.15;
/// A smaller limit is kept when the rate stays above this factor.
const LOSS: f64 = 0.93;

/// The limit on parts in flight of one task.
#[derive(Debug)]
pub(crate) struct PartsLimit {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    in_flight: usize,
    /// Somebody waited since the last sample: the limit is what bounds the rate.
    bounded: bool,
    search: Search,
}

/// The right to move one part.
#[derive(Debug)]
pub(crate) struct PartPermit(Arc<PartsLimit>);

impl PartsLimit {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        let state = State { in_flight: 0, bounded: false, search: Search::new(now) };
        Arc::new(Self { state: Mutex::new(state), freed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit, when one is free.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<PartPermit> {
        let mut state = self.state();
        if state.in_flight >= state.search.limit {
            state.bounded = true;
            return None;
        }
        state.in_flight += 1;
        Some(PartPermit(self.clone()))
    }

    /// Waits until a permit may be free. It may wake for nothing.
    pub(crate) async fn freed(&self) {
        let _ = tokio::time::timeout(SAMPLE, self.freed.notified()).await;
    }

    /// Judges the limit by `moved`, the bytes that the task has moved until `now`.
    pub(crate) fn observe(&self, now: Instant, moved: u64) {
        let mut state = self.state();
        if now.duration_since(state.search.sampled) < SAMPLE {
            return;
        }
        let bounded = std::mem::take(&mut state.bounded);
        state.search.sample(now, moved, bounded);
        drop(state);
        self.freed.notify_waiters();
    }
}

impl Drop for PartPermit {
    fn drop(&mut self) {
        self.0.state().in_flight -= 1;
        self.0.freed.notify_one();
    }
}

/// The search for the smallest limit that the link needs. Pure.
#[derive(Debug)]
struct Search {
    limit: usize,
    /// When the last sample ended, and the bytes moved by then.
    sampled: Instant,
    moved: u64,
    /// The next sample is dropped: the limit has just changed.
    fresh: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Nothing is known of this limit.
    Start,
    /// Another limit than `from`, which moved `rate` bytes per second, is tried.
    Try { from: usize, rate: f64 },
    /// The limit is kept until then; `down` says what is tried next.
    Hold { until: Instant, down: bool },
}

impl Search {
    fn new(now: Instant) -> Self {
        Self { limit: MIN, sampled: now, moved: 0, fresh: true, phase: Phase::Start }
    }

    fn sample(&mut self, now: Instant, moved: u64, bounded: bool) {
        let seconds = now.duration_since(self.sampled).as_secs_f64();
        let rate = moved.saturating_sub(self.moved) as f64 / seconds.max(1e-9);
        (self.sampled, self.moved) = (now, moved);
        if std::mem::take(&mut self.fresh) || !bounded {
            return;
        }
        match self.phase {
            Phase::Start => self.attempt((self.limit * 2).min(MAX), rate),
            Phase::Try { from, rate: before } if self.limit > from => match rate >= before * GAIN {
                true if self.limit < MAX => self.attempt((self.limit * 2).min(MAX), rate),
                true => self.hold(self.limit, now, true),
                false => self.hold(from, now, false),
            },
            Phase::Try { from, rate: before } => match rate >= before * LOSS {
                true => self.hold(self.limit, now, true),
                false => self.hold(from, now, false),
            },
            Phase::Hold { until, .. } if now < until => {}
            Phase::Hold { down, .. } => {
                let other = if down { self.limit / 2 } else { self.limit * 2 };
                match other {
                    MIN..=MAX => self.attempt(other, rate),
                    _ => self.hold(self.limit, now, !down),
                }
            }
        }
    }

    fn attempt(&mut self, limit: usize, rate: f64) {
        self.phase = Phase::Try { from: self.limit, rate };
        (self.limit, self.fresh) = (limit, true);
    }

    /// Keeps `limit`; `down` says which direction is tried next.
    fn hold(&mut self, limit: usize, now: Instant, down: bool) {
        self.fresh = limit != self.limit;
        self.limit = limit;
        self.phase = Phase::Hold { until: now + HOLD, down };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a search for `samples` on a link that moves `rate(limit)` bytes per second; gives the limits.
    fn run(samples: u32, rate: impl Fn(usize) -> f64) -> Vec<usize> {
        let begin = Instant::now();
        let mut search = Search::new(begin);
        let (mut moved, mut limits) = (0.0, vec![]);
        for i in 1..=samples {
            moved += rate(search.limit) * SAMPLE.as_secs_f64();
            search.sample(begin + SAMPLE * i, moved as u64, true);
            limits.push(search.limit);
        }
        limits
    }

    #[test]
    fn limit_grows_while_the_link_has_room() {
        assert_eq!(run(12, |n| n as f64 * 1e6).last(), Some(&MAX));
    }

    #[test]
    fn limit_stays_small_where_more_parts_gain_nothing() {
        let limits = run(100, |_| 1e8);
        assert_eq!(limits.last(), Some(&MIN));
        assert!(limits.iter().filter(|n| **n > MIN).count() <= 4, "{limits:?}");
    }

    #[test]
    fn limit_stops_where_the_gain_stops() {
        assert_eq!(run(60, |n| n.min(8) as f64 * 1e6).last(), Some(&8));
    }

    #[test]
    fn limit_falls_when_the_link_becomes_slow() {
        let begin = Instant::now();
        let mut search = Search::new(begin);
        let mut moved = 0.0;
        for i in 1..=1000 {
            moved += if i < 40 { search.limit as f64 * 1e6 } else { 1e6 } * SAMPLE.as_secs_f64();
            search.sample(begin + SAMPLE * i, moved as u64, true);
        }
        assert!(search.limit <= 4, "{search:?}");
    }

    #[test]
    fn limit_that_is_not_reached_is_not_changed() {
        let begin = Instant::now();
        let mut search = Search::new(begin);
        for i in 1..=100 {
            search.sample(begin + SAMPLE * i, u64::from(i) * 1000, false);
        }
        assert_eq!(search.limit, MIN);
    }

    #[tokio::test]
    async fn permit_is_released_when_dropped() {
        let limit = PartsLimit::new(Instant::now());
        let held: Vec<_> = std::iter::from_fn(|| limit.try_acquire()).collect();
        assert_eq!(held.len(), MIN);
        drop(held);
        assert!(limit.try_acquire().is_some());
    }
}
