//! Which parts of large objects may still end after a stop.
//!
//! Parts that a stop drops are read again. After a stop all go on for [`LOOK`]; what passes then tells the rate. Those that
//! need the least then have the whole rate for themselves: the others are dropped as soon as they cannot end by the
//! deadline beside them. The choice is made again at each look.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two looks at how far parts are.
const LOOK: Duration = Duration::from_millis(50);

/// Before this nothing is dropped.
const SURE: Duration = Duration::from_millis(150);

/// Parts that are under way.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    parts: Mutex<HashMap<u64, Part>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Part {
    len: u64,
    passed: Arc<AtomicU64>,
    dropped: CancellationToken,
}

/// A part's place among those under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    all: Arc<UnderWay>,
    id: u64,
    /// Bytes of it that have passed.
    pub(crate) passed: Arc<AtomicU64>,
    /// It cannot end in time.
    pub(crate) dropped: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.parts().remove(&self.id);
    }
}

impl UnderWay {
    fn parts(&self) -> MutexGuard<'_, HashMap<u64, Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part of `len` bytes begins.
    pub(crate) fn begin(self: &Arc<Self>, len: u64) -> Place {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (passed, dropped) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let part = Part { len, passed: passed.clone(), dropped: dropped.clone() };
        self.parts().insert(id, part);
        Place { all: self.clone(), id, passed, dropped }
    }

    fn left(&self) -> Vec<(u64, u64)> {
        let left = |part: &Part| part.len.saturating_sub(part.passed.load(Ordering::Relaxed));
        self.parts().iter().map(|(id, part)| (*id, left(part))).collect()
    }

    /// After a stop: drops what cannot end by `deadline`, until nothing is left.
    pub(crate) async fn finish(&self, deadline: Instant) {
        let mut before: HashMap<u64, u64> = self.left().into_iter().collect();
        let (began, mut moved_in_all) = (Instant::now(), 0u64);
        while !before.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
            let (now, left) = (Instant::now(), self.left());
            // A part that has ended meanwhile has passed all that it had left.
            let ended: u64 =
                before.iter().filter(|(id, _)| left.iter().all(|(l, _)| l != *id)).map(|(_, n)| n).sum();
            let moved: u64 = left.iter().map(|(id, n)| before.get(id).unwrap_or(n).saturating_sub(*n)).sum();
            moved_in_all += ended + moved;
            let rate = moved_in_all as f64 / (now - began).as_secs_f64();
            let budget = rate * deadline.saturating_duration_since(now).as_secs_f64();
            // A short time says little about the rate.
            if now - began >= SURE {
                for id in too_far(left.clone(), budget).into_iter().skip(usize::from(moved_in_all == 0)) {
                    if let Some(part) = self.parts().get(&id) {
                        part.dropped.cancel();
                    }
                }
            }
            before = left.into_iter().collect();
        }
    }
}

/// Parts that do not fit when `budget` bytes still pass, those with the least left first.
fn too_far(mut left: Vec<(u64, u64)>, budget: f64) -> Vec<u64> {
    left.sort_by_key(|(_, n)| *n);
    let mut sum = 0.0;
    left.into_iter()
        .filter(|(_, n)| {
            sum += *n as f64;
            sum > budget
        })
        .map(|(id, _)| id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_with_the_least_left_end_and_the_others_are_dropped() {
        let left = vec![(1, 100), (2, 10), (3, 50), (4, 0)];
        assert_eq!(too_far(left.clone(), 60.0), [1]);
        assert_eq!(too_far(left.clone(), 59.0), [3, 1]);
        assert_eq!(too_far(left.clone(), 1000.0), [0u64; 0]);
        assert_eq!(too_far(left, 0.0), [2, 3, 1], "what has passed completely waits for its answer");
    }

    #[tokio::test(start_paused = true)]
    async fn c13_what_can_end_by_the_deadline_ends() {
        let all = Arc::new(UnderWay::default());
        // 1 MB/s for all together; 700 kB are left, and half a second.
        let near: Vec<Place> = (0..2).map(|_| all.begin(100_000)).collect();
        let far = all.begin(500_000);
        let deadline = Instant::now() + Duration::from_millis(500);
        let moving = async {
            let mut near = near;
            while !near.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let sharing = near.len() as u64 + u64::from(!far.dropped.is_cancelled());
                for place in near.iter().chain([&far]) {
                    place.passed.fetch_add(10_000 / sharing, Ordering::Relaxed);
                }
                assert!(near.iter().all(|place| !place.dropped.is_cancelled()));
                near.retain(|place| place.passed.load(Ordering::Relaxed) < 100_000);
            }
            assert!(far.dropped.is_cancelled(), "the others had the rate for themselves");
            drop(far);
        };
        tokio::join!(all.finish(deadline), moving);
        assert!(all.left().is_empty());
    }
}
