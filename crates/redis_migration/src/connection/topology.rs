//! Which server of a cluster has which slots, by its own words (`CLUSTER SLOTS`).

use model::error::{Error, Kind, Result};
use redis_proto::command::SLOTS;
use redis_proto::resp::Reply;

use crate::connection::client::Client;
use crate::connection::node::Node;

/// Host and port.
pub type Addr = (String, u16);

/// Slots that are served together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// First and last slot of each range.
    pub ranges: Vec<(u16, u16)>,
    /// Who may be written.
    pub master: Addr,
    /// Who follows it.
    pub replicas: Vec<Addr>,
}

/// A cluster, by its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Its shards, by their first slots.
    pub shards: Vec<Shard>,
    /// Slots that no node serves, first and last of each range; accepted only where that is allowed.
    pub uncovered: Vec<(u16, u16)>,
}

impl Topology {
    /// Asks a server of the cluster, at one of the addresses of `node`.
    ///
    /// # Errors
    /// When no node replies, or slots are not served.
    pub async fn query(node: &Node) -> Result<Self> {
        let mut last = Error::new(
            Kind::Connect,
            "cluster",
            format!("{}: none of the addresses can be reached", node.display_url()),
        );
        for addr in &node.addrs {
            let asked = async {
                let mut client = Client::open(&Node { db: None, ..node.at_addr(addr) }).await?;
                let reply = client.call(&[b"CLUSTER", b"SLOTS"]).await?;
                Self::parse(&reply, &addr.0, node.allow_uncovered).map_err(|m| {
                    Error::new(Kind::Unavailable, "cluster", format!("{}: {m}", client.display_url()))
                })
            };
            match asked.await {
                Ok(topology) => return Ok(topology),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// From the reply to `CLUSTER SLOTS`; an empty host is the queried one.
    fn parse(reply: &Reply, asked: &str, allow_uncovered: bool) -> std::result::Result<Self, String> {
        let wrong = || "invalid reply to CLUSTER SLOTS".to_owned();
        let addr = |node: &Reply| {
            let parts = node.array()?;
            let host = parts.first()?.text().map(|t| String::from_utf8_lossy(t).into_owned());
            let host = host.filter(|h| !h.is_empty() && h != "?").unwrap_or_else(|| asked.to_owned());
            Some((host, u16::try_from(parts.get(1)?.number()?).ok()?))
        };
        let mut shards: Vec<Shard> = Vec::new();
        let mut served = 0u32;
        for range in reply.array().ok_or_else(wrong)? {
            let parts = range.array().ok_or_else(wrong)?;
            let slot = |i: usize| u16::try_from(parts.get(i)?.number()?).ok().filter(|s| *s < SLOTS);
            let (from, to) = slot(0).zip(slot(1)).filter(|(from, to)| from <= to).ok_or_else(wrong)?;
            let master = parts.get(2).and_then(addr).ok_or_else(wrong)?;
            served += u32::from(to - from) + 1;
            match shards.iter_mut().find(|s| s.master == master) {
                Some(shard) => shard.ranges.push((from, to)),
                None => shards.push(Shard {
                    ranges: vec![(from, to)],
                    master,
                    replicas: parts.iter().skip(3).filter_map(addr).collect(),
                }),
            }
        }
        let uncovered = uncovered_ranges(&shards);
        if served != u32::from(SLOTS) && (!allow_uncovered || shards.is_empty()) {
            let unserved = uncovered.first();
            let first = unserved.map_or_else(String::new, |(slot, _)| {
                format!(
                    " (slot {slot} is the first one without a \
                     master)"
                )
            });
            return Err(format!(
                "only {served} of {SLOTS} slots are served{first}; hint: repair the cluster first"
            ));
        }
        for shard in &mut shards {
            shard.ranges.sort_unstable();
        }
        shards.sort_by_key(|s| s.ranges.first().copied());
        Ok(Self { shards, uncovered })
    }

    /// What a copy of the cluster cannot hold, as it is counted, and how many slots that are.
    pub fn uncovered_slots(&self) -> Option<(String, u64)> {
        /// Slot ranges that a message names.
        const NAMED_MAX: usize = 5;
        let count = self.uncovered.iter().map(|(from, to)| u64::from(to - from) + 1).sum();
        let ranges: Vec<String> =
            self.uncovered.iter().take(NAMED_MAX).map(|(from, to)| format!("{from}-{to}")).collect();
        let more = if self.uncovered.len() > NAMED_MAX { ", …" } else { "" };
        let what = format!("unserved slots of the source ({}{more})", ranges.join(", "));
        (count > 0).then_some((what, count))
    }

    /// Every server that may be written.
    pub fn masters(&self) -> Vec<Addr> {
        self.shards.iter().map(|s| s.master.clone()).collect()
    }

    /// Everybody who may be asked about it.
    pub fn all_addrs(&self) -> Vec<Addr> {
        self.shards.iter().flat_map(|s| std::iter::once(&s.master).chain(&s.replicas)).cloned().collect()
    }

    /// The shard that serves a slot.
    pub fn shard_of_slot(&self, slot: u16) -> Option<&Shard> {
        self.shards.iter().find(|s| s.ranges.iter().any(|(from, to)| (*from..=*to).contains(&slot)))
    }

    /// The place in [`Topology::shards`] of the shard that serves each slot.
    pub fn slots(&self) -> Vec<u16> {
        let mut slots = vec![0; usize::from(SLOTS)];
        for (i, shard) in (0u16..).zip(&self.shards) {
            for (from, to) in &shard.ranges {
                slots[usize::from(*from)..=usize::from(*to)].fill(i);
            }
        }
        slots
    }
}

/// Ranges of slots that no shard has.
fn uncovered_ranges(shards: &[Shard]) -> Vec<(u16, u16)> {
    let mut served: Vec<(u16, u16)> = shards.iter().flat_map(|s| s.ranges.iter().copied()).collect();
    served.sort_unstable();
    let (mut holes, mut next) = (Vec::new(), 0);
    for (from, to) in served {
        if from > next {
            holes.push((next, from - 1));
        }
        next = next.max(to + 1);
    }
    if next < SLOTS {
        holes.push((next, SLOTS - 1));
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: i64) -> Reply {
        Reply::Array(vec![
            Reply::Bulk(host.into()),
            Reply::Int(port),
            Reply::Bulk(b"id".to_vec()),
            Reply::Array(vec![]),
        ])
    }

    fn range(from: i64, to: i64, nodes: Vec<Reply>) -> Reply {
        Reply::Array([Reply::Int(from), Reply::Int(to)].into_iter().chain(nodes).collect())
    }

    #[test]
    fn shards_are_assembled_from_slot_ranges() {
        let reply = Reply::Array(vec![
            range(5461, 16383, vec![node("", 7001)]),
            range(0, 100, vec![node("10.0.0.1", 7000), node("10.0.0.2", 7005)]),
            range(101, 5460, vec![node("10.0.0.1", 7000), node("10.0.0.2", 7005)]),
        ]);
        let topology = Topology::parse(&reply, "asked", false).unwrap();
        assert_eq!(topology.shards.len(), 2);
        assert_eq!(topology.shards[0].ranges, [(0, 100), (101, 5460)]);
        assert_eq!(topology.shards[0].replicas, [("10.0.0.2".to_owned(), 7005)]);
        assert_eq!(topology.shards[1].master, ("asked".to_owned(), 7001));
        let slots = topology.slots();
        assert_eq!((slots[0], slots[5460], slots[5461]), (0, 0, 1));
    }

    #[test]
    fn topology_with_unserved_slots_is_an_error_that_names_them() {
        let reply = Reply::Array(vec![range(0, 100, vec![node("h", 1)])]);
        let said = Topology::parse(&reply, "h", false).unwrap_err();
        assert!(said.contains("101 of 16384") && said.contains("slot 101 "), "{said}");
        assert!(Topology::parse(&Reply::Nil, "h", true).is_err());
        assert!(Topology::parse(&Reply::Array(vec![]), "h", true).is_err());
    }

    #[test]
    fn red_19_unserved_slots_are_listed_by_range() {
        let ranges = [(1, 100), (102, 16_382)].map(|(from, to)| range(from, to, vec![node("h", 1)]));
        let topology = Topology::parse(&Reply::Array(ranges.to_vec()), "h", true).unwrap();
        assert_eq!(topology.uncovered, [(0, 0), (101, 101), (16_383, 16_383)]);
        let (what, count) = topology.uncovered_slots().unwrap();
        assert!(count == 3 && what.ends_with("(0-0, 101-101, 16383-16383)"), "{what}");
    }
}
