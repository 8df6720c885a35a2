//! What stands at the target about a migration, beside its data: how far it is. It is written in the transaction that
//! makes the changes, so that neither can be there without the other.

use std::time::Duration;

use model::failure::{Failure, Kind, Result, Side};

use redis_proto::command::tag;
use redis_proto::resp::Reply;

use crate::asker::Asker;
use crate::claims;
use crate::client::Client;
use crate::node::Node;
use crate::parts::{self, Parts};
use crate::source::psync::Position;

/// How far a migration is, by what stands at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// A snapshot is being applied to a target that was empty: what stands there is part of it, and nothing else.
    Full,
    /// Everything up to a position of the source's stream is applied; the stream was in this database. On clusters the
    /// marks of slots that belong to it begin with the third word.
    Applied(Position, u32, Option<String>),
}

/// Names of what is kept at the target, in its database 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Of which migration, or which link of it.
    pub id: String,
    /// The marker.
    pub marker: Vec<u8>,
    /// A sorted set of keys that the target's clock may have taken too early.
    pub doubted: Vec<u8>,
    /// A hash of the source's scripts.
    pub scripts: Vec<u8>,
    /// Names of connections that write begin so.
    pub writer: Vec<u8>,
    /// Whose turn it is.
    pub owner: Vec<u8>,
}

/// What a user is told where the target refuses `CLIENT`.
pub(crate) const UNFENCED: &str = "the target refuses CLIENT, so that an earlier run of this migration cannot be disconnected: it is given \
                                   time to end by itself, and one that was frozen may still write what it had read";
/// An earlier run looks so often whether it is still its turn, where nobody can disconnect it.
pub(crate) const TURN: Duration = Duration::from_secs(1);
/// So long it is waited for.
const TURN_OVER: Duration = Duration::from_millis(2500);

/// Keys of ours begin so; they never count as data.
pub const OURS: &[u8] = b"whimbrel:redis:";

impl Names {
    /// The names of one migration.
    pub fn new(id: &str) -> Self {
        let name = |what: &str| [OURS, what.as_bytes(), b":", id.as_bytes()].concat();
        Self {
            id: id.to_owned(),
            marker: name("offset"),
            doubted: name("doubted"),
            scripts: name("scripts"),
            writer: name("writer"),
            owner: name("owner"),
        }
    }

    /// The names of one of several links of a migration.
    pub fn link(&self, n: u16) -> Self {
        Self::new(&format!("{}:{n}", self.id))
    }

    /// The marker of one slot of a cluster: it changes with the keys of that slot.
    pub fn marker_at(&self, slot: u16) -> Vec<u8> {
        [&self.marker[..], b":{", tag(slot).as_bytes(), b"}"].concat()
    }

    /// The list of doubted keys of one slot.
    pub fn doubted_at(&self, slot: u16) -> Vec<u8> {
        [&self.doubted[..], b":{", tag(slot).as_bytes(), b"}"].concat()
    }

    /// Makes sure that nobody but `token` writes for this migration. What another run had sent may still wait in the
    /// target's buffers, and would be applied behind our back: its connection is ended. To be done when `writer`, our own
    /// connection, has its name, and before the marker is read: whoever comes later then sees it and ends it. The run that
    /// began last has its turn; `first` is true for the first attempt of a run. False where the target refuses `CLIENT`: an
    /// earlier run was then given time to notice, and this one is to look at its turn ([`Names::check_turn`]).
    ///
    /// # Errors
    /// [`Kind::Conflict`] when another run has taken over; what the connection meets.
    pub async fn fence(
        &self,
        ask: &mut Client,
        writer: &mut Client,
        token: &str,
        first: bool,
    ) -> Result<bool> {
        if first {
            ask.ok(&[b"SET", &self.owner, token.as_bytes()]).await.map_err(|f| f.at(Side::Target))?;
        }
        let fenced = self.shut_out(ask, writer).await?;
        if !fenced {
            turn_over().await;
        }
        self.check_turn(ask, token).await?;
        Ok(fenced)
    }

