//! The queue for password checks. Permits are shared fairly between networks, and within a network between addresses. An
//! account that signed in before from the same address waits in a reserve, which unknown callers cannot fill.
//!
//! A caller of a network that was not served lately waits at most one check for each other network that waits. The two
//! queues are served alternately, so neither starves the other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flow_control::caller_limit::{caller_of, network};
use tokio::sync::oneshot;

use super::sign_in_failures::Caller;

/// Unknown callers that wait, in total.
const MAX_WAITING: usize = 32;
/// Unknown callers of one address that wait.
const MAX_WAITING_PER_ADDRESS: usize = 4;
/// Known callers that wait in the reserve, in total.
const MAX_RESERVED: usize = 32;
/// Known callers of one account at one address that wait.
const MAX_RESERVED_PER_ADDRESS: usize = 2;
/// Networks and addresses whose last check is remembered, and callers that signed in; about 50 bytes each.
const MAX_REMEMBERED: usize = 4096;

/// The permits, and who waits for one.
#[derive(Debug)]
pub(super) struct PermitQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: usize,
    last_id: u64,
    unknown: Vec<Waiter>,
    reserve: Vec<Waiter>,
    /// The queue that was served last, so that the other one is next.
    served_reserve: bool,
    /// The number of the last check by network and by address.
    served: HashMap<Party, u64>,
    known: HashSet<Caller>,
    /// `known` in the order in which it is forgotten.
    known_order: VecDeque<Caller>,
}

/// What checks are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Party {
    Network(IpAddr),
    Address(IpAddr),
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    caller: Caller,
    network: IpAddr,
    address: IpAddr,
    reply: oneshot::Sender<Permit>,
}

/// One check; the next caller is served when it is dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<PermitQueue>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.serve_next();
    }
}

/// An entry of the queue; removed when its caller disconnects.
struct QueueEntry {
    queue: Arc<PermitQueue>,
    id: u64,
}

impl Drop for QueueEntry {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.unknown.retain(|w| w.id != self.id);
        state.reserve.retain(|w| w.id != self.id);
    }
}

