//! What stands at the target about a migration, beside its data: how far it is. It is written in the transaction that
//! makes the changes, so that neither can be there without the other.

use std::time::Duration;

use model::failure::{Failure, Kind, Result, Side};

use redis_proto::command::tag;
use redis_proto::resp::Reply;

use crate::client::Client;
use crate::node::Node;
use crate::query_client::QueryClient;
use crate::slot_layout::{self, SlotLayout};
use crate::source::psync::Position;
use crate::target_locks;

/// How far a migration is, by what stands at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// A snapshot is being applied to a target that was empty: what stands there is part of it, and nothing else.
    FullSync,
    /// Everything up to a position of the source's stream is applied; the stream was in this database. On clusters the
    /// checkpoints of slots that belong to it begin with the third word.
    Applied(Position, u32, Option<String>),
}

/// Names of what is kept at the target, in its database 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyNames {
    /// Of which migration, or which link of it.
    pub id: String,
    /// The checkpoint.
    pub checkpoint: Vec<u8>,
    /// A sorted set of keys that the target's clock may have taken too early.
    pub suspects: Vec<u8>,
    /// A hash of the source's scripts.
    pub scripts: Vec<u8>,
    /// Names of connections that write begin so.
    pub writer_name: Vec<u8>,
    /// The token of the run that may write.
    pub fencing_token: Vec<u8>,
}

/// What a user is told where the target refuses `CLIENT`.
pub(crate) const UNFENCED_NOTE: &str = "the target refuses CLIENT, so that an earlier run of this migration cannot be disconnected: it is given \
                                   time to end by itself, and one that was frozen may still write what it had read";
/// An earlier run looks so often whether it is still its turn, where nobody can disconnect it.
pub(crate) const TOKEN_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// So long it is waited for.
const STALE_WRITER_TIMEOUT: Duration = Duration::from_millis(2500);

/// Keys of migrations begin with this; they never count as data.
pub const RESERVED_PREFIX: &[u8] = b"whimbrel:redis:";

impl KeyNames {
    /// The names of one migration.
    pub fn new(id: &str) -> Self {
        let name = |what: &str| [RESERVED_PREFIX, what.as_bytes(), b":", id.as_bytes()].concat();
        Self {
            id: id.to_owned(),
            checkpoint: name("offset"),
            suspects: name("doubted"),
            scripts: name("scripts"),
            writer_name: name("writer"),
            fencing_token: name("owner"),
        }
    }

    /// The names of one of several links of a migration.
    pub fn for_link(&self, n: u16) -> Self {
        Self::new(&format!("{}:{n}", self.id))
    }

    /// The checkpoint of one slot of a cluster: it changes with the keys of that slot.
    pub fn slot_checkpoint(&self, slot: u16) -> Vec<u8> {
        [&self.checkpoint[..], b":{", tag(slot).as_bytes(), b"}"].concat()
    }

    /// The list of suspect keys of one slot.
    pub fn slot_suspects(&self, slot: u16) -> Vec<u8> {
        [&self.suspects[..], b":{", tag(slot).as_bytes(), b"}"].concat()
    }

    /// Makes sure that nobody but `token` writes for this migration. What another run had sent may still wait in the
    /// target's buffers, and would be applied behind our back: its connection is ended. To be done when `writer`, our own
    /// connection, has its name, and before the checkpoint is read: whoever comes later then sees it and ends it. The run that
    /// began last holds the token; `first` is true for the first attempt of a run. False where the target refuses `CLIENT`: an
    /// earlier run was then given time to notice, and this one is to look at its turn ([`KeyNames::verify_token`]).
    ///
    /// # Errors
    /// [`Kind::Conflict`] when another run has taken over; what the connection meets.
    pub async fn fence(
        &self,
        query: &mut Client,
        writer: &mut Client,
        token: &str,
        first: bool,
    ) -> Result<bool> {
        if first {
            query
                .execute(&[b"SET", &self.fencing_token, token.as_bytes()])
                .await
                .map_err(|f| f.at(Side::Target))?;
        }
        let fenced = self.evict_stale_writers(query, writer).await?;
        if !fenced {
            wait_for_stale_writers().await;
        }
        self.verify_token(query, token).await?;
        Ok(fenced)
    }

