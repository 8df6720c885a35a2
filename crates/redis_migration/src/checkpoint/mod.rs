//! The state of a migration that is stored at the target: how far it is. It is written in the transaction that
//! makes the changes, so that neither can be there without the other.
//!
//! Decision: ADR 0011, `docs/adr/0011-checkpoint-stored-with-the-data.md`.

pub mod cleanup;
pub(crate) mod failures;
pub(crate) mod fencing;
pub mod keys;
pub(crate) mod selection;
pub mod slot_layout;
pub(crate) mod suspects;
pub(crate) mod target_locks;
pub(crate) mod watermarks;

use model::error::{Error, Kind, Result, Side};

use crate::checkpoint::keys::KeyNames;
use crate::connection::query_client::QueryClient;
use crate::source::psync::Position;

/// How far a migration is, by what stands at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// A snapshot is being applied to a target that was empty: what stands in these databases of it, and is selected, is part
    /// of the snapshot. None are named by earlier versions.
    FullSync(Vec<u32>),
    /// Everything up to a position of the source's stream is applied; the stream was in this database. On clusters the
    /// checkpoints of slots that belong to it begin with the third word.
    Applied(Position, u32, Option<String>),
}

impl Checkpoint {
    /// As it is written.
    pub fn text(&self) -> String {
        match self {
            Checkpoint::FullSync(dbs) => {
                dbs.iter().fold("full".to_owned(), |text, db| format!("{text} {db}"))
            }
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
            ["full", ref dbs @ ..] => {
                dbs.iter().map(|db| db.parse().ok()).collect::<Option<_>>().map(Checkpoint::FullSync)
            }
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
    /// An error of the connection; [`Kind::Conflict`] when something else stands under its name.
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
                return Error::new(Kind::Conflict, "halted", m).at(Side::Target);
            }
            let m =
                format!("`{name}` at the target is not a valid checkpoint (`{text}`); hint: delete the key");
            Error::new(Kind::Conflict, "checkpoint", m).at(Side::Target)
        })?;
        Ok(Some(checkpoint))
    }
}

/// The checkpoint of a running migration is not at the target any more, and the data with it.
pub(crate) fn checkpoint_missing(url: &str) -> Error {
    let m = format!(
        "{url}: the checkpoint of this migration was deleted at the target while it was running: another client flushed \
         or emptied the target; hint: run the same command again, which starts a full sync"
    );
    Error::new(Kind::Conflict, "checkpoint", m).at(Side::Target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_values_round_trip() {
        let applied = |epoch| Checkpoint::Applied(Position { replid: "ab12".into(), offset: 7 }, 3, epoch);
        let full = |dbs: &[u32]| Checkpoint::FullSync(dbs.to_vec());
        for checkpoint in [full(&[]), full(&[0, 15]), applied(None), applied(Some("e1".into()))] {
            assert_eq!(Checkpoint::parse(&checkpoint.text()), Some(checkpoint));
        }
        for wrong in ["applied x", "full x"] {
            assert_eq!(Checkpoint::parse(wrong), None, "{wrong}");
        }
    }
}
