//! How long to wait before the next attempt.

use std::time::Duration;

/// Two bounds on trying again: a count and a total time.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// First delay.
    pub base: Duration,
    /// No single delay is longer.
    pub cap: Duration,
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// No new attempt starts after this long.
    pub max_elapsed: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(15),
            attempts: 12,
            max_elapsed: Duration::from_secs(300),
        }
    }
}

impl Backoff {
    /// The delay before attempt `attempt + 1` (counted from 1), or none when the bounds are spent.
    /// `jitter` is a random number in `0.0..1.0`; the delay lies between half and all of the exponential.
    pub fn delay(&self, attempt: u32, spent: Duration, jitter: f64) -> Option<Duration> {
        if attempt >= self.attempts || spent >= self.max_elapsed {
            return None;
        }
        let exponential = self.base.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(self.cap);
        Some(exponential.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_delays_grow_to_a_limit_and_end() {
        let b = Backoff::default();
        let mut last = Duration::ZERO;
        for attempt in 1..b.attempts {
            let d = b.delay(attempt, Duration::ZERO, 1.0).expect("within the bound");
            assert!(d >= last && d <= b.cap);
            last = d;
        }
        assert_eq!(b.delay(b.attempts, Duration::ZERO, 0.0), None);
        assert_eq!(b.delay(1, b.max_elapsed, 0.0), None);
    }
}
