//! The masters of one end during a cut-over: write fences and pauses.

use model::error::{Error, Kind, Result, Side};
use redis_migration::Node;
use redis_migration::connection::client::Client;
use redis_migration::connection::query_client::QueryClient;
use redis_migration::connection::server::ServerInfo;
use redis_migration::connection::topology::Addr;

use super::{FENCED, PAUSE_MAX, settings};

/// One server of an end, or every master of a cluster.
pub(super) struct Masters {
    pub(super) side: Side,
    servers: Vec<(Addr, Client, ServerInfo)>,
}

impl Masters {
    pub(super) async fn open(node: &Node, side: Side) -> Result<Self> {
        let (query, _, topology) = QueryClient::open(node, side).await?;
        let mut servers = Vec::new();
        // Of single servers that are one and its replicas, whichever is the master now.
        let addrs = if topology.is_some() { query.masters() } else { node.addrs.clone() };
        for addr in addrs {
            let client = Client::open(&Node { db: None, ..node.at_addr(&addr) }).await;
            let mut client = client.map_err(|f| f.at(side))?;
            let server = ServerInfo::query(&mut client).await.map_err(|f| f.at(side))?;
            if !server.is_replica {
                servers.push((addr, client, server));
            }
        }
        if servers.is_empty() {
            let m = format!(
                "{} is a replica, where writes cannot be paused; hint: use the address of its \
                 master",
                node.display_url()
            );
            return Err(Error::new(Kind::Unsupported, "cutover", m).at(side));
        }
        Ok(Self { side, servers })
    }

    pub(super) async fn fences(&mut self) -> Result<Vec<(Addr, String, String)>> {
        let mut all = Vec::new();
        for (addr, client, server) in &mut self.servers {
            let (write, lag) = settings(server);
            let mut values = Vec::new();
            for name in [write, lag] {
                let reply = client.call(&[b"CONFIG", b"GET", name.as_bytes()]).await;
                let reply = reply.map_err(|f| f.at(self.side))?;
                let value = reply.array().and_then(|a| a.get(1)).and_then(|v| v.text());
                let none =
                    || Error::new(Kind::Unsupported, "fence", format!("the server has no setting {name}"));
                values.push(String::from_utf8_lossy(value.ok_or_else(none)?).into_owned());
            }
            let lag = values.pop().unwrap_or_default();
            all.push((addr.clone(), values.pop().unwrap_or_default(), lag));
        }
        Ok(all)
    }

    /// Sets the fence of each server; one that is not named is left as it is.
    async fn set_fences(&mut self, wanted: impl Fn(&Addr) -> Option<(String, String)>) -> Result<()> {
        for (addr, client, server) in &mut self.servers {
            let Some((write, lag)) = wanted(addr) else { continue };
            let names = settings(server);
            for (name, value) in [(names.1, lag), (names.0, write)] {
                let set = client.execute(&[b"CONFIG", b"SET", name.as_bytes(), value.as_bytes()]).await;
                set.map_err(|f| f.at(self.side))?;
            }
        }
        Ok(())
    }

    pub(super) async fn fence(&mut self) -> Result<()> {
        self.set_fences(|_| Some((FENCED.to_owned(), "10".to_owned()))).await
    }

    pub(super) async fn unfence(&mut self, fences: &[(Addr, String, String)]) -> Result<()> {
        let before = |addr: &Addr| fences.iter().find(|(a, ..)| a == addr);
        self.set_fences(|addr| before(addr).map(|(_, write, lag)| (write.clone(), lag.clone()))).await
    }

    /// Writes alone can be paused (since 6.2).
    pub(super) fn pause_writes(&self) -> bool {
        self.servers.iter().all(|(.., server)| server.is_at_least((6, 2)))
    }

    pub(super) async fn pause(&mut self) -> Result<()> {
        let ms = PAUSE_MAX.as_millis().to_string();
        for (_, client, _) in &mut self.servers {
            let paused = client.execute(&[b"CLIENT", b"PAUSE", ms.as_bytes(), b"WRITE"]).await;
            paused.map_err(|f| f.at(self.side))?;
        }
        Ok(())
    }

    /// Lets writers go on; those that are still there are ended first when they are to come back elsewhere.
    pub(super) async fn unpause(&mut self, end: bool) -> Result<()> {
        let unpause = self.pause_writes();
        for (_, client, _) in &mut self.servers {
            if end {
                let killed = client.call(&[b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"]).await;
                killed.map_err(|f| f.at(self.side))?;
            }
            if unpause {
                client.execute(&[b"CLIENT", b"UNPAUSE"]).await.map_err(|f| f.at(self.side))?;
            }
        }
        Ok(())
    }

    /// Keys that do not expire.
    pub(super) async fn persistent_keys(&mut self) -> Result<u64> {
        let mut persistent = 0;
        for (_, client, _) in &mut self.servers {
            let server = ServerInfo::query(client).await.map_err(|f| f.at(self.side))?;
            persistent += server.keys.saturating_sub(server.expires);
        }
        Ok(persistent)
    }
}
