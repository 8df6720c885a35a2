//! Propagating deletions: what stands at the target and not at the source is removed, each key only after the
//! source has said once more that it does not have it.

use std::sync::Arc;

use model::count::Tally;
use model::failure::{Kind, Result, Side};
use model::key::Key;
use model::selection::Scope;
use storage::{Entry, ObjectStore};
use tokio::task::JoinSet;

use crate::feed::Feed;
use crate::glob::Filter;
use crate::records;

/// Removals at once.
const AT_ONCE: usize = 32;

/// Lists the target and finds what the source does not have; `remove` also removes it. Answers how much that is.
///
/// # Errors
/// When a side cannot be listed or asked, or a removal fails.
pub async fn prune(
    source: Arc<dyn ObjectStore>,
    target: Arc<dyn ObjectStore>,
    filter: &Filter,
    remove: bool,
) -> Result<Tally> {
    let scope = Scope::Prefix(String::new());
    let mut pages = Feed::list(target.clone(), &scope, "", Key::default(), Side::Target);
    let mut under_way: JoinSet<Result<Option<u64>>> = JoinSet::new();
    let mut pruned = Tally::default();
    let mut count =
        |done: Option<std::result::Result<Result<Option<u64>>, tokio::task::JoinError>>| -> Result<()> {
            let Some(done) = done else { return Ok(()) };
            let ended = |e: tokio::task::JoinError| {
                model::failure::Failure::new(Kind::Internal, "delete", e.to_string())
            };
            if let Some(size) = done.map_err(ended)?? {
                pruned += Tally::one(size);
            }
            Ok(())
        };
    while let Some(page) = pages.next().await {
        for entry in page?.entries {
            let ours = records::is_record(entry.key.as_bytes());
            if ours || !filter.keeps(entry.key.as_bytes()) {
                continue;
            }
            while under_way.len() >= AT_ONCE {
                count(under_way.join_next().await)?;
            }
            under_way.spawn(one(source.clone(), target.clone(), entry, remove));
        }
    }
    while !under_way.is_empty() {
        count(under_way.join_next().await)?;
    }
    Ok(pruned)
}

/// Its size, when the source does not have it.
async fn one(
    source: Arc<dyn ObjectStore>,
    target: Arc<dyn ObjectStore>,
    entry: Entry,
    remove: bool,
) -> Result<Option<u64>> {
    match source.head(&entry.key, None).await {
        Ok(_) => Ok(None),
        // A name that the source could never hold is not there either.
        Err(f) if matches!(f.kind, Kind::NotFound | Kind::KeyRefused) => {
            if remove {
                target.delete(&entry.key).await.map_err(|f| f.at(Side::Target))?;
            }
            Ok(Some(entry.size))
        }
        Err(f) => Err(f.at(Side::Source)),
    }
}
