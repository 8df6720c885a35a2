//! Feeds of chosen keys out of the store: objects that failed before, and archived objects that can be read by now.

use std::future::Future;
use std::sync::Arc;

use model::error::{Policy, Result, Side};
use model::key::Key;
use storage::retrying::RetryingStore;
use storage::{Meta, ObjectStore, Page, Position};
use store::Store;

use crate::listing::feed::{Feed, entry_of, head_page};
use crate::listing::lister::ListedPage;

/// Archived objects are waited for so long, milliseconds.
pub(crate) const RESTORE_TIMEOUT_MS: i64 = 5 * 24 * 3600 * 1000;

/// Rows that are read from the store for one page.
const PAGE_ROWS: u64 = 200;

/// The failed objects of an earlier run, as pages of entries, without those that are gone.
pub(crate) fn failed_feed(store: Store, task: i64, after: Key, source: Arc<RetryingStore>) -> Feed {
    paged(after, move |after| {
        let (store, source) = (store.clone(), source.clone());
        async move { failed_page(&store, task, &after, source).await }
    })
}

/// Archived objects that are waited for and can be read now, as pages of entries. An object that is not restored within
/// [`RESTORE_TIMEOUT_MS`] is included, so that it fails with the error of the store.
pub(crate) fn restored_feed(
    store: Store,
    task: i64,
    after: Key,
    source: Arc<RetryingStore>,
    now: i64,
) -> Feed {
    paged(after, move |after| {
        let (store, source) = (store.clone(), source.clone());
        async move { restored_page(&store, task, &after, &source, now).await.map_err(|f| f.at(Side::Source)) }
    })
}

/// A feed of pages of rows: each begins after the last key of the one before.
fn paged<F, P>(after: Key, page_after: F) -> Feed
where
    F: Fn(Key) -> P + Send + 'static,
    P: Future<Output = Result<Page>> + Send,
{
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    let work = tokio::spawn(async move {
        let mut after = after;
        loop {
            let page = page_after(after).await;
            let next = page.as_ref().ok().and_then(|page| page.next.clone());
            let page = page.map(|page| ListedPage { page, from: Position::Start });
            if tx.send(page).await.is_err() {
                return;
            }
            let Some(Position::After(last)) = next else { return };
            after = last;
        }
    });
    Feed::from_pages(rx, work.abort_handle())
}

/// A page without entries that says where the next one begins, if these rows are not the last ones.
fn page_of(rows: usize, last: Option<&Key>) -> Page {
    let next = last.filter(|_| rows as u64 == PAGE_ROWS).map(|key| Position::After(key.clone()));
    Page { next, ..Page::default() }
}

async fn failed_page(store: &Store, task: i64, after: &Key, source: Arc<RetryingStore>) -> Result<Page> {
    let rows = store.read().await?.failures(task, after, PAGE_ROWS).await?;
    let mut page = page_of(rows.len(), rows.last().map(|row| &row.key));
    for row in rows {
        let found = head_page(&*source, row.key).await.map_err(|f| f.at(Side::Source))?;
        page.entries.extend(found.entries);
    }
    Ok(page)
}

async fn restored_page(
    store: &Store,
    task: i64,
    after: &Key,
    source: &RetryingStore,
    now: i64,
) -> Result<Page> {
    let rows = store.read().await?.restores(task, after, PAGE_ROWS).await?;
    let mut page = page_of(rows.len(), rows.last().map(|row| &row.key));
    for row in rows {
        let meta = match source.head(&row.key, None).await {
            Err(f) if f.kind.policy() == Policy::GiveUp => Meta { size: row.size, ..Meta::default() },
            meta => meta?,
        };
        if !meta.archived || now - row.asked_at > RESTORE_TIMEOUT_MS {
            page.entries.push(entry_of(row.key, meta));
        }
    }
    Ok(page)
}
