//! Questions to an end, one server or a cluster: each goes to the server that has its key.

use std::collections::{BTreeMap, HashMap};

use model::error::{Error, Kind, Result, Side};
use redis_proto::command::slot;
use redis_proto::resp::{Reply, command};

use crate::connection::client::{Client, KEEP_ALIVE_INTERVAL};
use crate::connection::node::Node;
use crate::connection::reply_error::{ReplyError, classify, reply_failure};
use crate::connection::server::{MissingFeatures, ServerInfo};
use crate::connection::topology::{Addr, Topology};

/// Redirections that a query follows.
const REDIRECTS_MAX: u32 = 5;
/// Questions that are asked together.
const BATCH_COMMANDS: usize = 1000;

/// Connections for queries, one to each queried server.
#[derive(Debug)]
pub struct QueryClient {
    node: Node,
    side: Side,
    /// None: it is no cluster.
    topology: Option<Topology>,
    slots: Vec<u16>,
    has_databases: bool,
    /// The database that is selected for queries.
    selected: u32,
    clients: HashMap<Addr, Client>,
}

/// The longest argument that a server accepts, bytes; 0: not known.
async fn bulk_len_max(client: &mut Client) -> u64 {
    let reply = client.call(&[b"CONFIG", b"GET", b"proto-max-bulk-len"]).await.ok();
    let info = reply.as_ref().and_then(|reply| reply.array()?.get(1)?.text());
    info.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0)
}

impl QueryClient {
    /// Determines what a server is: names of commands, and the slot layout if it is a cluster. Keys of
    /// a cluster are counted over all of it.
    ///
    /// # Errors
    /// When no address replies, or slots are not served.
    pub async fn open(node: &Node, side: Side) -> Result<(Self, ServerInfo, Option<Topology>)> {
        let at = |f: Error| f.at(side);
        let node = Node { db: None, ..node.clone() };
        let mut last = Error::new(Kind::Connect, "connect", "no address was given").at(side);
        for addr in &node.addrs {
            let mut client = match Client::open(&node.at_addr(addr)).await {
                Ok(client) => client,
                Err(failure) => {
                    last = at(failure);
                    continue;
                }
            };
            let info = ServerInfo::query(&mut client).await;
            let info = if side == Side::Target {
                MissingFeatures::detect(&node.at_addr(addr), info).await
            } else {
                info
            };
            let mut server = info.map_err(at)?;
            if side == Side::Target && server.missing == MissingFeatures::default() {
                server.bulk_len_max = bulk_len_max(&mut client).await;
            }
            if !server.cluster {
                // What was not understood may have ended the connection.
                let alive = server.missing == MissingFeatures::default();
                let clients = alive.then(|| (addr.clone(), client)).into_iter().collect();
                let (node, has_databases) = (node.at_addr(addr), server.has_databases());
                let query =
                    Self { node, side, topology: None, slots: vec![], has_databases, selected: 0, clients };
                return Ok((query, server, None));
            }
            let topology = Topology::query(&node).await.map_err(at)?;
            let (slots, clients) = (topology.slots(), HashMap::new());
            let known = Some(topology.clone());
            let mut query =
                Self { node, side, topology: known, slots, has_databases: false, selected: 0, clients };
            (server.keys, server.expires, server.used_memory) = (0, 0, 0);
            let mut by_db = BTreeMap::from([(0, 0)]);
            for addr in query.masters() {
                let one = ServerInfo::query(query.client_at(&addr).await?).await.map_err(at)?;
                server.keys += one.keys;
                server.masters.push(one.replid);
                for (db, keys) in one.by_db {
                    *by_db.entry(db).or_default() += keys;
                }
                server.expires += one.expires;
                server.used_memory += one.used_memory;
            }
            // Most clusters have one database; Valkey has more since 9.0 (`cluster-databases`).
            query.has_databases = by_db.len() > 1;
            server.dbs = by_db.keys().copied().collect();
            server.by_db = by_db.into_iter().collect();
            return Ok((query, server, Some(topology)));
        }
        Err(last)
    }

    /// What a cluster does not serve, as it is counted; none where it serves everything.
    pub fn uncovered_slots(&self) -> Option<(String, u64)> {
        self.topology.as_ref().and_then(Topology::uncovered_slots)
    }

    /// Every server that may be written.
    pub fn masters(&self) -> Vec<Addr> {
        match &self.topology {
            Some(topology) => topology.masters(),
            None => self.node.addrs.first().cloned().into_iter().collect(),
        }
    }

    /// The connection to one server.
    ///
    /// # Errors
    /// An error of the connection.
    pub async fn client_at(&mut self, addr: &Addr) -> Result<&mut Client> {
        let side = self.side;
        // One that was idle may have been closed by the server: it is asked before it is used.
        if let Some(client) = self.clients.get_mut(addr)
            && client.last_reply_at.elapsed() > KEEP_ALIVE_INTERVAL
            && client.execute(&[b"PING"]).await.is_err_and(|f| f.kind == Kind::Connect)
        {
            self.clients.remove(addr);
        }
        if !self.clients.contains_key(addr) {
            let node = Node { db: None, ..self.node.at_addr(addr) };
            let mut client = Client::open(&node).await.map_err(|f| f.at(side))?;
            if self.selected != 0 {
                client
                    .execute(&[b"SELECT", self.selected.to_string().as_bytes()])
                    .await
                    .map_err(|f| f.at(side))?;
            }
            self.clients.insert(addr.clone(), client);
        }
        let gone = || Error::new(Kind::Internal, "query", "a connection was lost");
        self.clients.get_mut(addr).ok_or_else(gone)
    }

