//! How many refusals are written to the audit trail: every client can cause them, and each is a write.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

/// In a minute, of one address.
const MAX_PER_ADDRESS: u32 = 60;
/// In a minute, of all addresses.
const MAX_IN_ALL: u32 = 600;
const MINUTE_MS: i64 = 60_000;

#[derive(Debug, Default)]
struct Minute {
    began: i64,
    all: u32,
    by: HashMap<Option<IpAddr>, u32>,
    not_written: u64,
}

/// Counts of this minute.
#[derive(Debug, Default)]
pub struct AuditLimit(Mutex<Minute>);

impl AuditLimit {
    /// None if this line is not written; else how many lines before it were not written.
    pub fn admit(&self, from: Option<IpAddr>, now: i64) -> Option<u64> {
        let mut minute = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !(0..MINUTE_MS).contains(&(now - minute.began)) {
            *minute = Minute { began: now, not_written: minute.not_written, ..Minute::default() };
        }
        // An address is remembered only while there is room for its line.
        if minute.all >= MAX_IN_ALL || minute.by.get(&from).is_some_and(|n| *n >= MAX_PER_ADDRESS) {
            minute.not_written += 1;
            return None;
        }
        minute.all += 1;
        *minute.by.entry(from).or_default() += 1;
        Some(std::mem::take(&mut minute.not_written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_f26_rejected_requests_are_audited_up_to_a_limit_and_then_counted() {
        let noted = AuditLimit::default();
        let (a, b) = ("10.0.0.1".parse().ok(), "10.0.0.2".parse().ok());
        let written = (0..100).filter(|_| noted.admit(a, 5).is_some()).count();
        assert_eq!(written, MAX_PER_ADDRESS as usize);
        assert_eq!(noted.admit(b, 6), Some(40));
        assert_eq!(noted.admit(b, 7), Some(0));
        assert_eq!(noted.admit(a, 5 + MINUTE_MS), Some(0));
        for n in 0..1000u32 {
            noted.admit(Some(IpAddr::from(n.to_be_bytes())), 6 + MINUTE_MS);
        }
        assert_eq!(noted.0.lock().unwrap().all, MAX_IN_ALL);
    }
}
