//! Pure: how long a migration is tried again.

use std::time::Duration;

use pace::backoff::Backoff;

/// What is known of the attempts so far.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Both ends were there once; what was never reached is looked at by a person.
    reached: bool,
    /// How far the stream was applied when an attempt last got further.
    applied: u64,
    /// Attempts since then, and when the first of them failed.
    failed: u32,
    since: Duration,
}

impl Patience {
    /// The pause behind an attempt that failed; none when it was the last. `applied`: how far the stream is; an attempt
    /// that got further begins the patience anew, one that only connected does not. `now` is the time since the beginning.
    pub(crate) fn after(
        &mut self,
        reached: bool,
        applied: u64,
        backoff: &Backoff,
        now: Duration,
        jitter: f64,
    ) -> Option<Duration> {
        self.reached |= reached;
        if self.applied != applied || self.failed == 0 {
            (self.applied, self.failed, self.since) = (applied, 0, now);
        }
        self.failed += 1;
        let delay = backoff.delay(self.failed, now.saturating_sub(self.since), jitter);
        delay.filter(|_| self.reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_progress_renews_patience() {
        let (mut patience, backoff) = (Patience::default(), Backoff::default());
        let mut after = |reached, applied| patience.after(reached, applied, &backoff, Duration::ZERO, 1.0);
        assert_eq!(after(false, 0), None, "what was never reached is not waited for");
        let first = after(true, 5).unwrap();
        let waited = (0..100).take_while(|_| after(true, 5).is_some()).count();
        assert!(waited < 12, "connecting alone does not go on for ever: {waited}");
        assert_eq!(after(false, 9), Some(first));
    }
}