impl PermitQueue {
    pub(super) fn new(at_once: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { free: at_once, ..State::default() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a permit. None: the queues are full and this caller displaces no other, or it was displaced.
    pub(super) async fn acquire(self: &Arc<Self>, caller: Caller, from: IpAddr) -> Option<Permit> {
        let (reply, permit) = oneshot::channel();
        let id = {
            let mut state = self.state();
            state.last_id += 1;
            let (network, address) = (network(from), caller_of(from));
            if state.free > 0 {
                state.free -= 1;
                state.note(network, address);
                drop(state);
                return Some(Permit(self.clone()));
            }
            let id = state.last_id;
            state.queue(Waiter { id, caller, network, address, reply }).then_some(id)?
        };
        let _entry = QueueEntry { queue: self.clone(), id };
        permit.await.ok()
    }

    /// Notes a caller that has signed in.
    pub(super) fn remember(&self, caller: Caller) {
        let mut state = self.state();
        if state.known.insert(caller) {
            state.known_order.push_back(caller);
        }
        while state.known_order.len() > MAX_REMEMBERED {
            if let Some(oldest) = state.known_order.pop_front() {
                state.known.remove(&oldest);
            }
        }
    }

    fn serve_next(self: &Arc<Self>) {
        let next = {
            let mut state = self.state();
            let next = state.next();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        // A permit whose receiver has gone comes back here when it is dropped.
        if let Some(waiter) = next {
            drop(waiter.reply.send(Permit(self.clone())));
        }
    }
}

impl State {
    /// Adds a caller to the reserve or to the queue of unknown callers; false when that is full.
    fn queue(&mut self, waiter: Waiter) -> bool {
        let own = self.reserve.iter().filter(|w| w.caller == waiter.caller).count();
        if self.known.contains(&waiter.caller)
            && own < MAX_RESERVED_PER_ADDRESS
            && self.reserve.len() < MAX_RESERVED
        {
            self.reserve.push(waiter);
            return true;
        }
        let (of_network, of_address) = self.waiting(waiter.network, waiter.address);
        if of_address >= MAX_WAITING_PER_ADDRESS {
            return false;
        }
        if self.unknown.len() >= MAX_WAITING {
            let Some(displaced) = self.displaced(waiter.network, of_network, of_address) else {
                return false;
            };
            self.unknown.remove(displaced);
        }
        self.unknown.push(waiter);
        true
    }

    /// Waiting unknown callers of a network and of an address.
    fn waiting(&self, network: IpAddr, address: IpAddr) -> (usize, usize) {
        let count = |is: &dyn Fn(&Waiter) -> bool| self.unknown.iter().filter(|w| is(w)).count();
        (count(&|w| w.network == network), count(&|w| w.address == address))
    }

    /// The unknown caller that makes room for one of a network and an address that have so many waiting: the last one of the
    /// network that has most, and of the address that has most within it. None when it has no more than the new one.
    fn displaced(&self, network: IpAddr, of_network: usize, of_address: usize) -> Option<usize> {
        let load = |w: &Waiter| self.waiting(w.network, w.address);
        let (at, most) = self.unknown.iter().enumerate().max_by_key(|(i, w)| (load(w), *i))?;
        let (their_network, their_address) = load(most);
        let has_more = match most.network == network {
            true => their_address > of_address + 1,
            false => their_network > of_network + 1,
        };
        has_more.then_some(at)
    }

    /// Takes out who is served next: of the queue that was not served last, the caller whose network and address were
    /// served least lately.
    fn next(&mut self) -> Option<Waiter> {
        let reserve_first = !self.served_reserve;
        let found = [reserve_first, !reserve_first].into_iter().find_map(|reserve| {
            let queue = if reserve { &self.reserve } else { &self.unknown };
            let last = |party: Party| self.served.get(&party).copied().unwrap_or(0);
            let order = |w: &Waiter| (last(Party::Network(w.network)), last(Party::Address(w.address)), w.id);
            queue.iter().enumerate().min_by_key(|(_, w)| order(w)).map(|(at, _)| (reserve, at))
        });
        let (reserve, at) = found?;
        self.served_reserve = reserve;
        let waiter = if reserve { self.reserve.remove(at) } else { self.unknown.remove(at) };
        self.note(waiter.network, waiter.address);
        Some(waiter)
    }

    /// Notes that a caller is served now.
    fn note(&mut self, network: IpAddr, address: IpAddr) {
        self.last_id += 1;
        let now = self.last_id;
        for party in [Party::Network(network), Party::Address(address)] {
            if self.served.len() >= MAX_REMEMBERED && !self.served.contains_key(&party) {
                let oldest = self.served.iter().min_by_key(|(_, at)| **at).map(|(party, _)| *party);
                if let Some(oldest) = oldest {
                    self.served.remove(&oldest);
                }
            }
            self.served.insert(party, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::identity::sign_in_failures::caller;

    fn ip(network: u8, host: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, network, host))
    }

    async fn take(permits: &Arc<PermitQueue>, account: &str, from: IpAddr) -> Option<Permit> {
        permits.acquire(caller(account, Some(from)), from).await
    }

    /// One caller that waits; `Some(true)` in the slot when it was served, `Some(false)` when it was refused.
    fn waits(permits: &Arc<PermitQueue>, account: &str, from: IpAddr, order: &Arc<AtomicUsize>) -> Slot {
        let slot = Slot::default();
        let (permits, account, filled, order) =
            (permits.clone(), account.to_owned(), slot.clone(), order.clone());
        tokio::spawn(async move {
            let permit = take(&permits, &account, from).await;
            let place = permit.as_ref().map_or(0, |_| order.fetch_add(1, Ordering::SeqCst) + 1);
            *filled.0.lock().unwrap() = Some(place);
            tokio::task::yield_now().await;
        });
        slot
    }

    /// None while a caller waits; 0 when it was refused; else its place in the order of service.
    #[derive(Clone, Default)]
    struct Slot(Arc<Mutex<Option<usize>>>);

    impl Slot {
        fn get(&self) -> Option<usize> {
            *self.0.lock().unwrap()
        }
    }

    async fn queued() {
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn sec_f11_password_checks_and_queue_are_limited() {
        let (permits, order) = (PermitQueue::new(2), Arc::default());
        let held =
            [take(&permits, "a", ip(1, 1)).await.unwrap(), take(&permits, "a", ip(1, 2)).await.unwrap()];
        let queue: Vec<Slot> =
            (0..MAX_WAITING as u8).map(|i| waits(&permits, "a", ip(i, 1), &order)).collect();
        queued().await;
        assert!(take(&permits, "a", ip(99, 1)).await.is_none(), "32 networks wait, one caller each");
        drop(held);
        queued().await;
        assert!(queue.iter().all(|slot| slot.get() > Some(0)), "every waiting caller was served");
        assert_eq!(permits.state().free, 2, "no permit is lost");
    }

    #[tokio::test]
    async fn sec_f11_one_address_cannot_fill_the_queue() {
        let (permits, order) = (PermitQueue::new(1), Arc::default());
        let held = take(&permits, "a", ip(1, 1)).await.unwrap();
        let all: Vec<Slot> = (0..=MAX_WAITING_PER_ADDRESS)
            .map(|i| waits(&permits, &i.to_string(), ip(7, 1), &order))
            .collect();
        queued().await;
        let refused = all.iter().filter(|slot| slot.get() == Some(0)).count();
        assert_eq!(refused, 1);
        drop(held);
    }

    #[tokio::test]
    async fn sec_f11_nine_busy_addresses_leave_a_check_for_a_tenth() {
        let (permits, order) = (PermitQueue::new(1), Arc::default());
        let held = take(&permits, "x", ip(1, 1)).await.unwrap();
        // All addresses are of one network, so only the shares of addresses protect the tenth.
        let attackers: Vec<Slot> = (0..9 * MAX_WAITING_PER_ADDRESS)
            .map(|i| waits(&permits, &i.to_string(), ip(1, 1 + (i % 9) as u8), &order))
            .collect();
        queued().await;
        let alice = waits(&permits, "alice", ip(1, 99), &order);
        queued().await;
        assert_eq!(alice.get(), None, "it waits and is not refused");
        drop(held);
        queued().await;
        // The first attacker's address was served just before; eight others and this one were not.
        assert!((1..=9).contains(&alice.get().unwrap()), "{:?}", alice.get());
        assert!(attackers.iter().filter(|slot| slot.get() == Some(0)).count() >= 4);
    }

    #[tokio::test]
    async fn sec_f11_network_not_yet_served_is_served_first() {
        let (permits, order) = (PermitQueue::new(1), Arc::default());
        let held = take(&permits, "x", ip(1, 1)).await.unwrap();
        let _attackers: Vec<Slot> =
            (0..40).map(|i| waits(&permits, &i.to_string(), ip(1, 1 + i as u8), &order)).collect();
        queued().await;
        let alice = waits(&permits, "alice", ip(2, 1), &order);
        queued().await;
        drop(held);
        queued().await;
        assert_eq!(alice.get(), Some(1));
    }

    #[tokio::test]
    async fn sec_f11_previous_users_have_reserved_checks() {
        let (permits, order) = (PermitQueue::new(1), Arc::default());
        let held = take(&permits, "x", ip(1, 1)).await.unwrap();
        permits.remember(caller("alice", Some(ip(7, 1))));
        // Strangers behind the same address, and in 32 networks, have filled the queue.
        let _near: Vec<Slot> =
            (0..MAX_WAITING_PER_ADDRESS).map(|i| waits(&permits, &i.to_string(), ip(7, 1), &order)).collect();
        let _far: Vec<Slot> = (0..40u8).map(|i| waits(&permits, "x", ip(100 + i, 1), &order)).collect();
        queued().await;
        assert!(take(&permits, "bob", ip(7, 1)).await.is_none(), "nobody remembers bob");
        let alice = waits(&permits, "alice", ip(7, 1), &order);
        queued().await;
        assert_eq!(alice.get(), None);
        drop(held);
        queued().await;
        assert!(alice.get().unwrap() <= 2, "{:?}", alice.get());
    }

    #[tokio::test]
    async fn sec_f11_cancelled_waiter_frees_its_slot() {
        let (permits, order) = (PermitQueue::new(1), Arc::<AtomicUsize>::default());
        let held = take(&permits, "x", ip(1, 1)).await.unwrap();
        let gone = {
            let permits = permits.clone();
            tokio::spawn(async move { take(&permits, "y", ip(2, 1)).await.is_some() })
        };
        queued().await;
        gone.abort();
        queued().await;
        assert!(permits.state().unknown.is_empty());
        drop(held);
        assert_eq!(permits.state().free, 1);
        assert!(take(&permits, "z", ip(3, 1)).await.is_some());
        drop(order);
    }

    #[test]
    fn sec_f11_remembered_addresses_are_bounded() {
        let permits = PermitQueue::new(1);
        for i in 0..MAX_REMEMBERED + 10 {
            permits.remember(caller(&i.to_string(), None));
            let [a, b, ..] = (i as u16).to_be_bytes();
            permits
                .state()
                .note(IpAddr::V4(Ipv4Addr::new(1, a, b, 0)), IpAddr::V4(Ipv4Addr::new(1, a, b, 1)));
        }
        let state = permits.state();
        assert_eq!(
            (state.known.len(), state.known_order.len(), state.served.len()),
            (MAX_REMEMBERED, MAX_REMEMBERED, MAX_REMEMBERED)
        );
    }
}
