//! Where entries come from: a listing, a single key, or the failed objects of an earlier run. Pages are
//! fetched one ahead.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use model::failure::{Failure, Kind, Result, Side};
use model::key::{Key, Order};
use model::selection::Scope;
use storage::{Entry, ListRequest, Meta, ObjectStore, Page};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub(crate) const PAGE: u32 = 1000;

/// Pages of one range, in order.
#[derive(Debug)]
pub(crate) struct Feed {
    pages: mpsc::Receiver<Result<Page>>,
    task: AbortHandle,
    /// Where the consumer wants to be: a listing that lags behind jumps.
    wanted: Arc<Mutex<Key>>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Checks that a page keeps the store's promise: keys rise from `after`.
pub(crate) fn check_order(order: Order, after: &Key, page: &Page) -> Result<()> {
    if page.more && page.entries.last().is_none_or(|e| e.key == *after) {
        return Err(Failure::new(
            Kind::Disorder,
            "list",
            "a page claims that more keys follow, and leads no further",
        ));
    }
    let mut last = after;
    for entry in &page.entries {
        if order == Order::Unknown {
            break;
        }
        if order.compare(entry.key.as_bytes(), last.as_bytes()).is_le()
            && !(last.is_empty() && entry.key.is_empty())
        {
            let m = format!("`{}` was listed after `{last}`, against the order `{order:?}`", entry.key);
            return Err(Failure::new(Kind::Disorder, "list", m));
        }
        last = &entry.key;
    }
    Ok(())
}

/// One page after `after`, with its order checked.
pub(crate) async fn fetch(store: &dyn ObjectStore, prefix: &str, after: &Key, side: Side) -> Result<Page> {
    fetch_in(store.capability().list_order, store, prefix, after, side).await
}

async fn fetch_in(
    order: Order,
    store: &dyn ObjectStore,
    prefix: &str,
    after: &Key,
    side: Side,
) -> Result<Page> {
    let request = ListRequest { prefix: prefix.to_owned(), after: after.clone(), max: PAGE, delimiter: None };
    let page = store.list(&request).await?;
    check_order(order, after, &page).map_err(|f| f.at(side))?;
    Ok(page)
}

/// The first-level folders below a prefix: at most one page of them.
pub(crate) async fn folders(store: &dyn ObjectStore, prefix: &str) -> Result<Page> {
    let delimiter = Some('/');
    store.list(&ListRequest { prefix: prefix.to_owned(), after: Key::default(), max: PAGE, delimiter }).await
}

impl Feed {
    /// Lists a scope after a key; a key scope is asked for directly.
    pub(crate) fn list(
        store: Arc<dyn ObjectStore>,
        scope: &Scope,
        prefix: &str,
        after: Key,
        side: Side,
    ) -> Feed {
        let order = store.capability().list_order;
        Feed::in_order(store, order, scope, prefix, after, side)
    }

    /// The same, for whom no order matters.
    pub(crate) fn as_it_comes(store: Arc<dyn ObjectStore>, scope: &Scope, prefix: &str, after: Key) -> Feed {
        Feed::in_order(store, Order::Unknown, scope, prefix, after, Side::Target)
    }

    fn in_order(
        store: Arc<dyn ObjectStore>,
        order: Order,
        scope: &Scope,
        prefix: &str,
        after: Key,
        side: Side,
    ) -> Feed {
        let (tx, pages) = mpsc::channel(1);
        let wanted = Arc::new(Mutex::new(Key::default()));
        let hint = wanted.clone();
        let single = match scope {
            Scope::Key(_) => Some(Key::from(prefix)),
            Scope::Prefix(_) => None,
        };
        let prefix = prefix.to_owned();
        let task = tokio::spawn(async move {
            if let Some(key) = single {
                if after.is_empty() {
                    let _ = tx.send(one(&*store, key).await).await;
                }
                return;
            }
            let mut after = after;
            loop {
                let page = fetch_in(order, &*store, &prefix, &after, side).await;
                let more = page.as_ref().is_ok_and(|p| p.more);
                if let Some(last) = page.as_ref().ok().and_then(|p| p.entries.last()) {
                    after = last.key.clone();
                }
                if tx.send(page).await.is_err() || !more {
                    return;
                }
                // Jump ahead when the consumer is already past this page: list from just before its key.
                let jump = hint.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                if order == Order::Bytes
                    && let Some(text) = jump.as_str()
                    && let Some((cut, _)) = text.char_indices().next_back()
                    && text.as_bytes()[..cut] > *after.as_bytes()
                {
                    after = Key::from(&text[..cut]);
                }
            }
        });
        Feed { pages, task: task.abort_handle(), wanted }
    }

    /// The next page; none when there are no more.
    pub(crate) async fn next(&mut self) -> Option<Result<Page>> {
        self.pages.recv().await
    }

    fn want(&self, key: &Key) {
        *self.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = key.clone();
    }

    /// A feed of prepared entries: the failed objects of an earlier run.
    pub(crate) fn of(pages: mpsc::Receiver<Result<Page>>, task: AbortHandle) -> Feed {
        Feed { pages, task, wanted: Arc::default() }
    }
}

/// An object as a listing would show it.
pub(crate) fn entry_of(key: Key, meta: Meta) -> Entry {
    Entry {
        key,
        size: meta.size,
        modified_ms: meta.modified_ms,
        written_ms: meta.modified_ms,
        etag: meta.etag,
        class: meta.class.map(Into::into),
    }
}

/// A page with one key, or with none when it does not exist.
pub(crate) async fn one(store: &dyn ObjectStore, key: Key) -> Result<Page> {
    match store.head(&key, None).await {
        Ok(meta) => Ok(Page { entries: vec![entry_of(key, meta)], ..Page::default() }),
        Err(f) if f.kind == Kind::NotFound => Ok(Page::default()),
        Err(f) => Err(f),
    }
}

/// The target's side of the lock-step listing.
#[derive(Debug)]
pub(crate) enum TargetSide {
    /// The rule does not ask.
    Unasked,
    /// Both sides list in one order: a merge, no HEAD per object.
    Merge { feed: Feed, held: VecDeque<Entry>, over: bool, order: Order },
    /// Orders differ: a HEAD per key.
    Head,
}

/// What the target has under a key.
pub(crate) enum Stands {
    Known(Option<Entry>),
    /// Another page is needed first.
    NeedPage,
    /// The key must be asked for by itself.
    NeedHead,
}

impl TargetSide {
    /// What is known without asking the target.
    pub(crate) fn look(&mut self, key: &Key) -> Stands {
        match self {
            TargetSide::Unasked => Stands::Known(None),
            TargetSide::Head => Stands::NeedHead,
            TargetSide::Merge { feed, held, over, order } => {
                while let Some(first) = held.front() {
                    match order.compare(first.key.as_bytes(), key.as_bytes()) {
                        std::cmp::Ordering::Less => held.pop_front(),
                        std::cmp::Ordering::Equal => return Stands::Known(held.pop_front()),
                        std::cmp::Ordering::Greater => return Stands::Known(None),
                    };
                }
                if *over {
                    return Stands::Known(None);
                }
                feed.want(key);
                Stands::NeedPage
            }
        }
    }

    /// Waits for the next page. Safe to abandon.
    pub(crate) async fn more(&mut self) -> Result<()> {
        if let TargetSide::Merge { feed, held, over, .. } = self {
            match feed.next().await {
                None => *over = true,
                Some(page) => {
                    let page = page?;
                    *over = !page.more;
                    held.extend(page.entries);
                }
            }
        }
        Ok(())
    }
}
