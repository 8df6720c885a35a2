//! Time as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Tells the time of day.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch, UTC.
    fn now_ms(&self) -> i64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now_ms(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A clock that a test moves by hand.
#[derive(Clone, Debug, Default)]
pub struct MockClock(Arc<AtomicI64>);

impl MockClock {
    /// A clock that stands at `ms` since the epoch.
    pub fn new(ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(ms)))
    }

    /// Moves the clock forward.
    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for MockClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Another clock's time, as it was told last and went on since by this machine's monotonic clock. A step of the machine's
/// time of day does not show in it.
#[derive(Debug)]
pub struct FollowingClock {
    told: std::sync::Mutex<(i64, std::time::Instant)>,
}

impl FollowingClock {
    /// A clock that was told `ms` now.
    pub fn new(ms: i64) -> Self {
        Self { told: std::sync::Mutex::new((ms, std::time::Instant::now())) }
    }

    /// Takes over the time that was told.
    pub fn set(&self, ms: i64) {
        *self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            (ms, std::time::Instant::now());
    }
}

impl Clock for FollowingClock {
    fn now_ms(&self) -> i64 {
        let (ms, at) = *self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ms.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock, shared.
pub fn system() -> SharedClock {
    Arc::new(SystemClock)
}