    /// The run that began last has its turn.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when that is another one.
    pub async fn check_turn(&self, ask: &mut Client, token: &str) -> Result<()> {
        let owner = ask.call(&[b"GET", &self.owner]).await.map_err(|f| f.at(Side::Target))?;
        if owner == Reply::Nil {
            // The target has lost everything, and so its memory of whose turn it is: the first who comes has it.
            ask.ok(&[b"SET", &self.owner, token.as_bytes(), b"NX"]).await.map_err(|f| f.at(Side::Target))?;
            return Ok(());
        }
        if owner.text() != Some(token.as_bytes()) {
            let m = "another run of this migration has taken over at the target";
            return Err(Failure::new(Kind::Conflict, "fence", m).at(Side::Target));
        }
        Ok(())
    }

    /// Names the connection that writes, and ends every other of that name; false where the target refuses `CLIENT`.
    ///
    /// # Errors
    /// What the connection meets.
    pub async fn shut_out(&self, ask: &mut Client, writer: &mut Client) -> Result<bool> {
        let at = |f: Failure| f.at(Side::Target);
        // Without transactions nothing is exact: better to know that now.
        writer.ok(&[b"MULTI"]).await.map_err(at)?;
        writer.ok(&[b"EXEC"]).await.map_err(at)?;
        match self.end_others(ask, writer).await.map_err(at) {
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => Ok(false),
            done => done.map(|()| true),
        }
    }

    async fn end_others(&self, ask: &mut Client, writer: &mut Client) -> Result<()> {
        // Servers before 5.0 know no `CLIENT ID`: it is known by its name.
        let all = format!("{}/", String::from_utf8_lossy(&self.writer));
        let own = format!("{all}{:016x}", fastrand::u64(..));
        writer.ok(&[b"CLIENT", b"SETNAME", own.as_bytes()]).await?;
        let reply = ask.call(&[b"CLIENT", b"LIST"]).await?;
        let text = String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned();
        for line in text.lines() {
            let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
            let (Some(id), Some(name)) = (field("id="), field("name=")) else { continue };
            if name.starts_with(&all) && name != own {
                // It may have gone by itself meanwhile.
                ask.call(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()]).await?;
            }
        }
        Ok(())
    }
}

/// Waits until an earlier run has noticed that its turn is over.
pub(crate) async fn turn_over() {
    tokio::time::sleep(TURN_OVER).await;
}

