//! Keys that the target held before a snapshot or a file, and that were not in it. What the source does to such a key later is
//! meant for a key that does not exist: the key is deleted before its first change ([`Conflict::Replace`]), or keeps what it holds
//! ([`Conflict::Skip`]).
//!
//! A migration keeps the hashes of these keys in a set at the target, so that a later run knows them too.

use std::collections::HashSet;

use model::error::{Error, Kind, Result, Side};
use redis_proto::command;
use redis_proto::rdb::dump;
use redis_proto::resp::Reply;

use crate::checkpoint::selection::Selection;
use crate::connection::query_client::QueryClient;
use crate::snapshot::restore::Conflict;
use crate::stream::expiry_guard::overwrites_key;

/// Keys that are remembered; a set of so many at the target takes about 60 MB.
const EXISTING_MAX: usize = 1_000_000;
/// Members of the set that are written together.
const BATCH_MEMBERS: usize = 1000;
/// The member of every set: it may hold no key.
const RECORDED: &[u8] = b"";

/// What a change means for such keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ExistingVerdict<'a> {
    /// It is applied.
    Pass,
    /// These keys are deleted before it.
    Delete(Vec<&'a [u8]>),
    /// It fails, because of this key.
    Fail(&'a [u8]),
}

/// Such keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExistingKeys {
    hashes: HashSet<u64>,
    conflict: Conflict,
    /// Where they are kept at the target; none: nowhere.
    set: Option<Vec<u8>>,
    /// They were read before an earlier snapshot: every other key is from this migration, and may be replaced.
    is_recalled: bool,
    /// There were too many to be remembered.
    is_unknown: bool,
}

fn hash(db: u32, key: &[u8]) -> u64 {
    dump::crc64(&[&db.to_le_bytes(), key].concat())
}

impl ExistingKeys {
    /// The selected keys of a target.
    ///
    /// # Errors
    /// An error of a connection; [`Kind::TooLarge`] when they are too many to be protected.
    pub(crate) async fn read(
        selection: &Selection<'_>,
        query: &mut QueryClient,
        conflict: Conflict,
    ) -> Result<Self> {
        let mut hashes = HashSet::new();
        selection
            .visit(query, |db, key| {
                if hashes.len() <= EXISTING_MAX {
                    hashes.insert(hash(db, key));
                }
            })
            .await?;
        if hashes.len() <= EXISTING_MAX {
            return Ok(Self { hashes, conflict, ..Self::default() });
        }
        match conflict {
            // Most of them are replaced by the snapshot.
            Conflict::Replace => Ok(Self { is_unknown: true, ..Self::default() }),
            Conflict::Skip | Conflict::Fail => {
                let m = format!(
                    "the target holds more than {EXISTING_MAX} selected keys, too many to keep them from changes; hint: \
                     copy without following changes (--full-only), or without --skip-existing and --fail-on-existing"
                );
                Err(Error::new(Kind::TooLarge, "existing", m).at(Side::Target))
            }
        }
    }

    /// Those that an earlier run recorded in a set at the target; none when it did not.
    ///
    /// # Errors
    /// An error of the connection.
    pub(crate) async fn recall(
        query: &mut QueryClient,
        set: &[u8],
        conflict: Conflict,
    ) -> Result<Option<Self>> {
        let members = query.call(0, set, &[b"SMEMBERS", set]).await?;
        let members: Vec<&[u8]> =
            members.array().unwrap_or_default().iter().filter_map(Reply::text).collect();
        let hashes = members.iter().filter_map(|m| Some(u64::from_le_bytes((*m).try_into().ok()?))).collect();
        let known = Self { hashes, conflict, set: Some(set.to_vec()), is_recalled: true, is_unknown: false };
        Ok((!members.is_empty()).then_some(known))
    }

