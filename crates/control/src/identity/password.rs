//! Checking passwords: few at once, since each takes 19 MiB and tens of milliseconds of a core by design.

use std::net::IpAddr;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordVerifier};
use pace::shares::{Shares, party};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Callers that wait for their turn, and those of one address; others are told to come again.
const WAITING: u64 = 32;
const WAITING_EACH: u64 = 4;

/// The places where passwords are checked.
#[derive(Debug)]
pub struct Checks {
    turns: Arc<Semaphore>,
    waiting: Shares<IpAddr>,
}

impl Default for Checks {
    fn default() -> Self {
        Self::new(at_once())
    }
}

/// Checks at once: half of the cores, so that others are answered meanwhile.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// The right to check one password.
#[derive(Debug)]
pub struct Turn(OwnedSemaphorePermit);

impl Checks {
    fn new(at_once: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once)), waiting: Shares::new(WAITING, WAITING_EACH) }
    }

    /// Waits for a turn; none when too many wait already.
    pub async fn turn(&self, from: IpAddr) -> Option<Turn> {
        let _place = self.waiting.take(party(from), 1)?;
        self.turns.clone().acquire_owned().await.ok().map(Turn)
    }
}

impl Turn {
    /// As [`matches`], on a thread that may block. Whoever leaves meanwhile does not free the turn: the work goes on.
    pub async fn matches(self, password: String, hash: Option<String>) -> bool {
        #[expect(clippy::disallowed_methods, reason = "bounded by the turn that is held")]
        let done = tokio::task::spawn_blocking(move || {
            let _turn = self.0;
            matches(&password, hash.as_deref())
        });
        done.await.unwrap_or(false)
    }
}

/// A hash that no password has, so that an unknown user costs as much as a known one.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// True when the password is that of the hash; takes as long without a hash.
pub fn matches(password: &str, hash: Option<&str>) -> bool {
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(NOBODY)) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok() && hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_matches() {
        let hash = config::template::hash_password("correct horse").unwrap();
        assert!(matches("correct horse", Some(&hash)));
        assert!(!matches("correct hors", Some(&hash)));
        assert!(!matches("", None));
    }

    #[tokio::test]
    async fn sec_f11_few_check_few_wait_and_others_are_told() {
        let checks = Checks::new(2);
        let from = |i: u8| IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, i));
        let held = [checks.turn(from(1)).await.unwrap(), checks.turn(from(2)).await.unwrap()];
        let mut queue = tokio::task::JoinSet::new();
        let checks = Arc::new(checks);
        for i in 0..WAITING {
            let (checks, from) = (checks.clone(), from((i / WAITING_EACH) as u8));
            queue.spawn(async move { checks.turn(from).await.is_some() });
        }
        tokio::task::yield_now().await;
        assert!(checks.turn(from(99)).await.is_none(), "the queue is full");
        drop(held);
        while let Some(had) = queue.join_next().await {
            assert!(had.unwrap(), "whoever waited has had its turn");
        }
        let mut one = tokio::task::JoinSet::new();
        let held = [checks.turn(from(1)).await.unwrap(), checks.turn(from(2)).await.unwrap()];
        for _ in 0..=WAITING_EACH {
            let (checks, from) = (checks.clone(), from(7));
            one.spawn(async move { checks.turn(from).await.is_some() });
        }
        tokio::task::yield_now().await;
        drop(held);
        let had = one.join_all().await.into_iter().filter(|had| *had).count();
        assert_eq!(had as u64, WAITING_EACH, "one address does not fill the queue");
    }
}
