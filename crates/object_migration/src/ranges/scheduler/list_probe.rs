//! One speculative list request, and what the one for folders finds.

use model::key::{Key, Order};
use storage::Page;

use crate::listing::lister::PAGE_KEYS;

/// The first-level folders below a prefix, in the source's order.
#[derive(Debug, Default)]
pub(super) struct TopFolders {
    pub(super) folders: Vec<Key>,
    /// Nothing lies behind this, when all folders and keys of the level fitted in one page.
    pub(super) end: Option<Key>,
}

impl TopFolders {
    pub(super) fn from_page(page: Page, order: Order) -> Self {
        let mut folders: Vec<Key> = page.folders.into_iter().map(Key::from).collect();
        folders.sort_by(|a, b| order.compare(a.as_bytes(), b.as_bytes()));
        let complete = page.next.is_none();
        let behind = folders.last().map(|f| Key::from(format!("{f}{}", char::MAX)));
        let keys = page.entries.into_iter().map(|e| e.key);
        let last = keys.chain(behind).max_by(|a, b| order.compare(a.as_bytes(), b.as_bytes()));
        Self { folders, end: last.filter(|_| complete) }
    }
}

/// One speculative list request.
pub(super) enum ListProbe {
    /// The first-level folders.
    Folders,
    /// A page behind a key: a range can begin with it.
    Page(Key),
    /// The first key behind a key: a range can begin there, and lists its first page itself.
    FirstKey(Key),
}

impl ListProbe {
    /// The key behind which it looks, and how many keys it asks for.
    pub(super) fn guess(&self) -> Option<(&Key, u32)> {
        match self {
            ListProbe::Folders => None,
            ListProbe::Page(guess) => Some((guess, PAGE_KEYS)),
            ListProbe::FirstKey(guess) => Some((guess, 1)),
        }
    }
}