/// Keys that stand at a single server about a migration, beside its data; those at a cluster are not counted.
///
/// # Errors
/// What the connection meets.
pub async fn standing(ask: &mut Asker, names: &Names) -> Result<u64> {
    if ask.is_cluster() {
        return Ok(0);
    }
    let mut all = Parts::read(ask, names).await.ok().flatten().map_or(vec![], |parts| parts.links(names));
    all.push(names.clone());
    let mut words: Vec<&[u8]> = vec![b"EXISTS"];
    let claims = claims::list();
    words.push(&claims);
    words.extend(all.iter().flat_map(|n| [&n.marker[..], &n.doubted, &n.scripts, &n.owner]));
    let found = ask.call(0, &names.marker, &words).await?;
    Ok(found.number().and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// Takes away what stands at a target about a migration that will not go on; its data stay.
///
/// # Errors
/// What the connections meet.
pub async fn forget(target: &Node, names: &Names) -> Result<()> {
    let (mut ask, ..) = Asker::open(target, Side::Target).await?;
    // Where the source is a cluster, each of its links has names of its own.
    let mut all =
        Parts::read(&mut ask, names).await.ok().flatten().map_or(vec![], |parts| parts.links(names));
    all.push(names.clone());
    parts::forget(&mut ask, &all).await
}

/// Takes away every key of ours at a target, whichever migration left it; the data stay. Answers how many there were.
///
/// # Errors
/// [`Kind::Conflict`] while a migration writes there, unless `anyway`; what the connections meet.
pub async fn clean(target: &Node, anyway: bool) -> Result<u64> {
    let (mut ask, server, _) = Asker::open(target, Side::Target).await?;
    let writers = String::from_utf8_lossy(&[OURS, b"writer:"].concat()).into_owned();
    let masters = ask.masters();
    for addr in masters.iter().filter(|_| !anyway) {
        let reply = match ask.server(addr).await?.call(&[b"CLIENT", b"LIST"]).await {
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => {
                let m = format!(
                    "{}: whether a migration writes there cannot be seen: {}",
                    target.place(),
                    f.message
                );
                return Err(Failure::new(Kind::Conflict, "clean", m).at(Side::Target));
            }
            reply => reply.map_err(|f| f.at(Side::Target))?,
        };
        let text = String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned();
        if text.split(' ').any(|word| word.strip_prefix("name=").is_some_and(|n| n.starts_with(&writers))) {
            let m = format!("{}: a migration is writing to this target", target.place());
            return Err(Failure::new(Kind::Conflict, "clean", m).at(Side::Target));
        }
    }
    let mut dbs = server.dbs.clone();
    if server.has_databases() && !dbs.contains(&0) {
        dbs.push(0);
    }
    let (pattern, mut gone) = ([OURS, b"*"].concat(), 0);
    for db in dbs {
        ask.select(db).await?;
        for addr in &masters {
            let mut cursor = b"0".to_vec();
            loop {
                let words: [&[u8]; 6] = [b"SCAN", &cursor, b"MATCH", &pattern, b"COUNT", b"1000"];
                let page = ask.server(addr).await?.call(&words).await.map_err(|f| f.at(Side::Target))?;
                let Some([next, keys]) = page.array() else { break };
                let keys = keys.array().unwrap_or_default().iter().filter_map(Reply::text);
                let keys: Vec<Vec<u8>> = keys.filter(|k| k.starts_with(OURS)).map(<[u8]>::to_vec).collect();
                cursor = next.text().unwrap_or(b"0").to_vec();
                let done = ask.each(&keys, &[b"DEL"], &[]).await?;
                gone += done.iter().filter(|reply| reply.number() == Some(1)).count() as u64;
                if cursor == b"0" {
                    break;
                }
            }
        }
    }
    Ok(gone)
}

impl Marker {
    /// As it is written.
    pub fn text(&self) -> String {
        match self {
            Marker::Full => "full".into(),
            Marker::Applied(position, db, epoch) => {
                let epoch = epoch.as_ref().map(|e| format!(" {e}")).unwrap_or_default();
                format!("applied {} {} {db}{epoch}", position.replid, position.offset)
            }
        }
    }

    /// Out of what was written.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["full"] => Some(Marker::Full),
            ["applied", replid, offset, db, ref rest @ ..] if rest.len() < 2 => {
                let position = Position { replid: replid.to_owned(), offset: offset.parse().ok()? };
                let epoch = rest.first().map(|e| (*e).to_owned());
                Some(Marker::Applied(position, db.parse().ok()?, epoch))
            }
            _ => None,
        }
    }

    /// Reads it at a target.
    ///
    /// # Errors
    /// What the connection meets; [`Kind::Conflict`] when something else stands under its name.
    pub async fn read(ask: &mut Asker, names: &Names) -> Result<Option<Self>> {
        let reply = ask.call(0, &names.marker, &[b"GET", &names.marker]).await?;
        let Some(text) = reply.text() else { return Ok(None) };
        let text = String::from_utf8_lossy(text).into_owned();
        let marker = Self::parse(&text).ok_or_else(|| {
            let name = String::from_utf8_lossy(&names.marker).into_owned();
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
        Ok(Some(marker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_come_back() {
        let applied = |epoch| Marker::Applied(Position { replid: "ab12".into(), offset: 7 }, 3, epoch);
        for marker in [Marker::Full, applied(None), applied(Some("e1".into()))] {
            assert_eq!(Marker::parse(&marker.text()), Some(marker));
        }
        assert_eq!(Marker::parse("applied x"), None);
    }
}