    /// Records them in a set at the target.
    ///
    /// # Errors
    /// An error of the connection.
    pub(crate) async fn record(&mut self, query: &mut QueryClient, set: &[u8]) -> Result<()> {
        query.execute(set, &[b"DEL", set]).await?;
        let members: Vec<[u8; 8]> = self.hashes.iter().map(|hash| hash.to_le_bytes()).collect();
        query.execute(set, &[b"SADD", set, RECORDED]).await?;
        for some in members.chunks(BATCH_MEMBERS) {
            let words = [&b"SADD"[..], set].into_iter().chain(some.iter().map(|m| &m[..]));
            query.execute(set, &words.collect::<Vec<_>>()).await?;
        }
        self.set = Some(set.to_vec());
        Ok(())
    }

    /// There is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Something to know about keys that are replaced when the source changes them.
    pub(crate) fn note(&self) -> Option<String> {
        if self.is_unknown {
            return Some(format!(
                "the target holds more than {EXISTING_MAX} selected keys, too many to be remembered: those that the source \
                 does not have remain, and its later changes are applied to what they hold; hint: run `whimbrel redis \
                 verify`, or empty the target first"
            ));
        }
        let n = self.hashes.len();
        let note = format!(
            "{n} selected keys of the target were not in the full sync and remain there; each is replaced when the source \
             changes it"
        );
        (n > 0).then_some(note)
    }

    /// The set at the target that holds them.
    pub(crate) fn set(&self) -> Option<&[u8]> {
        self.set.as_deref()
    }

    /// The member of that set for a key.
    pub(crate) fn member(db: u32, key: &[u8]) -> [u8; 8] {
        hash(db, key).to_le_bytes()
    }

    /// They keep what they hold.
    pub(crate) fn is_protected(&self, db: u32, key: &[u8]) -> bool {
        self.conflict == Conflict::Skip && self.hashes.contains(&hash(db, key))
    }

    /// True while any key keeps what it holds.
    pub(crate) fn protects_any(&self) -> bool {
        self.conflict != Conflict::Replace && !self.is_empty()
    }

    /// What happens to keys of the snapshot that the target holds.
    pub(crate) fn conflict_of_snapshot(&self, conflict: Conflict) -> Conflict {
        if self.is_recalled && conflict == Conflict::Skip { Conflict::Replace } else { conflict }
    }

    /// The snapshot has replaced a key.
    pub(crate) fn set_replaced(&mut self, db: u32, key: &[u8]) {
        if self.conflict == Conflict::Replace && !self.is_empty() {
            self.hashes.remove(&hash(db, key));
        }
    }

    /// Their databases have changed places: they are not known any more. Returns their set at the target.
    pub(crate) fn forget(&mut self) -> Option<Vec<u8>> {
        self.hashes.clear();
        self.set.take()
    }

    /// One of them is about to be replaced.
    pub(crate) fn take(&mut self, db: u32, key: &[u8]) -> bool {
        self.conflict == Conflict::Replace && self.hashes.remove(&hash(db, key))
    }

    /// What a change in a database of the target means for them.
    pub(crate) fn check<'a>(&mut self, name: &[u8], args: &[&'a [u8]], db: u32) -> ExistingVerdict<'a> {
        if self.is_empty() || self.conflict == Conflict::Skip {
            return ExistingVerdict::Pass;
        }
        let mut found: Vec<&'a [u8]> =
            command::keys(args).unwrap_or_default().iter().map(|(_, key)| *key).collect();
        found.retain(|key| self.hashes.contains(&hash(db, key)));
        match (found.first(), self.conflict) {
            (None, _) => ExistingVerdict::Pass,
            (Some(key), Conflict::Fail) => ExistingVerdict::Fail(key),
            (Some(_), _) => {
                for key in &found {
                    self.hashes.remove(&hash(db, key));
                }
                // The set at the target must follow in any case.
                match overwrites_key(name, args) && self.set.is_none() {
                    true => ExistingVerdict::Pass,
                    false => ExistingVerdict::Delete(found),
                }
            }
        }
    }
}