    /// The run that began last holds the token.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when that is another one.
    pub async fn verify_token(&self, query: &mut Client, token: &str) -> Result<()> {
        let fencing_token =
            query.call(&[b"GET", &self.fencing_token]).await.map_err(|f| f.at(Side::Target))?;
        if fencing_token == Reply::Nil {
            // The target has lost everything, and the token with it: the first run that comes takes it.
            query
                .execute(&[b"SET", &self.fencing_token, token.as_bytes(), b"NX"])
                .await
                .map_err(|f| f.at(Side::Target))?;
            return Ok(());
        }
        if fencing_token.text() != Some(token.as_bytes()) {
            let m = "another run of this migration has taken over at the target";
            return Err(Failure::new(Kind::Conflict, "fence", m).at(Side::Target));
        }
        Ok(())
    }

    /// Names the connection that writes, and ends every other of that name; false where the target refuses `CLIENT`.
    ///
    /// # Errors
    /// What the connection meets.
    pub async fn evict_stale_writers(&self, query: &mut Client, writer: &mut Client) -> Result<bool> {
        let at = |f: Failure| f.at(Side::Target);
        // Without transactions nothing is exact: better to know that now.
        writer.execute(&[b"MULTI"]).await.map_err(at)?;
        writer.execute(&[b"EXEC"]).await.map_err(at)?;
        match self.kill_other_writers(query, writer).await.map_err(at) {
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => Ok(false),
            done => done.map(|()| true),
        }
    }

    async fn kill_other_writers(&self, query: &mut Client, writer: &mut Client) -> Result<()> {
        // Servers before 5.0 know no `CLIENT ID`: it is known by its name.
        let all = format!("{}/", String::from_utf8_lossy(&self.writer_name));
        let own = format!("{all}{:016x}", fastrand::u64(..));
        writer.execute(&[b"CLIENT", b"SETNAME", own.as_bytes()]).await?;
        let reply = query.call(&[b"CLIENT", b"LIST"]).await?;
        let text = String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned();
        for line in text.lines() {
            let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
            let (Some(id), Some(name)) = (field("id="), field("name=")) else { continue };
            if name.starts_with(&all) && name != own {
                // It may have gone by itself meanwhile.
                query.call(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()]).await?;
            }
        }
        Ok(())
    }
}

/// Waits until an earlier run has noticed that its turn is over.
pub(crate) async fn wait_for_stale_writers() {
    tokio::time::sleep(STALE_WRITER_TIMEOUT).await;
}

