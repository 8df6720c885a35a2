//! One side of a comparison.

use std::collections::BTreeMap;

use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::Reply;

use crate::connection::node::Node;
use crate::connection::query_client::QueryClient;
use crate::connection::server::ServerInfo;
use crate::connection::topology::Addr;
use crate::route::Route;
use crate::target::functions;

/// One key as one side has it.
pub(crate) struct KeyState {
    pub(crate) payload: Vec<u8>,
    /// Milliseconds since the epoch, or that are left; -1: it does not expire.
    pub(crate) expiry: i64,
}

/// One side.
pub(crate) struct Endpoint {
    pub(crate) query: QueryClient,
    pub(crate) server: ServerInfo,
    side: Side,
}

impl Endpoint {
    pub(crate) async fn open(node: &Node, side: Side) -> Result<Self> {
        let (query, server, _) = QueryClient::open(node, side).await?;
        Ok(Self { query, server, side })
    }

    /// Looks at a database from here on; false when this side has no such database, and nothing is to be asked.
    pub(crate) async fn select(&mut self, db: u32) -> Result<bool> {
        if !self.query.has_databases() {
            return Ok(db == 0);
        }
        match self.query.select(db).await {
            Err(f) if f.kind == Kind::Unsupported => Ok(false),
            selected => selected.map(|()| true),
        }
    }

    /// A database holds keys from now on: none of the others may become the same at the target.
    pub(crate) fn record_db(&mut self, db: u32, route: &Route) -> Result<()> {
        if !self.server.dbs.contains(&db) {
            self.server.dbs.push(db);
            route.check(&self.server.dbs)?;
        }
        Ok(())
    }

    /// One step of a scan of one server: the keys, and the next cursor; none at the end.
    pub(crate) async fn scan(
        &mut self,
        addr: &Addr,
        cursor: &[u8],
    ) -> Result<(Vec<Vec<u8>>, Option<Vec<u8>>)> {
        let client = self.query.client_at(addr).await?;
        let reply = client.call(&[b"SCAN", cursor, b"COUNT", b"1000"]).await.map_err(|f| f.at(self.side))?;
        let wrong = || Error::new(Kind::Corrupt, "scan", "invalid reply to SCAN").at(self.side);
        let [next, keys] = reply.array().unwrap_or_default() else { return Err(wrong()) };
        let next = next.text().ok_or_else(wrong)?.to_vec();
        let keys =
            keys.array().ok_or_else(wrong)?.iter().filter_map(|k| k.text().map(<[u8]>::to_vec)).collect();
        Ok((keys, Some(next).filter(|n| n != b"0")))
    }

    pub(crate) async fn read_keys(
        &mut self,
        keys: &[Vec<u8>],
        absolute: bool,
    ) -> Result<Vec<Option<KeyState>>> {
        let word: &[u8] = if absolute { b"PEXPIRETIME" } else { b"PTTL" };
        let payloads = self.query.call_each(keys, &[b"DUMP"], &[]).await?;
        let expiries = self.query.call_each(keys, &[word], &[]).await?;
        let wrong = || Error::new(Kind::Corrupt, "verify", "unexpected reply type").at(self.side);
        let pairs = payloads.into_iter().zip(expiries);
        pairs
            .map(|(payload, at)| match payload {
                Reply::Nil => Ok(None),
                Reply::Bulk(payload) => Ok(Some(KeyState { payload, expiry: at.number().unwrap_or(-1) })),
                _ => Err(wrong()),
            })
            .collect()
    }

    /// Its libraries of functions and their code; none where the user may not list them.
    pub(super) async fn libraries(&mut self) -> Result<Option<BTreeMap<Vec<u8>, Vec<u8>>>> {
        let Some(addr) = self.query.masters().first().cloned() else { return Ok(None) };
        let list = match self.query.client_at(&addr).await?.call(&[b"FUNCTION", b"LIST", b"WITHCODE"]).await {
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => return Ok(None),
            list => list.map_err(|f| f.at(self.side))?,
        };
        let all = functions::libraries(&list);
        Ok(Some(all.map(|(name, code)| (name.to_vec(), code.to_vec())).collect()))
    }

    pub(super) async fn exist(&mut self, keys: &[Vec<u8>]) -> Result<Vec<bool>> {
        let answers = self.query.call_each(keys, &[b"EXISTS"], &[]).await?;
        Ok(answers.iter().map(|a| a.number() == Some(1)).collect())
    }
}
