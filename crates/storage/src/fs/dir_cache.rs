//! What a walk of the tree leaves behind for the next page: names of directories, and what no object can be made of.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// Names that are held of one directory.
pub(super) const SPAN: usize = 100_000;
const IGNORED_MAX: usize = 1000;
/// Directories whose names are held.
const CACHED_DIRS: usize = 64;

/// The next names of recently walked directories, so that a page does not read a directory again.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Vec<(Vec<u8>, Arc<Span>)>>);

impl Cache {
    /// The names of a directory from `from` on, if they are held and the directory has not changed since.
    pub(super) fn find(&self, base: &[u8], stamp: i128, from: &[u8]) -> Option<Arc<Span>> {
        let mut cache = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = cache.iter().position(|(b, s)| {
            let covers = s.complete || s.names.last().is_some_and(|l| l.as_slice() > from);
            b == base && s.stamp == stamp && s.after.as_slice() <= from && covers
        })?;
        let hit = cache.remove(known);
        let span = hit.1.clone();
        cache.push(hit);
        Some(span)
    }

    /// Holds the names of a directory; the directory that was used least recently is dropped beyond the bounds.
    pub(super) fn keep(&self, base: &[u8], span: &Arc<Span>) {
        let mut cache = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        cache.retain(|(b, _)| b != base);
        cache.push((base.to_vec(), span.clone()));
        let held: usize = cache.iter().map(|(_, s)| s.names.len()).sum();
        if cache.len() > CACHED_DIRS || held > 2 * SPAN {
            cache.remove(0);
        }
    }
}

/// What was met that no object can be made of.
#[derive(Debug, Default)]
pub(super) struct Ignored(Mutex<BTreeSet<String>>);

impl Ignored {
    pub(super) fn add(&self, key: &[u8], why: &str) {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if all.len() < IGNORED_MAX {
            all.insert(format!("`{}` ({why})", String::from_utf8_lossy(key).escape_debug()));
        }
    }

    /// All of them, with reasons.
    pub(super) fn list(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter().cloned().collect()
    }
}

#[derive(Debug)]
pub(super) struct Span {
    /// Modification time of the directory when it was read, nanoseconds.
    pub(super) stamp: i128,
    /// Names sort after this.
    pub(super) after: Vec<u8>,
    /// Sorted; directories end in `/`.
    pub(super) names: Vec<Vec<u8>>,
    /// True when no name follows the last.
    pub(super) complete: bool,
}

impl Span {
    pub(super) fn empty() -> Arc<Self> {
        Arc::new(Self { stamp: 0, after: Vec::new(), names: Vec::new(), complete: true })
    }
}
