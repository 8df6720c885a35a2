//! How many requests one endpoint can take: found by trying, kept by listening.
//!
//! The limit starts low and rises by one for each answer while all of it is in use and answers stay quick
//! (the mean latency is below twice the best seen). The first complaint (503, 429, timeout) cuts it by a
//! third and ends the quick rise; after that it rises by one per full round of answers.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Bounds of a [`Limit`].
#[derive(Clone, Copy, Debug)]
pub struct LimitBounds {
    /// Requests in flight at the start.
    pub start: u32,
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// Answers that take no longer than this count as quick.
    pub quick: Duration,
}

/// A server on the same network answers within this time when it is not busy.
const QUICK_ANSWER: Duration = Duration::from_millis(1);
/// The kernel copies a small file within this time when it is not busy.
const QUICK_COPY: Duration = Duration::from_micros(200);
/// Most files that are copied at once: on network file systems many are better than few.
const LOCAL_MAX: u32 = 64;

impl LimitBounds {
    /// Adapting between 1 and 512, from 32.
    pub const ADAPTIVE: LimitBounds = LimitBounds { start: 32, min: 1, max: 512, quick: QUICK_ANSWER };

    /// Adapting, for copies between directories: they begin with four for each processor, since on local disks the
    /// processors do all the work.
    pub fn local() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let start = u32::try_from(4 * processors).unwrap_or(LOCAL_MAX).min(LOCAL_MAX);
        Self { start, min: 1, max: LOCAL_MAX, quick: QUICK_COPY }
    }

    /// At most `n`, still falling on complaints.
    pub fn at_most(n: u32) -> Self {
        Self { start: n.max(1), min: 1, max: n.max(1), quick: QUICK_ANSWER }
    }
}

#[derive(Debug)]
struct State {
    bounds: LimitBounds,
    limit: f64,
    in_flight: u32,
    quick_rise: bool,
    best: Option<Duration>,
    mean: Duration,
    last_cut: Option<Instant>,
}

/// A limit on requests in flight that adapts by answers (additive rise, multiplicative cut).
#[derive(Debug)]
pub struct Limit {
    state: Mutex<State>,
    freed: Notify,
}

/// The right to have one request in flight; dropped without a verdict it simply ends.
#[derive(Debug)]
pub struct Permit {
    limit: Arc<Limit>,
    since: Instant,
}

impl Limit {
    /// A limit within `bounds`.
    pub fn new(bounds: LimitBounds) -> Self {
        Self {
            state: Mutex::new(State {
                bounds,
                limit: f64::from(bounds.start),
                in_flight: 0,
                quick_rise: true,
                best: None,
                mean: Duration::ZERO,
                last_cut: None,
            }),
            freed: Notify::new(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Rises from its start again, unless requests are in flight. The connections of an earlier run are closed: opening
    /// hundreds at once overflows the accept queue of a server, and the kernel tries again only after a second.
    pub fn restart(&self) {
        let mut state = self.state();
        if state.in_flight == 0 {
            state.limit = state.limit.min(f64::from(state.bounds.start));
            state.quick_rise = true;
        }
    }

    /// The limit now.
    pub fn current(&self) -> u32 {
        self.state().limit as u32
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> u32 {
        self.state().in_flight
    }

    /// A place, if one is free.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let mut s = self.state();
        if f64::from(s.in_flight) >= s.limit.floor().max(1.0) {
            return None;
        }
        s.in_flight += 1;
        drop(s);
        Some(Permit { limit: self.clone(), since: Instant::now() })
    }

    /// Waits for a place.
    pub async fn acquire(self: &Arc<Self>) -> Permit {
        loop {
            let freed = self.freed.notified();
            if let Some(permit) = self.try_acquire() {
                return permit;
            }
            freed.await;
        }
    }

    /// True when places are free: more work could run.
    pub fn has_room(&self) -> bool {
        let s = self.state();
        f64::from(s.in_flight) < s.limit.floor()
    }

    /// The endpoint complained: cut, at most once per mean answer time.
    pub fn throttled(&self) {
        let mut s = self.state();
        let now = Instant::now();
        let pause = s.mean.max(Duration::from_millis(100));
        if s.last_cut.is_some_and(|t| now.duration_since(t) < pause) {
            return;
        }
        s.last_cut = Some(now);
        s.quick_rise = false;
        s.limit = (s.limit * 0.67).max(f64::from(s.bounds.min));
    }
}

impl Permit {
    /// The answer came and was good: lets the limit rise when it was the bottleneck.
    pub fn succeeded(self) {
        let took = self.since.elapsed();
        let mut s = self.limit.state();
        s.mean = if s.mean.is_zero() { took } else { (s.mean * 15 + took) / 16 };
        let best = s.best.map_or(took, |b| b.min(took)).max(s.bounds.quick);
        s.best = Some(best);
        let saturated = f64::from(s.in_flight) + 1.0 >= s.limit;
        if saturated && s.mean < best * 2 {
            let step = if s.quick_rise { 1.0 } else { 1.0 / s.limit };
            s.limit = (s.limit + step).min(f64::from(s.bounds.max));
            drop(s);
            self.limit.freed.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.state().in_flight -= 1;
        self.limit.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn concurrency_limit_falls_on_throttling_and_rises_on_success() {
        let limit = Arc::new(Limit::new(LimitBounds { start: 2, max: 8, ..LimitBounds::ADAPTIVE }));
        let (a, b) = (limit.acquire().await, limit.acquire().await);
        assert_eq!(limit.in_flight(), 2);
        a.succeeded();
        b.succeeded();
        assert!(limit.current() >= 3);
        assert_eq!(limit.in_flight(), 0);
        let before = limit.current();
        limit.throttled();
        assert!(limit.current() < before && limit.current() >= 1);
    }

    #[tokio::test]
    async fn restarted_limit_rises_from_its_start_again() {
        let limit = Arc::new(Limit::new(LimitBounds { start: 2, max: 8, ..LimitBounds::ADAPTIVE }));
        for _ in 0..4 {
            let held = [limit.acquire().await, limit.acquire().await];
            held.into_iter().for_each(Permit::succeeded);
        }
        let risen = limit.current();
        assert!(risen > 2);
        let held = limit.acquire().await;
        limit.restart();
        assert_eq!(limit.current(), risen, "another run uses it");
        drop(held);
        limit.restart();
        assert_eq!(limit.current(), 2);
    }

    #[tokio::test]
    async fn waiter_is_woken_by_a_free_slot() {
        let limit = Arc::new(Limit::new(LimitBounds::at_most(1)));
        let held = limit.acquire().await;
        let waiter = tokio::spawn({
            let limit = limit.clone();
            async move { drop(limit.acquire().await) }
        });
        tokio::task::yield_now().await;
        drop(held);
        waiter.await.expect("woken");
    }
}
