//! Feeds of chosen keys out of the store: objects that failed before, and archived objects that can be read by now.

use std::sync::Arc;

use model::error::{Error, Policy, Side};
use model::key::Key;
use storage::retrying::RetryingStore;
use storage::{Meta, ObjectStore, Page, Position};
use store::Store;

use crate::listing::feed::{Feed, entry_of, head_page};
use crate::listing::lister::ListedPage;

/// Archived objects are waited for so long, milliseconds.
pub(crate) const RESTORE_TIMEOUT_MS: i64 = 5 * 24 * 3600 * 1000;

/// The failed objects of an earlier run, as pages of entries; those that are gone are left out.
pub(crate) fn failed_feed(store: Store, task: i64, after: Key, source: Arc<RetryingStore>) -> Feed {
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    let work = tokio::spawn(async move {
        let mut after = after;
        loop {
            let rows = async { store.read().await?.failures(task, &after, 200).await };
            let rows = match rows.await {
                Ok(rows) => rows,
                Err(f) => {
                    let _ = tx.send(Err(f)).await;
                    return;
                }
            };
            let more = rows.len() == 200;
            let mut page = Page::default();
            for row in rows {
                after = row.key.clone();
                match head_page(&*source, row.key).await {
                    Ok(found) => page.entries.extend(found.entries),
                    Err(f) => {
                        let _ = tx.send(Err(f.at(Side::Source))).await;
                        return;
                    }
                }
            }
            page.next = more.then(|| Position::After(after.clone()));
            if tx.send(Ok(ListedPage { page, from: Position::Start })).await.is_err() || !more {
                return;
            }
        }
    });
    Feed::from_pages(rx, work.abort_handle())
}

/// What is waited for and can be read now, as pages of entries. What has not come within [`RESTORE_TIMEOUT_MS`] is read all the
/// same, so that it fails with the store's own answer.
pub(crate) fn restored_feed(
    store: Store,
    task: i64,
    after: Key,
    source: Arc<RetryingStore>,
    now: i64,
) -> Feed {
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    let work = tokio::spawn(async move {
        let mut after = after;
        loop {
            let page = async {
                let rows = store.read().await?.restores(task, &after, 200).await?;
                let more = rows.len() == 200;
                let mut page = Page::default();
                for row in rows {
                    after = row.key.clone();
                    let meta = match source.head(&row.key, None).await {
                        Err(f) if f.kind.policy() == Policy::GiveUp => {
                            Meta { size: row.size, ..Meta::default() }
                        }
                        meta => meta?,
                    };
                    if !meta.archived || now - row.asked_at > RESTORE_TIMEOUT_MS {
                        page.entries.push(entry_of(row.key, meta));
                    }
                }
                page.next = more.then(|| Position::After(after.clone()));
                Ok::<_, Error>(ListedPage { page, from: Position::Start })
            };
            let page = page.await.map_err(|f| f.at(Side::Source));
            let more = page.as_ref().is_ok_and(|p| p.page.more());
            if tx.send(page).await.is_err() || !more {
                return;
            }
        }
    });
    Feed::from_pages(rx, work.abort_handle())
}
