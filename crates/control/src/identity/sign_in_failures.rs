//! Failures in a row by caller: after six, five minutes of silence, so that passwords cannot be guessed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

use flow_control::caller_limit::caller_of;
use ring::digest;

/// Failed sign-ins that lock an account for one address.
const MAX_FAILURES: u32 = 6;
/// Duration of a lock.
const LOCK_MS: i64 = 5 * 60 * 1000;
/// Callers remembered, about 60 bytes each; beyond that the oldest that is not locked is forgotten.
const MAX_CALLERS: usize = 10_000;
/// Longest name or id of a user or access key; longer ones are nobody's and are refused before anything else.
pub const NAME_MAX: usize = 255;

/// A hash of the account and the address it was used from.
pub(super) type Caller = ([u8; 16], Option<IpAddr>);

pub(super) fn caller(account: &str, from: Option<IpAddr>) -> Caller {
    let hash = digest::digest(&digest::SHA256, account.as_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hash.as_ref()[..16]);
    (short, from.map(caller_of))
}

/// Counts by (account, address), so that nobody can lock out somebody else. An account has one name here, however its
/// user writes it.
#[derive(Debug, Default)]
pub struct SignInFailures {
    callers: Mutex<FailuresByCaller>,
}

#[derive(Debug, Default)]
struct FailuresByCaller {
    by: HashMap<Caller, Failures>,
    /// When those that time has ended were last taken out, milliseconds.
    swept: i64,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    at: i64,
}

impl Failures {
    /// A clock that is set back does not prolong it.
    fn is_over(self, now: i64) -> bool {
        !(0..LOCK_MS).contains(&(now - self.at))
    }
}

impl FailuresByCaller {
    /// Makes room for one more, so that there are never more than [`MAX_REMEMBERED`].
    fn make_room(&mut self, now: i64) {
        if self.by.len() >= MAX_CALLERS || !(0..LOCK_MS).contains(&(now - self.swept)) {
            self.by.retain(|_, failures| !failures.is_over(now));
            self.swept = now;
        }
        if self.by.len() >= MAX_CALLERS {
            // A locked account stays locked: a flood of other names must not unlock it.
            let oldest =
                self.by.iter().min_by_key(|(_, f)| (f.count >= MAX_FAILURES, f.at)).map(|(who, _)| *who);
            if let Some(oldest) = oldest {
                self.by.remove(&oldest);
            }
        }
    }
}

impl SignInFailures {
    fn callers(&self) -> std::sync::MutexGuard<'_, FailuresByCaller> {
        self.callers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// True while this caller has to wait.
    pub fn is_locked(&self, account: &str, from: Option<IpAddr>, now: i64) -> bool {
        let found = self.callers().by.get(&caller(account, from)).copied();
        found.is_some_and(|f| f.count >= MAX_FAILURES && !f.is_over(now))
    }

    /// Notes a failure.
    pub fn failed(&self, account: &str, from: Option<IpAddr>, now: i64) {
        let who = caller(account, from);
        let mut seen = self.callers();
        let before = seen.by.get(&who).filter(|f| !f.is_over(now)).map_or(0, |f| f.count);
        if !seen.by.contains_key(&who) {
            seen.make_room(now);
        }
        seen.by.insert(who, Failures { count: before.saturating_add(1), at: now });
    }

    /// Notes a success: the row is broken.
    pub fn succeeded(&self, account: &str, from: Option<IpAddr>) {
        self.callers().by.remove(&caller(account, from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_failed_sign_ins_lock_one_caller_for_5_minutes() {
        let count = SignInFailures::default();
        let (a, b) = ("127.0.0.1".parse().ok(), "127.0.0.2".parse().ok());
        for _ in 0..MAX_FAILURES {
            assert!(!count.is_locked("AK", a, 0));
            count.failed("AK", a, 0);
        }
        assert!(count.is_locked("AK", a, 1) && !count.is_locked("AK", b, 1));
        assert!(!count.is_locked("AK", a, LOCK_MS));
        count.succeeded("AK", a);
        assert!(!count.is_locked("AK", a, 1));
    }

    #[test]
    fn sec_f01_failed_names_are_stored_as_hashes_and_expire() {
        let count = SignInFailures::default();
        let long = "n".repeat(1 << 20);
        count.failed(&long, None, 0);
        assert!(size_of::<(Caller, Failures)>() <= 64, "no name is kept");
        for i in 0..100 {
            count.failed(&format!("{i}{long}"), None, 0);
        }
        assert_eq!(count.callers().by.len(), 101);
        count.failed("other", None, LOCK_MS);
        assert_eq!(count.callers().by.len(), 1, "the others have ended");
    }

    #[test]
    fn sec_f01_many_failed_names_do_not_unlock_a_locked_one() {
        let count = SignInFailures::default();
        for _ in 0..MAX_FAILURES {
            count.failed("bob", None, 0);
        }
        for i in 0..MAX_CALLERS + 100 {
            count.failed(&i.to_string(), None, 1);
        }
        assert!(count.is_locked("bob", None, 2));
        assert_eq!(count.callers().by.len(), MAX_CALLERS);
    }
}
