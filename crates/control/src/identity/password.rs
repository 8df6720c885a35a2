//! Checking passwords: few at once, since each takes 19 MiB and tens of milliseconds of a core by design.

use std::net::IpAddr;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordVerifier};

use super::password_queue::{Permit, PermitQueue};
use super::sign_in_failures::caller;

/// The permits to check passwords.
#[derive(Debug)]
pub struct PasswordQueue(Arc<PermitQueue>);

impl Default for PasswordQueue {
    fn default() -> Self {
        Self(PermitQueue::new(concurrent_checks()))
    }
}

/// Checks at once: half of the cores, so that others are answered meanwhile.
fn concurrent_checks() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// The right to check one password.
#[derive(Debug)]
pub struct PasswordPermit(Permit);

impl PasswordQueue {
    /// Waits for a permit; none when too many wait and this caller has no better right than they have.
    pub async fn acquire(&self, account: &str, from: IpAddr) -> Option<PasswordPermit> {
        self.0.acquire(caller(account, Some(from)), from).await.map(PasswordPermit)
    }

    /// Notes that the account has signed in from the address: from now on it waits in the reserve.
    pub fn signed_in(&self, account: &str, from: IpAddr) {
        self.0.remember(caller(account, Some(from)));
    }
}

impl PasswordPermit {
    /// As [`matches()`], on a thread that may block. A caller that disconnects keeps its permit until the check has ended.
    pub async fn matches(self, password: String, hash: Option<String>) -> bool {
        #[expect(clippy::disallowed_methods, reason = "bounded by the permit that is held")]
        let done = tokio::task::spawn_blocking(move || {
            let _permit = self.0;
            matches(&password, hash.as_deref())
        });
        done.await.unwrap_or(false)
    }
}

/// A hash that no password has, so that an unknown user costs as much as a known one.
const DUMMY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// True when the password is that of the hash; takes as long without a hash.
pub fn matches(password: &str, hash: Option<&str>) -> bool {
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(DUMMY_HASH)) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok() && hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_correct_password_matches() {
        let hash = config::template::hash_password("correct horse").unwrap();
        assert!(matches("correct horse", Some(&hash)));
        assert!(!matches("correct hors", Some(&hash)));
        assert!(!matches("", None));
    }
}
