//! Shared budgets: bytes of memory held by buffers, and bytes per second on the wire.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

const UNIT: u64 = 4096;

/// A bound on the memory of all engine buffers together.
#[derive(Debug)]
pub struct Memory {
    pages: Semaphore,
    total: u32,
}

impl Memory {
    /// A budget of `bytes`, at least 1 MiB.
    pub fn new(bytes: u64) -> Self {
        let pages = u32::try_from((bytes / UNIT).clamp(256, u64::from(u32::MAX) >> 4)).unwrap_or(256);
        Self { pages: Semaphore::new(pages as usize), total: pages }
    }

    /// Waits until `bytes` are free and holds them; more than the whole budget counts as the whole.
    pub async fn hold(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let pages = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.total);
        self.pages.acquire_many(pages).await.ok()
    }
}

/// A limit in bytes per second that may change at any time; zero means none.
#[derive(Debug)]
pub struct Bandwidth {
    rate: AtomicU64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    free: f64,
    at: Instant,
}

impl Bandwidth {
    /// A limit of `rate` bytes per second.
    pub fn new(rate: u64) -> Self {
        Self { rate: AtomicU64::new(rate), bucket: Mutex::new(Bucket { free: 0.0, at: Instant::now() }) }
    }

    /// Changes the limit; in force with the next chunk.
    pub fn set(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// The limit now, bytes per second.
    pub fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// Takes `bytes` and says how long the taker has to wait before it moves more; never over a second, so
    /// that a changed limit is felt at once. A quarter second's worth may go in a burst.
    pub fn take(&self, bytes: u64) -> Duration {
        let rate = self.rate();
        if rate == 0 {
            return Duration::ZERO;
        }
        let mut b = self.bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        let refill = now.duration_since(b.at).as_secs_f64() * rate as f64;
        b.at = now;
        b.free = (b.free + refill).min(rate as f64 / 4.0) - bytes as f64;
        if b.free >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64((-b.free / rate as f64).min(1.0)) }
    }

    /// Takes `bytes` and waits until more may move; without a limit it does not wait at all.
    pub async fn pass(&self, bytes: u64) {
        let wait = self.take(bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_is_bounded_and_given_back() {
        let m = Memory::new(1 << 20);
        let held = m.hold(1 << 30).await.expect("the whole budget");
        assert!(m.pages.try_acquire().is_err());
        drop(held);
        assert!(m.pages.try_acquire().is_ok());
    }

    #[test]
    fn no_rate_means_no_wait_and_a_low_rate_means_a_wait() {
        let b = Bandwidth::new(0);
        assert_eq!(b.take(1 << 40), Duration::ZERO);
        b.set(1000);
        assert!(b.take(10_000) > Duration::from_millis(500));
    }
}
