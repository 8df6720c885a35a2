//! Failures in a row by caller: after six, five minutes of silence, so that secrets cannot be guessed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

const ALLOWED: u32 = 6;
const LOCK_MS: i64 = 5 * 60 * 1000;
/// Callers remembered; beyond that the oldest are forgotten.
const REMEMBERED: usize = 10_000;

/// A name and the address it was used from.
type Caller = (String, Option<IpAddr>);

/// Counts by (name, address), so that nobody can lock out somebody else.
#[derive(Debug, Default)]
pub struct FailureCount {
    seen: Mutex<HashMap<Caller, (u32, i64)>>,
}

impl FailureCount {
    /// True while this caller has to wait.
    pub fn is_locked(&self, name: &str, from: Option<IpAddr>, now: i64) -> bool {
        let seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.get(&(name.to_owned(), from)).is_some_and(|(n, at)| *n >= ALLOWED && now - at < LOCK_MS)
    }

    /// Notes a failure.
    pub fn failed(&self, name: &str, from: Option<IpAddr>, now: i64) {
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.len() >= REMEMBERED {
            seen.retain(|_, (_, at)| now - *at < LOCK_MS);
            if seen.len() >= REMEMBERED {
                seen.clear();
            }
        }
        let entry = seen.entry((name.to_owned(), from)).or_insert((0, now));
        if now - entry.1 >= LOCK_MS {
            entry.0 = 0;
        }
        *entry = (entry.0 + 1, now);
    }

    /// Notes a success: the row is broken.
    pub fn succeeded(&self, name: &str, from: Option<IpAddr>) {
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !seen.is_empty() {
            seen.remove(&(name.to_owned(), from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_failures_lock_one_caller_for_five_minutes() {
        let count = FailureCount::default();
        let (a, b) = ("127.0.0.1".parse().ok(), "127.0.0.2".parse().ok());
        for _ in 0..ALLOWED {
            assert!(!count.is_locked("AK", a, 0));
            count.failed("AK", a, 0);
        }
        assert!(count.is_locked("AK", a, 1) && !count.is_locked("AK", b, 1));
        assert!(!count.is_locked("AK", a, LOCK_MS));
        count.succeeded("AK", a);
        assert!(!count.is_locked("AK", a, 1));
    }
}
