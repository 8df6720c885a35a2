//! What a migration may delete at its target: the keys that it selects, and nothing else.
//!
//! Other databases, keys that the filter excludes and the keys of other migrations were not written by it.

use std::collections::BTreeSet;

use model::error::{Result, Side};
use redis_proto::command::slot;
use redis_proto::resp::{Reply, command};

use crate::checkpoint::keys::KeyNames;
use crate::checkpoint::target_locks;
use crate::connection::RESERVED_PREFIX;
use crate::connection::client::Client;
use crate::connection::query_client::QueryClient;
use crate::connection::topology::Addr;
use crate::route::Route;

/// Keys that are requested together.
const SCAN_COUNT: &[u8] = b"1000";

/// Keys of a target that a migration writes.
#[derive(Debug)]
pub(crate) struct Selection<'a> {
    /// Databases of the target.
    pub(crate) dbs: BTreeSet<u32>,
    /// Which keys of them.
    pub(crate) route: &'a Route,
    /// The slots of one master of a source cluster; none: all.
    pub(crate) ranges: Option<&'a [(u16, u16)]>,
}

/// The source of the keys.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    /// Where it is asked.
    pub(crate) client: &'a mut Client,
    /// Its databases that hold keys.
    pub(crate) dbs: &'a [u32],
}

impl Origin<'_> {
    /// Keys of a database of the target that exist at the source; none where the source does not tell.
    async fn retain_existing(&mut self, route: &Route, to: u32, keys: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let mut exists = vec![false; keys.len()];
        for db in self.dbs.iter().filter(|db| route.db(**db) == Some(to)) {
            self.client.select(*db).await?;
            let mut out = Vec::new();
            keys.iter().for_each(|key| command(&mut out, &[b"EXISTS", key]));
            let replies = self.client.pipeline(&out, keys.len()).await?;
            exists.iter_mut().zip(&replies).for_each(|(exists, reply)| *exists |= reply.number() == Some(1));
        }
        Ok(keys.into_iter().zip(exists).filter(|(_, exists)| *exists).map(|(key, _)| key).collect())
    }
}

impl Selection<'_> {
    fn contains(&self, key: &[u8]) -> bool {
        let at = slot(key);
        !key.starts_with(RESERVED_PREFIX)
            && self.route.includes(key)
            && self.ranges.is_none_or(|ranges| ranges.iter().any(|(from, to)| (*from..=*to).contains(&at)))
    }

    /// Deletes the keys, unless another migration writes to the same target: its keys cannot be told from these. With an `origin`,
    /// only keys that exist there are deleted, which a full sync brings again; any other may be a client's. Returns what was
    /// done, as a sentence for the user; none where there was nothing to do.
    ///
    /// # Errors
    /// An error of a connection.
    pub(crate) async fn delete(
        &self,
        query: &mut QueryClient,
        names: &KeyNames,
        mut origin: Option<Origin<'_>>,
    ) -> Result<Option<String>> {
        if let Some(other) = target_locks::others(query, names).await?.first() {
            return Ok(Some(format!(
                "migration `{other}` writes to this target too, so no key was deleted before the new full sync. Keys that \
                 the source deleted in between may remain at the target"
            )));
        }
        let mut deleted = 0;
        for db in &self.dbs {
            query.select(*db).await?;
            for addr in query.masters() {
                deleted += self.delete_at(query, &addr, *db, &mut origin).await?;
            }
        }
        query.select(0).await?;
        let dbs: Vec<String> = self.dbs.iter().map(u32::to_string).collect();
        Ok((deleted > 0).then(|| {
            format!(
                "{deleted} selected keys of an earlier full sync were deleted in database {} of the target before the new \
                 full sync",
                dbs.join(", ")
            )
        }))
    }

    /// True when databases of the target hold keys that are not selected: then selected keys may be of others too.
    ///
    /// # Errors
    /// An error of a connection.
    pub(crate) async fn has_other_keys(&self, query: &mut QueryClient, dbs: &[u32]) -> Result<bool> {
        for db in dbs {
            query.select(*db).await?;
            let is_other = |key: &[u8]| {
                let is_selected = self.dbs.contains(db) && self.route.includes(key);
                !is_selected && !key.starts_with(RESERVED_PREFIX)
            };
            for addr in query.masters() {
                let mut cursor = Some(b"0".to_vec());
                while let Some(at) = cursor {
                    let (keys, next) = Self::scan(query, &addr, &at).await?;
                    if keys.iter().any(|key| is_other(key)) {
                        return Ok(true);
                    }
                    cursor = next;
                }
            }
        }
        Ok(false)
    }

    /// Calls with the database and the name of each of them.
    ///
    /// # Errors
    /// An error of a connection.
    pub(crate) async fn visit(
        &self,
        query: &mut QueryClient,
        mut visit: impl FnMut(u32, &[u8]),
    ) -> Result<()> {
        for db in &self.dbs {
            query.select(*db).await?;
            for addr in query.masters() {
                let mut cursor = Some(b"0".to_vec());
                while let Some(at) = cursor {
                    let (keys, next) = Self::scan(query, &addr, &at).await?;
                    keys.iter().filter(|key| self.contains(key)).for_each(|key| visit(*db, key));
                    cursor = next;
                }
            }
        }
        query.select(0).await
    }

    async fn delete_at(
        &self,
        query: &mut QueryClient,
        addr: &Addr,
        db: u32,
        origin: &mut Option<Origin<'_>>,
    ) -> Result<u64> {
        let (mut cursor, mut deleted) = (Some(b"0".to_vec()), 0);
        while let Some(at) = cursor {
            let (mut keys, next) = Self::scan(query, addr, &at).await?;
            keys.retain(|key| self.contains(key));
            if let Some(origin) = origin {
                keys = origin.retain_existing(self.route, db, keys).await.map_err(|f| f.at(Side::Source))?;
            }
            let done = query.call_each(&keys, &[b"UNLINK"], &[]).await?;
            deleted += done.iter().filter(|reply| reply.number() == Some(1)).count() as u64;
            cursor = next;
        }
        Ok(deleted)
    }

    /// One step of a scan: keys, and the next cursor; none at the end.
    async fn scan(
        query: &mut QueryClient,
        addr: &Addr,
        cursor: &[u8],
    ) -> Result<(Vec<Vec<u8>>, Option<Vec<u8>>)> {
        let client = query.client_at(addr).await?;
        let page =
            client.call(&[b"SCAN", cursor, b"COUNT", SCAN_COUNT]).await.map_err(|f| f.at(Side::Target))?;
        let Some([next, keys]) = page.array() else { return Ok((Vec::new(), None)) };
        let keys = keys.array().unwrap_or_default().iter().filter_map(Reply::text);
        let keys = keys.map(<[u8]>::to_vec).collect();
        Ok((keys, next.text().filter(|next| *next != b"0").map(<[u8]>::to_vec)))
    }
}
