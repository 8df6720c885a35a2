//! Permits that callers wait for in turn: the next free one goes to the caller that was served longest ago, however many
//! requests another caller has waiting.
//!
//! Why not `tokio::sync::Semaphore`: it serves waiters in the order in which they came, so one caller with many requests
//! delays all others by the time of all of them.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// What is shared; clones share the same.
pub struct FairQueue<K: Eq + Hash + Clone>(Arc<Shared<K>>);

struct Shared<K: Eq + Hash + Clone> {
    total: usize,
    per_caller: usize,
    state: Mutex<State<K>>,
}

struct State<K: Eq + Hash + Clone> {
    held: usize,
    held_by: HashMap<K, usize>,
    /// Callers with waiters, in the order in which they are served.
    order: VecDeque<K>,
    waiting: HashMap<K, VecDeque<oneshot::Sender<FairPermit<K>>>>,
}

/// A permit; released when it is dropped.
pub struct FairPermit<K: Eq + Hash + Clone> {
    /// None: it was not handed over, and is released already.
    of: Option<(Arc<Shared<K>>, K)>,
}

impl<K: Eq + Hash + Clone> Clone for FairQueue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Eq + Hash + Clone> std::fmt::Debug for FairQueue<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FairQueue({} of {})", self.0.state().held, self.0.total)
    }
}

impl<K: Eq + Hash + Clone> std::fmt::Debug for FairPermit<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FairPermit")
    }
}

impl<K: Eq + Hash + Clone> FairQueue<K> {
    /// `total` permits, of which one caller may hold `per_caller`.
    pub fn new(total: usize, per_caller: usize) -> Self {
        let state =
            State { held: 0, held_by: HashMap::new(), order: VecDeque::new(), waiting: HashMap::new() };
        Self(Arc::new(Shared { total, per_caller, state: Mutex::new(state) }))
    }

    /// Waits for a permit.
    pub async fn acquire(&self, caller: K) -> FairPermit<K> {
        let (permit, waiter) = oneshot::channel();
        {
            let mut state = self.0.state();
            let queue = state.waiting.entry(caller.clone()).or_default();
            queue.push_back(permit);
            if queue.len() == 1 {
                state.order.push_back(caller);
            }
            self.0.hand_out(&mut state);
        }
        // The sender is kept in the queue until it has sent.
        waiter.await.unwrap_or(FairPermit { of: None })
    }
}

impl<K: Eq + Hash + Clone> Shared<K> {
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free permits to waiting callers, one each in turn.
    fn hand_out(self: &Arc<Self>, state: &mut State<K>) {
        while state.held < self.total {
            let may = |caller: &K| state.held_by.get(caller).copied().unwrap_or(0) < self.per_caller;
            let Some(at) = state.order.iter().position(may) else { return };
            let Some(caller) = state.order.remove(at) else { return };
            let Some(queue) = state.waiting.get_mut(&caller) else { continue };
            let waiter = queue.pop_front();
            match queue.is_empty() {
                true => drop(state.waiting.remove(&caller)),
                false => state.order.push_back(caller.clone()),
            }
            let Some(waiter) = waiter else { continue };
            let permit = FairPermit { of: Some((self.clone(), caller.clone())) };
            match waiter.send(permit) {
                Ok(()) => {
                    state.held += 1;
                    *state.held_by.entry(caller).or_default() += 1;
                }
                // Nobody waits any more: it is not released, since it was not counted.
                Err(mut unused) => unused.of = None,
            }
        }
    }
}

impl<K: Eq + Hash + Clone> Drop for FairPermit<K> {
    fn drop(&mut self) {
        let Some((shared, caller)) = self.of.take() else { return };
        let mut state = shared.state();
        state.held = state.held.saturating_sub(1);
        let left = state.held_by.get_mut(&caller).map(|n| {
            *n = n.saturating_sub(1);
            *n
        });
        if left == Some(0) {
            state.held_by.remove(&caller);
        }
        shared.hand_out(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn h3_caller_with_many_waiters_delays_another_by_one_turn() {
        let queue = FairQueue::new(1, 1);
        let first = queue.acquire("many").await;
        let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
        for caller in ["many"; 20].into_iter().chain(["few"]) {
            let (queue, served) = (queue.clone(), served.clone());
            tokio::spawn(async move {
                let permit = queue.acquire(caller).await;
                served.send(caller).unwrap();
                drop(permit);
            });
            tokio::task::yield_now().await;
        }
        drop(first);
        let turns = [order.recv().await.unwrap(), order.recv().await.unwrap()];
        assert!(turns.contains(&"few"), "{turns:?}");
    }

    #[tokio::test]
    async fn h3_permits_are_bounded_and_released_by_waiters_that_leave() {
        let queue = FairQueue::new(3, 2);
        let held = [queue.acquire("a").await, queue.acquire("a").await];
        let waits = tokio::spawn({
            let queue = queue.clone();
            async move { queue.acquire("a").await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished(), "two for one caller");
        let other = queue.acquire("b").await;
        waits.abort();
        assert!(waits.await.is_err());
        drop((held, other));
        let all = [queue.acquire("a").await, queue.acquire("a").await];
        let last = queue.acquire("b").await;
        drop((all, last));
        let state = queue.0.state();
        assert!(
            state.held == 0 && state.held_by.is_empty() && state.waiting.is_empty() && state.order.is_empty()
        );
    }
}
