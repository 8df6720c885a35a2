//! How a source of several masters is divided, as it stands at the target: the slots of each link, whose positions count only
//! together. When slots have gone from one master to another, no position does: the streams of two masters have no common
//! order.

use model::failure::{Failure, Kind, Result, Side};
use redis_proto::command::{SLOTS, slot};

use crate::asker::Asker;
use crate::claims;
use crate::client::Client;
use crate::marker::{self, Names, OURS};
use crate::node::Node;
use crate::server::Server;
use crate::topology::{Addr, Topology};

/// First and last slots that are served together.
pub type Ranges = Vec<(u16, u16)>;

/// Keys that are looked at together.
const TOGETHER: &[u8] = b"1000";

/// How the slots are divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The target held nothing else when the migration began.
    pub alone: bool,
    /// The slots of each master.
    pub shards: Vec<Ranges>,
}

impl Parts {
    /// As a cluster is divided now.
    pub fn of(topology: &Topology, alone: bool) -> Self {
        Self { alone, shards: topology.shards.iter().map(|s| s.ranges.clone()).collect() }
    }

    /// As it is written.
    fn text(&self) -> String {
        let range = |(from, to): &(u16, u16)| format!("{from}-{to}");
        let shard = |ranges: &Ranges| ranges.iter().map(range).collect::<Vec<_>>().join(",");
        let shards: Vec<String> = self.shards.iter().map(shard).collect();
        format!("parts {} {}", if self.alone { "alone" } else { "among" }, shards.join(" "))
    }

    /// Out of what was written.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let alone = match (words.next()?, words.next()?) {
            ("parts", "alone") => true,
            ("parts", "among") => false,
            _ => return None,
        };
        let range = |r: &str| {
            let (from, to) = r.split_once('-')?;
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        let shards: Option<Vec<Ranges>> = words.map(|w| w.split(',').map(range).collect()).collect();
        Some(Self { alone, shards: shards? })
    }

    /// What stands at a target.
    ///
    /// # Errors
    /// What the connection meets; [`Kind::Conflict`] when something else stands under its name.
    pub async fn read(ask: &mut Asker, names: &Names) -> Result<Option<Self>> {
        let reply = ask.call(0, &names.marker, &[b"GET", &names.marker]).await?;
        let Some(text) = reply.text() else { return Ok(None) };
        let text = String::from_utf8_lossy(text).into_owned();
        let parts = Self::parse(&text).ok_or_else(|| {
            let name = String::from_utf8_lossy(&names.marker).into_owned();
            let m = format!(
                "`{name}` at the target is not a valid slot layout (`{text:.80}`); hint: delete the key"
            );
            Failure::new(Kind::Conflict, "parts", m).at(Side::Target)
        })?;
        Ok(Some(parts))
    }

    /// Notes it.
    ///
    /// # Errors
    /// What the connection meets.
    pub async fn write(&self, ask: &mut Asker, names: &Names) -> Result<()> {
        ask.ok(&names.marker, &[b"SET", &names.marker, self.text().as_bytes()]).await
    }

    /// The names of the links.
    pub fn links(&self, names: &Names) -> Vec<Names> {
        self.shards.iter().filter_map(|ranges| Some(names.link(ranges.first()?.0))).collect()
    }
}

/// Nobody writes for these links any more: whoever did has lost its turn, and its connections.
///
/// # Errors
/// What the connections meet.
pub(crate) async fn shut_out(target: &Node, ask: &mut Asker, links: &[Names]) -> Result<()> {
    let mut fenced = true;
    for names in links {
        let token = format!("{:032x}", fastrand::u128(..));
        ask.ok(&names.owner, &[b"SET", &names.owner, token.as_bytes()]).await?;
        for addr in ask.masters() {
            let mut writer = Client::open(&Node { db: None, ..target.at(&addr) }).await?;
            fenced &= names.shut_out(ask.server(&addr).await?, &mut writer).await?;
        }
    }
    if !fenced {
        marker::turn_over().await;
    }
    Ok(())
}

/// What stands at a target about some links of a migration; its data stay.
///
/// # Errors
/// What the connections meet.
pub(crate) async fn forget(ask: &mut Asker, links: &[Names]) -> Result<()> {
    for names in links {
        void(ask, names).await?;
        ask.ok(&names.owner, &[b"DEL", &names.owner]).await?;
        claims::withdraw(ask, names).await?;
    }
    Ok(())
}

/// No position counts any more; whose turn it is stays.
///
/// # Errors
/// What the connections meet.
pub(crate) async fn void(ask: &mut Asker, names: &Names) -> Result<()> {
    let mut keys = vec![names.marker.clone(), names.doubted.clone(), names.scripts.clone()];
    if ask.is_cluster() {
        keys.extend((0..SLOTS).flat_map(|slot| [names.marker_at(slot), names.doubted_at(slot)]));
    }
    ask.select(0).await?;
    ask.each(&keys, &[b"DEL"], &[]).await.map(drop)
}

/// Takes away the keys of some slots, in the target's database `db`; what is ours stays.
///
/// # Errors
/// What the connections meet.
pub(crate) async fn sweep(ask: &mut Asker, db: u32, ranges: &[(u16, u16)]) -> Result<()> {
    ask.select(db).await?;
    let goes = |key: &[u8]| {
        let at = slot(key);
        !key.starts_with(OURS) && ranges.iter().any(|(from, to)| (*from..=*to).contains(&at))
    };
    for addr in ask.masters() {
        let mut cursor = b"0".to_vec();
        loop {
            let client = ask.server(&addr).await?;
            let page =
                client.call(&[b"SCAN", &cursor, b"COUNT", TOGETHER]).await.map_err(|f| f.at(Side::Target))?;
            let Some([next, keys]) = page.array() else { break };
            let keys: Vec<Vec<u8>> =
                keys.array().unwrap_or_default().iter().filter_map(|k| Some(k.text()?.to_vec())).collect();
            let keys: Vec<Vec<u8>> = keys.into_iter().filter(|key| goes(key)).collect();
            cursor = next.text().unwrap_or(b"0").to_vec();
            ask.each(&keys, &[b"UNLINK"], &[]).await?;
            if cursor == b"0" {
                break;
            }
        }
    }
    Ok(())
}

/// Takes away everything that a migration has brought, where it was alone.
///
/// # Errors
/// What the connections meet.
pub(crate) async fn empty(ask: &mut Asker, server: &Server, db: Option<u32>) -> Result<()> {
    match db {
        _ if server.cluster => ask.everywhere(&[b"FLUSHALL"]).await,
        Some(db) => ask.call(db, b"", &[b"FLUSHDB"]).await.map(drop),
        None => Ok(()),
    }
}

/// A slot that is on its way from one of these masters to another, as a sentence; none when all rest.
///
/// # Errors
/// What the connections meet.
pub(crate) async fn on_the_way(source: &Node, masters: &[Addr]) -> Result<Option<String>> {
    for addr in masters {
        let mut client = Client::open(&Node { db: None, ..source.at(addr) }).await?;
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
    fn parts_come_back() {
        let parts = Parts {
            alone: true,
            shards: vec![vec![(0, 5460), (9000, 9000)], vec![(5461, 8999), (9001, 16383)]],
        };
        assert_eq!(parts.text(), "parts alone 0-5460,9000-9000 5461-8999,9001-16383");
        assert_eq!(Parts::parse(&parts.text()), Some(parts));
        for wrong in ["", "parts", "parts some 0-1", "parts alone 0", "applied r 1 0"] {
            assert_eq!(Parts::parse(wrong), None, "{wrong}");
        }
    }
}
