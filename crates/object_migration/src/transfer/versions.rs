//! A key with all its versions: those that the target does not have yet are written in their order, oldest first.
//!
//! Whatever is interrupted goes on by looking: the newest versions at the target that equal the oldest at the source
//! are there already.

use std::sync::Arc;

use model::count::Proof;
use model::error::{Error, Kind, Result, Side};
use model::key::Key;
use storage::{Entry, ListRequest, ObjectStore, Position, Version};

use crate::ledger::outcome::Outcome;
use crate::transfer::plan::{Plan, plan};
use crate::transfer::{ObjectCopier, TransferEnd};

/// How many of the source's oldest versions are the target's newest already.
pub fn versions_present(source: &[Version], target: &[Version]) -> usize {
    let same = |(a, b): (&Version, &Version)| match (&a.entry, &b.entry) {
        (None, None) => true,
        (Some(a), Some(b)) => a.size == b.size && a.etag.proves(&b.etag) != Some(false),
        _ => false,
    };
    let most = source.len().min(target.len());
    (0..=most).rev().find(|n| source[..*n].iter().zip(&target[target.len() - n..]).all(same)).unwrap_or(0)
}

async fn list_versions(store: &dyn ObjectStore, key: &Key) -> Result<Vec<Version>> {
    let Some(text) = key.as_str() else {
        let m = format!("`{key}` is not valid UTF-8: its versions cannot be listed");
        return Err(Error::new(Kind::InvalidKey, "list_versions", m));
    };
    // The key itself sorts before everything that it is a prefix of.
    let request = ListRequest { prefix: text.to_owned(), from: Position::Start, max: 1000, delimiter: None };
    let page = store.list_versions(&request).await?;
    page.keys.into_iter().find(|(k, _)| k == key).map_or(Ok(Vec::new()), |(_, versions)| versions)
}

/// The weaker of two proofs.
fn weaker_proof(a: Proof, b: Proof) -> Proof {
    let strength = |p: &Proof| match p {
        Proof::Size => 0,
        Proof::Crc64 => 1,
        Proof::Etag => 2,
        Proof::Digest => 3,
    };
    if strength(&a) <= strength(&b) { a } else { b }
}

impl ObjectCopier {
    /// Moves what the target lacks of a key's versions.
    pub(crate) async fn copy_versions(self: Arc<Self>, entry: Entry) -> TransferEnd {
        let to = entry.key.under(&self.spec.save_prefix);
        let both = async {
            Ok((list_versions(&*self.source, &entry.key).await?, list_versions(&*self.target, &to).await?))
        };
        let (source, target) = match both.await {
            Ok(both) => both,
            Err(failure) => return self.end_of_failure(failure, entry.size),
        };
        if source.is_empty() {
            let failure = Error::new(Kind::NotFound, "list_versions", "it has no versions");
            return self.source_missing(&entry.key, failure.at(Side::Source), entry.size).await;
        }
        let done = versions_present(&source, &target);
        if done == source.len() {
            return TransferEnd::Outcome(Outcome::Skipped("same versions"), entry.size);
        }
        let mut proof = Proof::Digest;
        for version in &source[done..] {
            if self.stop.is_cancelled() {
                return TransferEnd::TaskFailed(Error::stopped("copy"));
            }
            match self.clone().copy_version(&entry.key, &to, version).await {
                TransferEnd::Outcome(Outcome::Copied(with), _) => proof = weaker_proof(proof, with),
                TransferEnd::Outcome(Outcome::Deleted, _) => {}
                // It vanished meanwhile, as life-cycle rules let versions vanish: the others are still worth having.
                TransferEnd::Outcome(Outcome::Gone, _) => {}
                TransferEnd::Outcome(other, _) => return TransferEnd::Outcome(other, entry.size),
                broke => return broke,
            }
        }
        TransferEnd::Outcome(Outcome::Copied(proof), entry.size)
    }

    async fn copy_version(self: Arc<Self>, key: &Key, to: &Key, version: &Version) -> TransferEnd {
        let Some(entry) = &version.entry else {
            return match self.target.delete(to).await {
                Ok(()) => TransferEnd::Outcome(Outcome::Deleted, 0),
                Err(failure) => self.end_of_failure(failure, 0),
            };
        };
        let Some(source) = self.source.version(&version.id) else {
            let failure = Error::new(
                Kind::Unsupported,
                "list_versions",
                "versioning is not enabled for the \
                 source",
            );
            return TransferEnd::Outcome(Outcome::Failed(failure), entry.size);
        };
        let entry = Entry { key: key.clone(), ..entry.clone() };
        let copier = Arc::new(ObjectCopier {
            source: Arc::new(source),
            server_side: false,
            ..self.with_stop(self.stop.clone())
        });
        let planned = plan(entry.size, &entry.etag, None, self.spec.part_size, self.target.capability());
        if matches!(planned, Plan::Single) && self.ledger.upload_of(key).is_none() {
            let permits = copier.acquire_permits().await;
            return copier.copy_single(entry, permits).await;
        }
        copier.copy_multipart(entry).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::Etag;

    fn chain(text: &str) -> Vec<Version> {
        let entry = |c: char| Entry {
            key: Key::from("k"),
            size: 1,
            modified_ms: 0,
            written_ms: 0,
            etag: Etag::Md5([c as u8; 16]),
            class: None,
        };
        let version =
            |c: char| Version { id: c.into(), at_ms: 0, latest: false, entry: (c != '-').then(|| entry(c)) };
        text.chars().map(version).collect()
    }

    #[test]
    fn versions_at_the_end_of_the_target_are_not_written_again() {
        for (source, target, want) in [
            ("abc", "", 0),
            ("abc", "a", 1),
            ("abc", "ab", 2),
            ("abc", "abc", 3),
            ("abc", "xyab", 2),
            ("abc", "abcx", 0),
            ("a-b", "a-", 2),
            ("aab", "a", 1),
            ("aab", "aa", 2),
            ("", "x", 0),
        ] {
            assert_eq!(versions_present(&chain(source), &chain(target)), want, "{source} at {target}");
        }
    }
}
