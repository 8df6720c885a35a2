//! Pure: how long a migration is tried again.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use flow_control::backoff::Backoff;

/// What follows a lost connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReconnectPolicy {
    /// It is tried again for a while, and given up when nothing moves.
    #[default]
    Limited,
    /// It is tried again for as long as it takes.
    Always,
    /// It is given up at once.
    Never,
}

/// The same, to be changed while it runs; in force with the next loss.
#[derive(Debug, Default)]
pub struct Reconnect(AtomicU8);

impl Reconnect {
    /// Begins so.
    pub fn new(policy: ReconnectPolicy) -> Self {
        let this = Self::default();
        this.set(policy);
        this
    }

    /// Changes it.
    pub fn set(&self, policy: ReconnectPolicy) {
        self.0.store(policy as u8, Ordering::Relaxed);
    }

    /// It is tried again for as long as it takes.
    pub fn is_always(&self) -> bool {
        self.get() == ReconnectPolicy::Always
    }

    fn get(&self) -> ReconnectPolicy {
        match self.0.load(Ordering::Relaxed) {
            1 => ReconnectPolicy::Always,
            2 => ReconnectPolicy::Never,
            _ => ReconnectPolicy::Limited,
        }
    }
}

/// The longest pause between attempts that go on for ever.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// What is known of the attempts so far.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    /// Both ends were reached once. An end that was never reached is more likely a wrong address.
    was_connected: bool,
    /// How far the stream was applied when an attempt last got further.
    applied: u64,
    /// Attempts since then, and when the first of them failed.
    failed: u32,
    since: Duration,
}

impl RetryBudget {
    /// The pause behind an attempt that failed; none when it was the last. `applied`: how far the stream is; an attempt
    /// that got further renews the budget, one that only connected does not. `is_transient`: the server answers that it
    /// cannot for now, which is waited out. `now` is the time since the beginning.
    pub(crate) fn next_delay(
        &mut self,
        was_connected: bool,
        applied: u64,
        is_transient: bool,
        reconnect: &Reconnect,
        backoff: &Backoff,
        now: Duration,
        jitter: f64,
    ) -> Option<Duration> {
        self.was_connected |= was_connected;
        if self.applied != applied || self.failed == 0 {
            (self.applied, self.failed, self.since) = (applied, 0, now);
        }
        self.failed += 1;
        let policy = match reconnect.get() {
            ReconnectPolicy::Limited if is_transient && self.was_connected => ReconnectPolicy::Always,
            policy => policy,
        };
        match policy {
            ReconnectPolicy::Never => None,
            ReconnectPolicy::Always => {
                let doubled = Duration::from_secs(1 << (self.failed - 1).min(5)).min(RETRY_DELAY_MAX);
                Some(doubled.mul_f64(0.5 + jitter / 2.0))
            }
            ReconnectPolicy::Limited => {
                let delay = backoff.delay(self.failed, now.saturating_sub(self.since), jitter);
                delay.filter(|_| self.was_connected)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_progress_resets_the_reconnect_limit() {
        let (mut budget, backoff) = (RetryBudget::default(), Backoff::default());
        let reconnect = Reconnect::default();
        let mut after = |was_connected, applied| {
            budget.next_delay(was_connected, applied, false, &reconnect, &backoff, Duration::ZERO, 1.0)
        };
        assert_eq!(after(false, 0), None, "what was never reached is not waited for");
        let first = after(true, 5).unwrap();
        let waited = (0..100).take_while(|_| after(true, 5).is_some()).count();
        assert!(waited < 12, "connecting alone does not go on for ever: {waited}");
        assert_eq!(after(false, 9), Some(first));
        reconnect.set(ReconnectPolicy::Never);
        assert_eq!(after(true, 10), None);
        reconnect.set(ReconnectPolicy::Always);
        assert!((0..1000).all(|_| after(false, 10).is_some_and(|d| d <= RETRY_DELAY_MAX)));
    }
}
