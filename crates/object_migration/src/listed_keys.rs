//! The keys that the copy pass of a run has settled, so that the deletion pass of the same run removes none of them: a
//! source may stop listing objects that it has.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::key::Key;

/// Keys that are remembered, 64 bits each. Beyond them the source is only asked again.
const MAX_KEYS: usize = 2 << 20;

/// Hashes of keys. Two keys of one hash are taken for one, which keeps an object and deletes none.
#[derive(Debug, Default)]
pub struct ListedKeys {
    hasher: RandomState,
    hashes: Mutex<HashSet<u64>>,
}

impl ListedKeys {
    fn hashes(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a key at its source's name.
    pub fn insert(&self, key: &Key) {
        let mut hashes = self.hashes();
        if hashes.len() < MAX_KEYS {
            hashes.insert(self.hasher.hash_one(key.as_bytes()));
        }
    }

    /// True for a key that was remembered.
    pub fn contains(&self, key: &Key) -> bool {
        self.hashes().contains(&self.hasher.hash_one(key.as_bytes()))
    }
}
