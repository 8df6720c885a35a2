//! Pages of a sorted list.

use model::error::Result;
use model::key::Key;

use super::line;
use super::sorted::Sorted;
use crate::{Entry, Etag, ListRequest, Page, Position};

/// One page of a list: keys, and nothing about them.
pub(super) fn page(list: &Sorted, request: &ListRequest) -> Result<Page> {
    let max = request.max as usize;
    let after = request.from.after_key();
    let mut lines = list.after(after.as_bytes(), request.prefix.as_bytes(), max + 1)?;
    let more = lines.len() > max;
    lines.truncate(max);
    let bare = |line: line::Line| Entry {
        key: Key::from(line.key),
        size: 0,
        modified_ms: 0,
        written_ms: 0,
        etag: Etag::None,
        class: None,
    };
    let entries: Vec<Entry> = lines.into_iter().map(bare).collect();
    let next = entries.last().filter(|_| more).map(|last| Position::After(last.key.clone()));
    Ok(Page { entries, folders: vec![], next })
}
