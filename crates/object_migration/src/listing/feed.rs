//! Where entries come from: a listing, a single key, or the failed objects of an earlier run. Pages are
//! fetched one ahead.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use model::error::{Kind, Result, Side};
use model::key::{Key, Order};
use model::selection::Scope;
use storage::{Entry, ListRequest, Meta, ObjectStore, Page, Position};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::listing::lister::{ListedPage, Lister, PAGE_KEYS};

/// Pages of one range, in order.
#[derive(Debug)]
pub(crate) struct Feed {
    pages: mpsc::Receiver<Result<ListedPage>>,
    task: AbortHandle,
    /// Where the consumer wants to be: a listing that lags behind jumps.
    wanted: Arc<Mutex<Key>>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The first-level folders below a prefix: at most one page of them.
pub(crate) async fn list_folders(store: &dyn ObjectStore, prefix: &str) -> Result<Page> {
    let delimiter = Some('/');
    store
        .list(&ListRequest { prefix: prefix.to_owned(), from: Position::Start, max: PAGE_KEYS, delimiter })
        .await
}

impl Feed {
    /// Lists on from where a lister stands, a page ahead of its consumer.
    pub(crate) fn of_listing(lister: Lister) -> Feed {
        Self::of_listing_until(lister, |_| false)
    }

    /// The same; no page is requested behind one of which `is_last` is true.
    pub(crate) fn of_listing_until(
        mut lister: Lister,
        is_last: impl Fn(&Page) -> bool + Send + 'static,
    ) -> Feed {
        let (tx, pages) = mpsc::channel(1);
        let wanted = Arc::new(Mutex::new(Key::default()));
        let hint = wanted.clone();
        let task = tokio::spawn(async move {
            // The page before has been taken.
            while let Ok(place) = tx.reserve().await {
                let Some(page) = lister.next().await.transpose() else { return };
                let over = page.as_ref().map_or(true, |listed| is_last(&listed.page));
                place.send(page);
                if over {
                    return;
                }
                // The consumer may be past the next pages already.
                let wanted = hint.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                if let Err(failure) = lister.skip_to(&wanted).await {
                    let _ = tx.send(Err(failure)).await;
                    return;
                }
            }
        });
        Feed { pages, task: task.abort_handle(), wanted }
    }

    /// A scope after a key; a key scope is asked for directly.
    pub(crate) fn of_scope(
        store: Arc<dyn ObjectStore>,
        scope: &Scope,
        prefix: &str,
        after: Key,
        side: Side,
    ) -> Feed {
        match scope {
            Scope::Prefix(_) => Feed::of_listing(Lister::after(store, prefix, after, side)),
            Scope::Key(_) if !after.is_empty() => Feed::empty(),
            Scope::Key(_) => Feed::of_key(store, Key::from(prefix)),
        }
    }

    /// A single key.
    pub(crate) fn of_key(store: Arc<dyn ObjectStore>, key: Key) -> Feed {
        let (tx, pages) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let page = head_page(&*store, key).await.map(|page| ListedPage { page, from: Position::Start });
            let _ = tx.send(page).await;
        });
        Feed::from_pages(pages, task.abort_handle())
    }

    /// No page.
    pub(crate) fn empty() -> Feed {
        Feed::from_pages(mpsc::channel(1).1, tokio::spawn(async {}).abort_handle())
    }

    /// The next page; none when there are no more.
    pub(crate) async fn next(&mut self) -> Option<Result<ListedPage>> {
        self.pages.recv().await
    }

    fn want(&self, key: &Key) {
        *self.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = key.clone();
    }

    /// A feed of prepared entries: the failed objects of an earlier run.
    pub(crate) fn from_pages(pages: mpsc::Receiver<Result<ListedPage>>, task: AbortHandle) -> Feed {
        Feed { pages, task, wanted: Arc::default() }
    }
}

/// An object as a listing would show it.
pub(crate) fn entry_of(key: Key, meta: Meta) -> Entry {
    Entry {
        key,
        size: meta.size,
        modified_ms: meta.modified_ms.unwrap_or(0),
        written_ms: if meta.written_ms > 0 { meta.written_ms } else { meta.modified_ms.unwrap_or(0) },
        etag: meta.etag,
        class: meta.class.map(Into::into),
    }
}

/// A page with one key, or with none when it does not exist.
pub(crate) async fn head_page(store: &dyn ObjectStore, key: Key) -> Result<Page> {
    match store.head(&key, None).await {
        Ok(meta) => Ok(Page { entries: vec![entry_of(key, meta)], ..Page::default() }),
        Err(f) if f.kind == Kind::NotFound => Ok(Page::default()),
        Err(f) => Err(f),
    }
}

/// The target's side of the lock-step listing.
#[derive(Debug)]
pub(crate) enum TargetLookup {
    /// The rule does not ask.
    NotNeeded,
    /// Both sides list in one order: a merge, no HEAD per object.
    Merge { feed: Feed, held: VecDeque<Entry>, over: bool, order: Order },
    /// Orders differ: a HEAD per key.
    Head,
}

/// What the target has under a key.
pub(crate) enum TargetEntry {
    Known(Option<Entry>),
    /// Another page is needed first.
    NeedPage,
    /// The key must be asked for by itself.
    NeedHead,
}

impl TargetLookup {
    /// What is known without asking the target.
    pub(crate) fn lookup(&mut self, key: &Key) -> TargetEntry {
        match self {
            TargetLookup::NotNeeded => TargetEntry::Known(None),
            TargetLookup::Head => TargetEntry::NeedHead,
            TargetLookup::Merge { feed, held, over, order } => {
                while let Some(first) = held.front() {
                    match order.compare(first.key.as_bytes(), key.as_bytes()) {
                        std::cmp::Ordering::Less => held.pop_front(),
                        std::cmp::Ordering::Equal => return TargetEntry::Known(held.pop_front()),
                        std::cmp::Ordering::Greater => return TargetEntry::Known(None),
                    };
                }
                if *over {
                    return TargetEntry::Known(None);
                }
                feed.want(key);
                TargetEntry::NeedPage
            }
        }
    }

    /// Waits for the next page. Safe to abandon.
    pub(crate) async fn next_page(&mut self) -> Result<()> {
        if let TargetLookup::Merge { feed, held, over, .. } = self {
            match feed.next().await {
                None => *over = true,
                Some(page) => {
                    let ListedPage { page, .. } = page?;
                    *over = !page.more();
                    held.extend(page.entries);
                }
            }
        }
        Ok(())
    }
}
