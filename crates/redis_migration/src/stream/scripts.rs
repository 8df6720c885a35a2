//! Scripts of the source. Servers before 7 send a script's text once to their replicas (`EVAL`), and then only its digest
//! (`EVALSHA`). The target's cache is lost when it restarts, and other nodes of a cluster never had it. So the texts are stored
//! next to the checkpoint, and the target is always sent the text.
//!
//! Texts come with the snapshot (auxiliary field `lua`), with `EVAL` and with `SCRIPT LOAD`.

use std::collections::BTreeMap;

/// Scripts that are kept: as many as a source keeps (server.h, `CONFIG_DEFAULT_REPL_SCRIPT_CACHE_SIZE`).
const COUNT_MAX: usize = 10_000;
/// Bytes of the scripts that are kept.
const BYTES_MAX: usize = 64 << 20;

/// Texts by their digests.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptCache {
    texts: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
}

impl ScriptCache {
    /// Keeps a text; answers its digest when it is new.
    pub(crate) fn insert(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text);
        let digest = storage::checksum::hex(digest.as_ref()).into_bytes();
        let full = self.texts.len() >= COUNT_MAX || self.bytes + text.len() > BYTES_MAX;
        if full || self.texts.contains_key(&digest) {
            return None;
        }
        self.bytes += text.len();
        self.texts.insert(digest.clone(), text.to_vec());
        Some(digest)
    }

    /// The text of a digest, in any case.
    pub(crate) fn text(&self, digest: &[u8]) -> Option<&[u8]> {
        self.texts.get(&digest.to_ascii_lowercase()).map(Vec::as_slice)
    }

    /// The words that keep some of them, or all, under a key.
    pub(crate) fn store_command<'a>(&'a self, key: &'a [u8], only: Option<&'a [u8]>) -> Vec<&'a [u8]> {
        let wanted = self.texts.iter().filter(|(digest, _)| only.is_none_or(|one| one == digest.as_slice()));
        let pairs: Vec<&[u8]> = wanted.flat_map(|(digest, text)| [digest.as_slice(), text]).collect();
        match pairs.is_empty() {
            true => vec![],
            false => [&b"HSET"[..], key].into_iter().chain(pairs).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_05_script_texts_are_found_by_digest() {
        let mut scripts = ScriptCache::default();
        let digest = scripts.insert(b"return 1").unwrap();
        assert_eq!(digest, b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(scripts.insert(b"return 1"), None);
        assert_eq!(scripts.text(&digest.to_ascii_uppercase()), Some(&b"return 1"[..]));
        assert_eq!(scripts.store_command(b"k", None), [&b"HSET"[..], b"k", &digest, b"return 1"]);
        assert!(
            scripts.store_command(b"k", Some(b"other")).is_empty()
                && ScriptCache::default().store_command(b"k", None).is_empty()
        );
    }
}
