//! How a source of several masters is divided, as it stands at the target: the slots of each link, whose positions count only
//! together. When slots have gone from one master to another, no position does: the streams of two masters have no common
//! order.
//!
//! Decision: ADR 0013, `docs/adr/0013-full-resync-on-source-slot-migration.md`.

use model::error::{Error, Kind, Result, Side};

use crate::checkpoint::keys::KeyNames;
use crate::connection::client::Client;
use crate::connection::node::Node;
use crate::connection::query_client::QueryClient;
use crate::connection::topology::{Addr, Topology};

/// First and last slots that are served together.
pub type Ranges = Vec<(u16, u16)>;

/// How the slots are divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotLayout {
    /// The target held nothing else when the migration began.
    pub target_was_empty: bool,
    /// The slots of each master.
    pub shards: Vec<Ranges>,
}

impl SlotLayout {
    /// As a cluster is divided now.
    pub fn from_topology(topology: &Topology, target_was_empty: bool) -> Self {
        Self { target_was_empty, shards: topology.shards.iter().map(|s| s.ranges.clone()).collect() }
    }

    /// As it is written.
    fn text(&self) -> String {
        let range = |(from, to): &(u16, u16)| format!("{from}-{to}");
        let shard = |ranges: &Ranges| ranges.iter().map(range).collect::<Vec<_>>().join(",");
        let shards: Vec<String> = self.shards.iter().map(shard).collect();
        format!("parts {} {}", if self.target_was_empty { "alone" } else { "among" }, shards.join(" "))
    }

    /// Out of what was written.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let target_was_empty = match (words.next()?, words.next()?) {
            ("parts", "alone") => true,
            ("parts", "among") => false,
            _ => return None,
        };
        let range = |r: &str| {
            let (from, to) = r.split_once('-')?;
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        let shards: Option<Vec<Ranges>> = words.map(|w| w.split(',').map(range).collect()).collect();
        Some(Self { target_was_empty, shards: shards? })
    }

    /// What stands at a target.
    ///
    /// # Errors
    /// An error of the connection; [`Kind::Conflict`] when something else stands under its name.
    pub async fn read(query: &mut QueryClient, names: &KeyNames) -> Result<Option<Self>> {
        let reply = query.call(0, &names.checkpoint, &[b"GET", &names.checkpoint]).await?;
        let Some(text) = reply.text() else { return Ok(None) };
        let text = String::from_utf8_lossy(text).into_owned();
        let layout = Self::parse(&text).ok_or_else(|| {
            let name = String::from_utf8_lossy(&names.checkpoint).into_owned();
            let m = format!(
                "`{name}` at the target is not a valid slot layout (`{text:.80}`); hint: delete the key"
            );
            Error::new(Kind::Conflict, "parts", m).at(Side::Target)
        })?;
        Ok(Some(layout))
    }

    /// Notes it.
    ///
    /// # Errors
    /// An error of the connection.
    pub async fn write(&self, query: &mut QueryClient, names: &KeyNames) -> Result<()> {
        query.execute(&names.checkpoint, &[b"SET", &names.checkpoint, self.text().as_bytes()]).await
    }

    /// The names of the links.
    pub fn links(&self, names: &KeyNames) -> Vec<KeyNames> {
        self.shards.iter().filter_map(|ranges| Some(names.for_link(ranges.first()?.0))).collect()
    }
}

/// A slot that is being migrated between two of these masters, as a sentence; none if there is none.
///
/// # Errors
/// An error of a connection.
pub(crate) async fn migrating_slot(source: &Node, masters: &[Addr]) -> Result<Option<String>> {
    for addr in masters {
        let mut client = Client::open(&Node { db: None, ..source.at_addr(addr) }).await?;
        let nodes = client.call(&[b"CLUSTER", b"NODES"]).await?;
        let text = String::from_utf8_lossy(nodes.text().unwrap_or_default()).into_owned();
        // `[93-<-ID]`, `[93->-ID]`: only a server's own line tells of them.
        let own = text.lines().find(|line| line.contains("myself"));
        let slot = own.and_then(|line| line.split(" [").nth(1)?.split(['-', ']']).next());
        if let Some(slot) = slot {
            return Ok(Some(format!("slot {slot} of {}:{} is migrating or importing", addr.0, addr.1)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_parts_round_trip() {
        let layout = SlotLayout {
            target_was_empty: true,
            shards: vec![vec![(0, 5460), (9000, 9000)], vec![(5461, 8999), (9001, 16383)]],
        };
        assert_eq!(layout.text(), "parts alone 0-5460,9000-9000 5461-8999,9001-16383");
        assert_eq!(SlotLayout::parse(&layout.text()), Some(layout));
        for wrong in ["", "parts", "parts some 0-1", "parts alone 0", "applied r 1 0"] {
            assert_eq!(SlotLayout::parse(wrong), None, "{wrong}");
        }
    }
}
