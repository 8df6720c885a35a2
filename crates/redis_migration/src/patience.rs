//! Pure: how long a migration is tried again.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use pace::backoff::Backoff;

/// What follows a lost connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Again {
    /// It is tried again for a while, and given up when nothing moves.
    #[default]
    Patiently,
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
    pub fn new(again: Again) -> Self {
        let this = Self::default();
        this.set(again);
        this
    }

    /// Changes it.
    pub fn set(&self, again: Again) {
        self.0.store(again as u8, Ordering::Relaxed);
    }

    /// It is tried again for as long as it takes.
    pub fn is_always(&self) -> bool {
        self.get() == Again::Always
    }

    fn get(&self) -> Again {
        match self.0.load(Ordering::Relaxed) {
            1 => Again::Always,
            2 => Again::Never,
            _ => Again::Patiently,
        }
    }
}

/// The longest pause between attempts that go on for ever.
const PAUSE_MAX: Duration = Duration::from_secs(30);

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
    /// that got further begins the patience anew, one that only connected does not. `lasts`: the server answers that it
    /// cannot for now, which is waited out. `now` is the time since the beginning.
    pub(crate) fn after(
        &mut self,
        reached: bool,
        applied: u64,
        lasts: bool,
        reconnect: &Reconnect,
        backoff: &Backoff,
        now: Duration,
        jitter: f64,
    ) -> Option<Duration> {
        self.reached |= reached;
        if self.applied != applied || self.failed == 0 {
            (self.applied, self.failed, self.since) = (applied, 0, now);
        }
        self.failed += 1;
        let again = match reconnect.get() {
            Again::Patiently if lasts && self.reached => Again::Always,
            again => again,
        };
        match again {
            Again::Never => None,
            Again::Always => {
                let doubled = Duration::from_secs(1 << (self.failed - 1).min(5)).min(PAUSE_MAX);
                Some(doubled.mul_f64(0.5 + jitter / 2.0))
            }
            Again::Patiently => {
                let delay = backoff.delay(self.failed, now.saturating_sub(self.since), jitter);
                delay.filter(|_| self.reached)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_progress_renews_patience() {
        let (mut patience, backoff) = (Patience::default(), Backoff::default());
        let reconnect = Reconnect::default();
        let mut after = |reached, applied| {
            patience.after(reached, applied, false, &reconnect, &backoff, Duration::ZERO, 1.0)
        };
        assert_eq!(after(false, 0), None, "what was never reached is not waited for");
        let first = after(true, 5).unwrap();
        let waited = (0..100).take_while(|_| after(true, 5).is_some()).count();
        assert!(waited < 12, "connecting alone does not go on for ever: {waited}");
        assert_eq!(after(false, 9), Some(first));
        reconnect.set(Again::Never);
        assert_eq!(after(true, 10), None);
        reconnect.set(Again::Always);
        assert!((0..1000).all(|_| after(false, 10).is_some_and(|d| d <= PAUSE_MAX)));
    }
}
