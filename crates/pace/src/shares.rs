//! Places or bytes that many callers share: so many together, and so many for one of them. Nobody waits here: who
//! finds none is told so.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is shared; clones share the same.
pub struct Shares<K: Eq + Hash> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    all: u64,
    each: u64,
    taken: Mutex<Taken<K>>,
}

struct Taken<K> {
    sum: u64,
    by: HashMap<K, u64>,
}

impl<K> Inner<K> {
    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K: Eq + Hash> std::fmt::Debug for Shares<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shares({} of {})", self.inner.taken().sum, self.inner.all)
    }
}

/// What one caller has; given back when dropped.
pub struct Share<K: Eq + Hash> {
    inner: Arc<Inner<K>>,
    who: K,
    amount: u64,
}

impl<K: Eq + Hash> std::fmt::Debug for Share<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Share({})", self.amount)
    }
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// `all` for everybody together, of which one caller may have `each`.
    pub fn new(all: u64, each: u64) -> Self {
        let taken = Mutex::new(Taken { sum: 0, by: HashMap::new() });
        Self { inner: Arc::new(Inner { all, each, taken }) }
    }

    /// What a caller has now.
    pub fn has(&self, who: &K) -> u64 {
        self.inner.taken().by.get(who).copied().unwrap_or(0)
    }

    /// What one caller may have.
    pub fn each(&self) -> u64 {
        self.inner.each
    }

    /// `amount` for a caller; none when there is not so much left.
    pub fn take(&self, who: K, amount: u64) -> Option<Share<K>> {
        let mut share = Share { inner: self.inner.clone(), who, amount: 0 };
        share.grow(amount).then_some(share)
    }
}

impl<K: Eq + Hash + Clone> Share<K> {
    /// Takes more; false when there is not so much left, and nothing has changed then.
    pub fn grow(&mut self, more: u64) -> bool {
        let mut taken = self.inner.taken();
        let have = taken.by.get(&self.who).copied().unwrap_or(0);
        let (own, sum) = (have.saturating_add(more), taken.sum.saturating_add(more));
        if own > self.inner.each || sum > self.inner.all {
            return false;
        }
        taken.by.insert(self.who.clone(), own);
        taken.sum = sum;
        drop(taken);
        self.amount += more;
        true
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.inner.taken();
        taken.sum = taken.sum.saturating_sub(self.amount);
        let left = taken.by.get_mut(&self.who).map(|have| {
            *have = have.saturating_sub(self.amount);
            *have
        });
        if left == Some(0) {
            taken.by.remove(&self.who);
        }
    }
}

/// Whom an address counts as: an IPv4 address is one caller, and so is an IPv6 network of 64 bits, which is what one
/// machine is given.
pub fn party(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// The network that an address belongs to: 24 bits of IPv4, 48 bits of IPv6, which is what one customer is given.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_f11_a_network_is_what_one_customer_is_given() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("192.0.2.255"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.9"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
    }

    #[test]
    fn sec_f06_one_caller_leaves_places_for_others() {
        let shares = Shares::new(10, 6);
        let mut a = shares.take("a", 5).unwrap();
        assert!(a.grow(1) && !a.grow(1), "six for one");
        assert!(shares.take("b", 5).is_none() && shares.take("b", 4).is_some(), "ten for all");
        drop(a);
        assert!(shares.take("b", 6).is_some());
        assert!(shares.inner.taken().by.is_empty(), "nobody is remembered");
    }

    #[test]
    fn sec_f06_an_ipv6_network_is_one_caller() {
        let of = |text: &str| party(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