    /// The connection to the server of a key.
    ///
    /// # Errors
    /// An error of the connection.
    pub async fn client_of_key(&mut self, key: &[u8]) -> Result<&mut Client> {
        let addr = self.addr_of_key(key);
        self.client_at(&addr).await
    }

    /// Databases other than 0 can be asked about.
    pub(crate) fn has_databases(&self) -> bool {
        self.has_databases
    }

    /// True when slots are divided among servers.
    pub fn is_cluster(&self) -> bool {
        self.topology.is_some()
    }

    /// Questions are about this database from here on, where there are others than database 0.
    ///
    /// # Errors
    /// As [`QueryClient::call`].
    pub async fn select(&mut self, db: u32) -> Result<()> {
        if !self.has_databases || self.selected == db {
            return Ok(());
        }
        let side = self.side;
        for addr in self.masters() {
            let client = self.client_at(&addr).await?;
            client.execute(&[b"SELECT", db.to_string().as_bytes()]).await.map_err(|f| f.at(side))?;
        }
        self.selected = db;
        Ok(())
    }

    /// Sees that databases which are to be written are there and may be selected: a refused `SELECT` would leave what
    /// follows it to the database before.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] or [`Kind::Forbidden`] naming the database; else an error of the connection.
    pub async fn verify_dbs(&mut self, dbs: impl IntoIterator<Item = u32>) -> Result<()> {
        for db in dbs {
            let Err(f) = self.select(db).await else { continue };
            if f.is_temporary() {
                return Err(f);
            }
            let kind = if f.kind == Kind::Forbidden { f.kind } else { Kind::Unsupported };
            let m = format!("cannot select database {db}: {}", f.message);
            return Err(Error::new(kind, "databases", m).at(self.side));
        }
        self.select(0).await
    }

    /// Who serves which slot is asked again.
    ///
    /// # Errors
    /// As [`QueryClient::open`].
    pub async fn refresh(&mut self) -> Result<()> {
        if self.topology.is_some() {
            let topology = Topology::query(&self.node).await.map_err(|f| f.at(self.side))?;
            (self.slots, self.topology) = (topology.slots(), Some(topology));
        }
        Ok(())
    }

    /// The server of a key.
    pub(crate) fn addr_of_key(&self, key: &[u8]) -> Addr {
        let addr = match &self.topology {
            Some(topology) => {
                let shard = self.slots.get(usize::from(slot(key))).copied().unwrap_or(0);
                topology.shards.get(usize::from(shard)).map(|s| s.master.clone())
            }
            None => self.node.addrs.first().cloned(),
        };
        addr.unwrap_or_default()
    }

    /// A query about a key in database `db`.
    ///
    /// # Errors
    /// An error reply of the server, or an error of the connection.
    pub async fn call(&mut self, db: u32, key: &[u8], args: &[&[u8]]) -> Result<Reply> {
        let side = self.side;
        self.select(db).await?;
        for _ in 0..REDIRECTS_MAX {
            if self.topology.is_none() {
                let client = self.client_of_key(key).await?;
                return client.call(args).await.map_err(|f| f.at(side));
            }
            match self.client_of_key(key).await?.call(args).await.map_err(|f| f.at(side)) {
                Err(f) if f.kind == Kind::Changed => self.refresh().await?,
                answered => return answered,
            }
        }
        Err(Error::new(Kind::Unavailable, "query", "too many redirections for one slot").at(self.side))
    }

    /// The same words, around each of many keys, asked together; the answers in the order of the keys.
    ///
    /// # Errors
    /// As [`QueryClient::call`]; an answer that is an error is one.
    pub async fn call_each<'k>(
        &mut self,
        keys: &'k [Vec<u8>],
        before: &[&'k [u8]],
        behind: &[&'k [u8]],
    ) -> Result<Vec<Reply>> {
        let side = self.side;
        let around = |key: &'k [u8]| [before, &[key], behind].concat();
        let mut out: Vec<Reply> = vec![Reply::Nil; keys.len()];
        let mut by_server: HashMap<Addr, Vec<usize>> = HashMap::new();
        for (i, key) in keys.iter().enumerate() {
            by_server.entry(self.addr_of_key(key)).or_default().push(i);
        }
        for (addr, positions) in by_server {
            for some in positions.chunks(BATCH_COMMANDS) {
                let mut bytes = Vec::new();
                for i in some {
                    command(&mut bytes, &around(&keys[*i]));
                }
                let client = self.client_at(&addr).await?;
                let answers = client.pipeline(&bytes, some.len()).await.map_err(|f| f.at(side))?;
                let url = client.display_url().to_owned();
                for (i, answer) in some.iter().zip(answers) {
                    let Reply::Error(text) = answer else {
                        out[*i] = answer;
                        continue;
                    };
                    out[*i] = match classify(&text) {
                        // Few keys move at any moment: each of them is asked for alone.
                        ReplyError::Moved(_) | ReplyError::Ask(_) => {
                            self.call(self.selected, &keys[*i], &around(&keys[*i])).await?
                        }
                        ReplyError::SlotNotServed if self.node.allow_uncovered => Reply::Nil,
                        _ => return Err(reply_failure(&url, "query", &text).at(side)),
                    };
                }
            }
        }
        Ok(out)
    }

    /// The same, where only an error matters.
    ///
    /// # Errors
    /// As [`QueryClient::call`].
    pub async fn execute(&mut self, key: &[u8], args: &[&[u8]]) -> Result<()> {
        self.call(0, key, args).await.map(drop)
    }

    /// The same words to every server that may be written.
    ///
    /// # Errors
    /// What one of them answers.
    pub async fn call_all_masters(&mut self, args: &[&[u8]]) -> Result<()> {
        let side = self.side;
        for addr in self.masters() {
            self.client_at(&addr).await?.execute(args).await.map_err(|f| f.at(side))?;
        }
        Ok(())
    }
}
