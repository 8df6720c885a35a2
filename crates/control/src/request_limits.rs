//! How many requests of authenticated callers are answered at once, by all faces together. The connection of such a request is not closed for another
//! one, so their number is bounded below the number of connections: of all, of one project, and of one address.

use std::net::IpAddr;

use flow_control::caller_limit::{CallerLimit, Reservation, caller_of};
use flow_control::fair_queue::{FairPermit, FairQueue};

/// Requests at once: half of the connections that there are.
const MAX_REQUESTS: u64 = 512;
/// Of one project, or of one caller where the path names no project.
const MAX_REQUESTS_PER_CALLER: u64 = 128;
/// Of one address: half of the connections that it may have.
const MAX_REQUESTS_PER_ADDRESS: u64 = 256;

/// Reads that are answered at the same time, the others wait for their turn: about as many as the store answers at once.
const MAX_READS: usize = 6;
/// Of one project: one connection to the store is left to others.
const MAX_READS_PER_CALLER: usize = 3;

/// The permits; clones share them.
#[derive(Clone, Debug)]
pub struct RequestLimits {
    reads: FairQueue<String>,
    callers: CallerLimit<String>,
    addresses: CallerLimit<IpAddr>,
}

/// The permit of one request; released when it is dropped.
#[derive(Debug)]
pub struct RequestPermit {
    _caller: Reservation<String>,
    _address: Reservation<IpAddr>,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            reads: FairQueue::new(MAX_READS, MAX_READS_PER_CALLER),
            callers: CallerLimit::new(MAX_REQUESTS, MAX_REQUESTS_PER_CALLER),
            addresses: CallerLimit::new(MAX_REQUESTS, MAX_REQUESTS_PER_ADDRESS),
        }
    }
}

impl RequestLimits {
    /// Takes a permit for a request of `caller`, a project or a name, from an address; none when all are taken.
    pub fn begin(&self, caller: &str, from: IpAddr) -> Option<RequestPermit> {
        let address = self.addresses.reserve(caller_of(from), 1)?;
        let caller = self.callers.reserve(caller.to_owned(), 1)?;
        Some(RequestPermit { _caller: caller, _address: address })
    }

    /// Waits until a read of `caller` may begin. Projects take turns: many requests of one do not delay those of another.
    pub async fn begin_read(&self, caller: &str) -> FairPermit<String> {
        self.reads.acquire(caller.to_owned()).await
    }

    /// Permits that a caller has.
    pub fn held_by(&self, caller: &str) -> u64 {
        self.callers.reserved_by(&caller.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, last))
    }

    fn fill(limits: &RequestLimits, caller: &str, from: IpAddr) -> Vec<RequestPermit> {
        (0..MAX_REQUESTS).map_while(|_| limits.begin(caller, from)).collect()
    }

    #[test]
    fn sec_f06_running_requests_of_one_project_leave_permits_for_others() {
        let limits = RequestLimits::default();
        let held = fill(&limits, "a", address(1));
        assert_eq!(held.len() as u64, MAX_REQUESTS_PER_CALLER);
        assert!(limits.begin("a", address(2)).is_none(), "of whatever address");
        assert!(limits.begin("b", address(1)).is_some(), "the same proxy, another project");
        drop(held);
        assert!(limits.begin("a", address(1)).is_some());
    }

    #[test]
    fn sec_f06_running_requests_of_one_address_leave_connections_for_others() {
        let limits = RequestLimits::default();
        let held: Vec<_> = (0..4).flat_map(|i| fill(&limits, &format!("p{i}"), address(1))).collect();
        assert_eq!(held.len() as u64, MAX_REQUESTS_PER_ADDRESS);
        assert!(limits.begin("other", address(1)).is_none());
        assert!(limits.begin("other", address(2)).is_some());
    }
}