/// Keys that stand at a single server about a migration, beside its data; those at a cluster are not counted.
///
/// # Errors
/// What the connection meets.
pub async fn count_reserved_keys(query: &mut QueryClient, names: &KeyNames) -> Result<u64> {
    if query.is_cluster() {
        return Ok(0);
    }
    let mut all =
        SlotLayout::read(query, names).await.ok().flatten().map_or(vec![], |layout| layout.links(names));
    all.push(names.clone());
    let mut words: Vec<&[u8]> = vec![b"EXISTS"];
    let locks = target_locks::locks_key();
    words.push(&locks);
    words.extend(all.iter().flat_map(|n| [&n.checkpoint[..], &n.suspects, &n.scripts, &n.fencing_token]));
    let found = query.call(0, &names.checkpoint, &words).await?;
    Ok(found.number().and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// Takes away what stands at a target about a migration that will not go on; its data stay.
///
/// # Errors
/// What the connections meet.
pub async fn forget(target: &Node, names: &KeyNames) -> Result<()> {
    let (mut query, ..) = QueryClient::open(target, Side::Target).await?;
    // Where the source is a cluster, each of its links has names of its own.
    let mut all =
        SlotLayout::read(&mut query, names).await.ok().flatten().map_or(vec![], |layout| layout.links(names));
    all.push(names.clone());
    slot_layout::forget_links(&mut query, &all).await
}

/// Removes every key of migrations at a target, whichever migration left it; the data stay. Answers how many there were.
///
/// # Errors
/// [`Kind::Conflict`] while a migration writes there, unless `anyway`; what the connections meet.
pub async fn clean(target: &Node, anyway: bool) -> Result<u64> {
    let (mut query, server, _) = QueryClient::open(target, Side::Target).await?;
    let writers = String::from_utf8_lossy(&[RESERVED_PREFIX, b"writer:"].concat()).into_owned();
    let masters = query.masters();
    for addr in masters.iter().filter(|_| !anyway) {
        let reply = match query.client_at(addr).await?.call(&[b"CLIENT", b"LIST"]).await {
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => {
                let m = format!(
                    "{}: whether a migration writes there cannot be seen: {}",
                    target.display_url(),
                    f.message
                );
                return Err(Failure::new(Kind::Conflict, "clean", m).at(Side::Target));
            }
            reply => reply.map_err(|f| f.at(Side::Target))?,
        };
        let text = String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned();
        if text.split(' ').any(|word| word.strip_prefix("name=").is_some_and(|n| n.starts_with(&writers))) {
            let m = format!("{}: a migration is writing to this target", target.display_url());
            return Err(Failure::new(Kind::Conflict, "clean", m).at(Side::Target));
        }
    }
    let mut dbs = server.dbs.clone();
    if server.has_databases() && !dbs.contains(&0) {
        dbs.push(0);
    }
    let (pattern, mut gone) = ([RESERVED_PREFIX, b"*"].concat(), 0);
    for db in dbs {
        query.select(db).await?;
        for addr in &masters {
            let mut cursor = b"0".to_vec();
            loop {
                let words: [&[u8]; 6] = [b"SCAN", &cursor, b"MATCH", &pattern, b"COUNT", b"1000"];
                let page = query.client_at(addr).await?.call(&words).await.map_err(|f| f.at(Side::Target))?;
                let Some([next, keys]) = page.array() else { break };
                let keys = keys.array().unwrap_or_default().iter().filter_map(Reply::text);
                let keys: Vec<Vec<u8>> =
                    keys.filter(|k| k.starts_with(RESERVED_PREFIX)).map(<[u8]>::to_vec).collect();
                cursor = next.text().unwrap_or(b"0").to_vec();
                let done = query.call_each(&keys, &[b"DEL"], &[]).await?;
                gone += done.iter().filter(|reply| reply.number() == Some(1)).count() as u64;
                if cursor == b"0" {
                    break;
                }
            }
        }
    }
    Ok(gone)
}

impl Checkpoint {
    /// As it is written.
    pub fn text(&self) -> String {
        match self {
            Checkpoint::FullSync => "full".into(),
            Checkpoint::Applied(position, db, epoch) => {
                let epoch = epoch.as_ref().map(|e| format!(" {e}")).unwrap_or_default();
                format!("applied {} {} {db}{epoch}", position.replid, position.offset)
            }
        }
    }

    /// Out of what was written.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["full"] => Some(Checkpoint::FullSync),
            ["applied", replid, offset, db, ref rest @ ..] if rest.len() < 2 => {
                let position = Position { replid: replid.to_owned(), offset: offset.parse().ok()? };
                let epoch = rest.first().map(|e| (*e).to_owned());
                Some(Checkpoint::Applied(position, db.parse().ok()?, epoch))
            }
            _ => None,
        }
    }

    /// Reads it at a target.
    ///
    /// # Errors
    /// What the connection meets; [`Kind::Conflict`] when something else stands under its name.
    pub async fn read(query: &mut QueryClient, names: &KeyNames) -> Result<Option<Self>> {
        let reply = query.call(0, &names.checkpoint, &[b"GET", &names.checkpoint]).await?;
        let Some(text) = reply.text() else { return Ok(None) };
        let text = String::from_utf8_lossy(text).into_owned();
        let checkpoint = Self::parse(&text).ok_or_else(|| {
            let name = String::from_utf8_lossy(&names.checkpoint).into_owned();
            if let Some(why) = text.strip_prefix("diverged: ") {
                let m = format!(
                    "an earlier run failed: {why}; its checkpoint key `{name}` at the target is no \
                     longer valid"
                );
                return Failure::new(Kind::Conflict, "halted", m).at(Side::Target);
            }
            let m =
                format!("`{name}` at the target is not a valid checkpoint (`{text}`); hint: delete the key");
            Failure::new(Kind::Conflict, "marker", m).at(Side::Target)
        })?;
        Ok(Some(checkpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_come_back() {
        let applied = |epoch| Checkpoint::Applied(Position { replid: "ab12".into(), offset: 7 }, 3, epoch);
        for checkpoint in [Checkpoint::FullSync, applied(None), applied(Some("e1".into()))] {
            assert_eq!(Checkpoint::parse(&checkpoint.text()), Some(checkpoint));
        }
        assert_eq!(Checkpoint::parse("applied x"), None);
    }
}
