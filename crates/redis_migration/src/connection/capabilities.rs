//! Features that a target lacks and a server has: proxies in front of several servers know no transactions, often no databases,
//! and sometimes no `RESTORE`.
//!
//! Without transactions, the checkpoint cannot be stored with the data. Changes then go on one by one, in their order; whatever
//! interrupts that costs another snapshot, which sets every key right that the source has, and leaves those that it deleted
//! meanwhile.

use model::error::{Error, Kind, Result};
use redis_proto::rdb::{Family, Type, dump};
use redis_proto::resp::Reply;

use crate::connection::RESERVED_PREFIX;
use crate::connection::client::Client;
use crate::connection::node::Node;
use crate::connection::reply_error::classify;
use crate::connection::server::{MissingFeatures, ServerInfo};

/// The note about such a target.
pub(crate) const NO_TRANSACTIONS_NOTE: &str = "the target (a proxy) does not support MULTI/EXEC: changes are applied one at a time, \
     and any interruption forces a new full sync; keys that the source deletes in between may remain at the target";
/// The note about a server without `RESTORE`.
pub(crate) const NO_RESTORE_NOTE: &str = "RESTORE is not permitted at the target: values are rebuilt from commands without LRU and LFU, \
                                and module values are not migrated";
/// Snapshots that are taken for a target that breaks again and again.
pub(crate) const FULL_SYNCS_MAX: u64 = 5;

impl MissingFeatures {
    /// What a server is, by its own words, or a target that has none, by trying: a proxy may close the connection upon what
    /// it does not know.
    ///
    /// # Errors
    /// An error of a connection.
    pub async fn detect(node: &Node, info: Result<ServerInfo>) -> Result<ServerInfo> {
        let node = Node { db: None, ..node.clone() };
        match info {
            Ok(server) => match Self::transactional(&node, server.cluster).await? {
                Some(missing) => Ok(ServerInfo { missing, ..server }),
                None => Self::probe_all(&node, server).await,
            },
            // It answers, and does not say what it is.
            Err(f) if f.kind != Kind::Forbidden && !is_known(&node, &[b"INFO"]).await? => {
                let m = format!("{}: no reply to INFO or PING: {}", node.display_url(), f.message);
                let answered = Client::open(&node).await?.execute(&[b"PING"]).await;
                answered.map_err(|_| Error { message: m, ..f })?;
                Self::probe_all(&node, ServerInfo::unknown()).await
            }
            Err(f) => Err(f),
        }
    }

    /// What a server with transactions lacks, asked on one connection; none of one without, or that ends the connection.
    async fn transactional(node: &Node, cluster: bool) -> Result<Option<Self>> {
        let mut client = Client::open(node).await?;
        // No server takes this payload, so nothing is written.
        let answer = client.call_reply(&[b"RESTORE", &probe(), b"0", b"x"]).await;
        let restore = match &answer {
            Ok(Reply::Error(text))
                if matches!(classify(text).kind(), Kind::Forbidden | Kind::Unsupported) =>
            {
                true
            }
            Err(f) if f.kind == Kind::Timeout => return Err(f.clone()),
            answer => match known(answer) {
                Some(known) => !known,
                None => return Ok(None),
            },
        };
        let transactions = cluster || known(&client.call_reply(&[b"MULTI"]).await) == Some(true);
        Ok(transactions.then(|| Self { restore, ..Self::default() }))
    }

    async fn probe_all(node: &Node, server: ServerInfo) -> Result<ServerInfo> {
        let missing = Self {
            transactions: !is_known(node, &[b"MULTI"]).await?,
            databases: !is_known(node, &[b"SELECT", b"0"]).await?,
            restore: !is_known(node, &[b"RESTORE", &probe(), b"1000", &payload(FORMATS[0].0)]).await?,
        };
        let mut server = ServerInfo { missing, ..server };
        if server.run_id.is_empty() && !missing.restore {
            let mut client = Client::open(node).await?;
            for (format, version) in FORMATS {
                if client.call(&[b"RESTORE", &probe(), b"1000", &payload(format)]).await.is_ok() {
                    server.version = version;
                }
            }
        }
        Ok(server)
    }
}

/// Versions of the format, and of the first Redis that takes them; each takes all before it.
const FORMATS: [(u16, (u32, u32)); 6] =
    [(6, (3, 0)), (8, (4, 0)), (9, (5, 0)), (10, (7, 0)), (11, (7, 2)), (12, (7, 4))];

/// A random key, which expires after a second.
fn probe() -> Vec<u8> {
    [RESERVED_PREFIX, format!("probe:{:016x}", fastrand::u64(..)).as_bytes()].concat()
}

/// A string of one byte.
fn payload(version: u16) -> Vec<u8> {
    let mut out = Vec::new();
    dump::payload(&mut out, Type { family: Family::Redis, number: 0 }, &[1, b'x'], version);
    out
}

/// Whether a command is known; a connection that ends upon it says no, if another one is answered.
async fn is_known(node: &Node, args: &[&[u8]]) -> Result<bool> {
    match known(&Client::open(node).await?.call_reply(args).await) {
        Some(known) => Ok(known),
        None => {
            Client::open(node).await?.execute(&[b"PING"]).await?;
            Ok(false)
        }
    }
}

/// Whether a command is known, by the answer to it; none when the connection has ended.
fn known(answer: &Result<Reply>) -> Option<bool> {
    match answer {
        Ok(Reply::Error(text)) => Some(!classify(text).is_unknown_command()),
        Err(f) if f.kind == Kind::Connect => None,
        Ok(_) | Err(_) => Some(true),
    }
}
