//! Names of the keys that a migration keeps at its target.

use redis_proto::command::tag;

use crate::connection::RESERVED_PREFIX;

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
    /// A set of keys that the target held before.
    pub existing: Vec<u8>,
    /// A hash of what could not be migrated.
    pub failed: Vec<u8>,
}

/// A fencing token that no other run has.
pub(crate) fn new_token() -> String {
    format!("{:032x}", fastrand::u128(..))
}

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
            existing: name("existing"),
            failed: name("failed"),
        }
    }

    /// The names of one of several links of a migration.
    pub fn for_link(&self, n: u16) -> Self {
        Self::new(&format!("{}:{n}", self.id))
    }

    /// True for this migration, and for another link of it.
    pub(crate) fn is_of_same_migration(&self, id: &str) -> bool {
        let link_of = |id: &str, migration: &str| {
            id.strip_prefix(migration)
                .and_then(|rest| rest.strip_prefix(':'))
                .is_some_and(|n| n.parse::<u16>().is_ok())
        };
        let parent = self.id.rsplit_once(':').filter(|(_, n)| n.parse::<u16>().is_ok()).map(|(id, _)| id);
        self.id == id || link_of(id, &self.id) || parent.is_some_and(|p| p == id || link_of(id, p))
    }

    /// The checkpoint of one slot of a cluster: it changes with the keys of that slot.
    pub fn slot_checkpoint(&self, slot: u16) -> Vec<u8> {
        [&self.checkpoint[..], b":{", tag(slot).as_bytes(), b"}"].concat()
    }

    /// The list of suspect keys of one slot.
    pub fn slot_suspects(&self, slot: u16) -> Vec<u8> {
        [&self.suspects[..], b":{", tag(slot).as_bytes(), b"}"].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_belong_to_one_migration() {
        let (whole, link) = (KeyNames::new("a1:ff"), KeyNames::new("a1:ff").for_link(5461));
        for id in ["a1:ff", "a1:ff:0", "a1:ff:5461"] {
            assert!(whole.is_of_same_migration(id) && link.is_of_same_migration(id), "{id}");
        }
        for id in ["a1", "a1:fe", "b", "a1:ff:x", "a1:ff:99999"] {
            assert!(!whole.is_of_same_migration(id) && !link.is_of_same_migration(id), "{id}");
        }
    }
}
