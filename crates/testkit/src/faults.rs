//! Faults that a real server cannot be made to produce, drawn by a seed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedFault {
    /// 503 SlowDown before anything happens.
    SlowDown,
    /// 500 before anything happens.
    InternalError,
    /// The connection is cut before an answer.
    Reset,
    /// It happens, but the answer is lost.
    LoseAnswer,
    /// The body of an answer is cut in the middle.
    Truncate,
    /// One byte of the body of a request is another when it arrives.
    Flip,
}

/// A share of requests that fail.
#[derive(Debug)]
pub struct Faults {
    per_mille: AtomicU64,
    kinds: Vec<InjectedFault>,
    random: Mutex<fastrand::Rng>,
    /// How many were injected.
    pub injected: AtomicU64,
}

impl Faults {
    /// `per_mille` of 1000 requests fail with one of `kinds`.
    pub fn new(per_mille: u32, kinds: &[InjectedFault], seed: u64) -> Self {
        Self {
            per_mille: u64::from(per_mille).into(),
            kinds: kinds.to_vec(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            injected: AtomicU64::new(0),
        }
    }

    /// None at all.
    pub fn none() -> Self {
        Self::new(0, &[], 0)
    }

    /// Changes the share.
    pub fn set_per_mille(&self, per_mille: u32) {
        self.per_mille.store(per_mille.into(), Ordering::SeqCst);
    }

    pub(crate) fn draw(&self) -> Option<InjectedFault> {
        let share = self.per_mille.load(Ordering::SeqCst);
        if share == 0 || self.kinds.is_empty() {
            return None;
        }
        let mut random = self.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if random.u64(0..1000) >= share {
            return None;
        }
        self.injected.fetch_add(1, Ordering::SeqCst);
        let i = random.usize(0..self.kinds.len());
        Some(self.kinds[i])
    }
}
