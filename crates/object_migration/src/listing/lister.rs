//! Walking one listing from its beginning to its end, for every kind of store.
//!
//! ```text
//! begin ──page──> follow the token of the page ──page──> … ──page without a token──> over
//!   │
//!   └ after a key: ask a little before it, and see that the key comes (or is gone); else begin at the first key
//! ```
//!
//! Pages are followed by the server's own token. A key only begins a walk, and only as far as the server is seen to
//! understand that. The declared order is checked on every page and across pages: on
//! [`Kind::OutOfOrderListing`] the job lists again in a weaker order (`job/mod.rs`, `falls_back`).

mod cycle_detector;

use std::collections::VecDeque;
use std::sync::Arc;

use cycle_detector::{CycleDetector, RecentKeys};
use model::error::{Error, Kind, Result, Side};
use model::key::{Key, Order};
use storage::{Fact, ListRequest, ObjectStore, Page, Position, StartAfter};

/// Keys of one page at most.
pub(crate) const PAGE_KEYS: u32 = 1000;

/// Keys in which a wrong order shows: a page of most stores has more.
const ORDER_SAMPLE_KEYS: usize = 64;

/// Refused tokens behind one and the same key, and walks of one request, before a listing that refuses its own tokens is given up.
const REFUSED_MAX: u32 = 8;

/// Pages whose keys are remembered where no order tells a key that comes twice.
const REMEMBERED_PAGES: usize = 16;

/// One page, and where it was asked for.
#[derive(Debug, Default)]
pub(crate) struct ListedPage {
    pub(crate) page: Page,
    pub(crate) from: Position,
}

/// A walk through one listing.
#[derive(Debug)]
pub(crate) struct Lister {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    side: Side,
    /// The order that pages are held to; [`Order::Unknown`]: none.
    order: Order,
    /// Where the next page begins; none: the walk is over.
    next: Option<Position>,
    /// Keys that the next page is asked for; those behind it have [`PAGE_KEYS`].
    next_max: u32,
    /// Keys must come after this.
    last: Key,
    /// The walk begins after this key, which was not listed yet.
    expected_key: Option<Key>,
    /// The walk was begun after a key, not at the first.
    begun_after: bool,
    /// The last token was refused, and the walk began again behind the last key.
    token_refused: bool,
    /// The key that the walk went back to last, and how often in a row.
    back: (Key, u32),
    /// Notices tokens that lead in a circle.
    cycle: CycleDetector,
    recent: RecentKeys,
    /// Keys that are still to be seen in order before the first page is given out.
    order_unchecked: usize,
    /// Pages that were listed to be sure, and are given out first.
    ahead: VecDeque<ListedPage>,
}

impl Lister {
    /// From the first key, in the order that the store declares.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: &str, side: Side) -> Self {
        let order = store.capability().list_order;
        Self {
            store,
            prefix: prefix.to_owned(),
            side,
            order,
            next: Some(Position::Start),
            next_max: PAGE_KEYS,
            last: Key::default(),
            expected_key: None,
            begun_after: false,
            token_refused: false,
            back: (Key::default(), 0),
            cycle: CycleDetector::default(),
            recent: RecentKeys::default(),
            order_unchecked: 0,
            ahead: VecDeque::new(),
        }
    }

    /// The same walk, whose order is seen in [`ORDER_SAMPLE_KEYS`] keys before anybody concludes from it that a key is not there: what is
    /// written then cannot be taken back.
    pub(crate) fn with_checked_order(self) -> Self {
        Self { order_unchecked: if self.order == Order::Unknown { 0 } else { ORDER_SAMPLE_KEYS }, ..self }
    }

    /// From the first key, for whom no order matters.
    pub(crate) fn unordered(store: Arc<dyn ObjectStore>, prefix: &str, side: Side) -> Self {
        Self { order: Order::Unknown, ..Self::new(store, prefix, side) }
    }

    /// After a key that was listed before; the store must have an order.
    pub(crate) fn after(store: Arc<dyn ObjectStore>, prefix: &str, after: Key, side: Side) -> Self {
        let mut lister = Self::new(store, prefix, side);
        if after.is_empty() {
            return lister;
        }
        match lister.store.capability().list_start_after {
            StartAfter::Exact => lister.begin_at(after),
            StartAfter::Broken => lister.expected_key = Some(after),
            StartAfter::Unproved | StartAfter::Proved => {
                lister.begin_at(just_before(&after));
                lister.expected_key = Some(after);
            }
        }
        lister
    }

    /// After a guessed key, which may not exist, with at most `first_max` keys in the first page.
    pub(crate) fn probe(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        guess: &Key,
        first_max: u32,
        side: Side,
    ) -> Self {
        let mut lister = Self { next_max: first_max, ..Self::new(store, prefix, side) };
        lister.begin_at(guess.clone());
        lister
    }

    /// Where an earlier walk without an order had got to.
    pub(crate) fn at_position(store: Arc<dyn ObjectStore>, prefix: &str, from: Position, side: Side) -> Self {
        Self { next: Some(from), ..Self::new(store, prefix, side) }
    }

    /// Begins again behind the last key that was listed. A server that refuses each of its tokens, and does not begin at keys either,
    /// never gets beyond that key.
    fn go_back(&mut self, failure: &Error) -> Result<()> {
        let at = self.expected_key.clone().unwrap_or_else(|| self.last.clone());
        let times = if self.back.0 == at { self.back.1 + 1 } else { 1 };
        if times > REFUSED_MAX {
            let m = format!("cannot continue the listing after `{at}`: {}", failure.message);
            return Err(out_of_order(m));
        }
        let back = (at.clone(), times);
        let again = Self::after(self.store.clone(), &self.prefix, at, self.side);
        let ahead = std::mem::take(&mut self.ahead);
        *self = Self {
            order: self.order,
            token_refused: true,
            back,
            order_unchecked: self.order_unchecked,
            ahead,
            ..again
        };
        Ok(())
    }

    fn begin_at(&mut self, key: Key) {
        self.next = Some(Position::after(key.clone()));
        self.begun_after = !key.is_empty();
        self.last = key;
    }

    /// The next page that has keys; none when there are no more. Safe to abandon: the page is asked for again.
    pub(crate) async fn next(&mut self) -> Result<Option<ListedPage>> {
        while self.order_unchecked > 0 {
            match self.advance().await.map_err(|f| f.at(self.side))? {
                Some(listed) => {
                    self.order_unchecked = self.order_unchecked.saturating_sub(listed.page.entries.len());
                    self.ahead.push_back(listed);
                }
                None => self.order_unchecked = 0,
            }
        }
        match self.ahead.pop_front() {
            Some(listed) => Ok(Some(listed)),
            None => self.advance().await.map_err(|f| f.at(self.side)),
        }
    }

    async fn advance(&mut self) -> Result<Option<ListedPage>> {
        while let Some(from) = self.next.clone() {
            let Some(mut page) = self.request_page(&from).await? else { continue };
            self.token_refused = false;
            self.check_progress(&page, &from)?;
            if !self.begins_well(&page).await? {
                continue;
            }
            self.check_order(&page)?;
            if let Some(last) = page.entries.last() {
                self.last = last.key.clone();
            }
            self.leave_out_behind(&mut page);
            if self.order == Order::Unknown {
                self.recent.remove_duplicates(&mut page);
            }
            self.next.clone_from(&page.next);
            if !page.entries.is_empty() {
                return Ok(Some(ListedPage { page, from }));
            }
        }
        Ok(None)
    }

    /// One page. None when the server refused the position and the walk goes on from another one.
    async fn request_page(&mut self, from: &Position) -> Result<Option<Page>> {
        let prefix = self.prefix.clone();
        let request = ListRequest { prefix, from: from.clone(), max: self.next_max, delimiter: None };
        self.next_max = PAGE_KEYS;
        match self.store.list(&request).await {
            Ok(page) => Ok(Some(page)),
            // It does not begin at a key at all.
            Err(f)
                if f.kind == Kind::OutOfOrderListing
                    && matches!(from, Position::After(_))
                    && self.expected_key.is_some() =>
            {
                self.begin_at_first();
                Ok(None)
            }
            // Tokens may expire: the walk goes on behind the last key, where there is an order.
            Err(f) if matches!(from, Position::Token(_)) && refuses_token(f.kind) && !self.token_refused => {
                if self.order == Order::Unknown {
                    let m = format!("the server rejected its own continuation token: {}", f.message);
                    return Err(out_of_order(m));
                }
                self.go_back(&f)?;
                Ok(None)
            }
            Err(f) => Err(f),
        }
    }

    /// Refuses a page whose token does not advance, and one of another prefix.
    fn check_progress(&mut self, page: &Page, from: &Position) -> Result<()> {
        if page.next.as_ref() == Some(from) {
            return Err(out_of_order("the continuation token of the listing did not advance".into()));
        }
        self.cycle.step(page.next.as_ref())?;
        let other = page.entries.iter().find(|e| !e.key.as_bytes().starts_with(self.prefix.as_bytes()));
        let Some(other) = other else { return Ok(()) };
        let m = format!(
            "the listing of another prefix was returned: `{}` does not begin with `{}`",
            other.key, self.prefix
        );
        Err(Error::new(Kind::Corrupt, "list", m))
    }

    /// Whether the first page after a key begins there. If not, the walk begins at the first key instead.
    async fn begins_well(&mut self, page: &Page) -> Result<bool> {
        let Some(after) = self.expected_key.clone() else { return Ok(true) };
        let compare = |key: &Key, with: &Key| self.order.compare(key.as_bytes(), with.as_bytes());
        let (Some(first), Some(last)) = (page.entries.first(), page.entries.last()) else {
            return Ok(page.next.is_some() || !self.begins_late(&after, None).await?);
        };
        if self.begun_after && compare(&first.key, &self.last).is_le() {
            self.begin_at_first();
            return Ok(false);
        }
        let met = page.entries.iter().any(|e| e.key == after);
        let passed = compare(&last.key, &after).is_gt();
        let behind = page.entries.iter().map(|e| &e.key).find(|key| compare(key, &after).is_gt()).cloned();
        // A listing that ends before the key came has left it out too.
        let decided = passed || page.next.is_none();
        Ok(met || !decided || !self.begins_late(&after, behind).await?)
    }

    /// The key that the walk begins after did not come: it is gone, or the server left keys out. What came `behind` it is what the
    /// server returns to a request for the key itself, where both are put in one order.
    async fn begins_late(&mut self, after: &Key, behind: Option<Key>) -> Result<bool> {
        // It may be listed and not be found.
        let gone = !exists(&*self.store, after).await?
            && !Box::pin(is_listed(self.store.clone(), after, self.side)).await?;
        if self.begun_after {
            let shown = first_key_after(&*self.store, &self.prefix, after).await?;
            if gone && shown == behind {
                return Ok(false);
            }
            // A key that the order puts before the other, from a server that does begin at keys, shows another order.
            let before = |key: &Key| self.order.compare(key.as_bytes(), after.as_bytes()).is_lt();
            if let (Some(key), Some(far)) = (shown.filter(before), &behind)
                && first_key_after(&*self.store, &self.prefix, far).await?.as_ref() != Some(&key)
            {
                return Err(out_of_order(format!(
                    "the listing is out of order: `{key}` is listed after `{after}` (declared order `{:?}`)",
                    self.order
                )));
            }
            self.begin_at_first();
            return Ok(true);
        }
        if gone {
            // What an earlier walk listed before it is known by the order alone, which nothing shows any more.
            return Err(out_of_order(format!("`{after}`, where the listing resumes, no longer exists")));
        }
        Err(out_of_order(format!("`{after}` exists but was not listed")))
    }

    /// The server does not begin at a key: from now on listings begin at the first key.
    fn begin_at_first(&mut self) {
        tracing::debug!(prefix = self.prefix, "the server ignores start-after; listing from the first key");
        self.store.learn(Fact::StartAfter(StartAfter::Broken));
        self.next = Some(Position::Start);
        self.last = Key::default();
        self.begun_after = false;
        self.cycle = CycleDetector::default();
    }

    fn check_order(&self, page: &Page) -> Result<()> {
        if self.order == Order::Unknown {
            return Ok(());
        }
        let mut last = &self.last;
        for entry in &page.entries {
            let rises = self.order.compare(entry.key.as_bytes(), last.as_bytes()).is_gt();
            let first_of_all = last.is_empty() && entry.key.is_empty();
            if !rises && !first_of_all {
                let m = format!(
                    "the listing is out of order: `{}` is listed after `{last}` (declared order `{:?}`)",
                    entry.key, self.order
                );
                return Err(out_of_order(m));
            }
            last = &entry.key;
        }
        Ok(())
    }

    /// Leaves out the keys up to the one that the walk begins after.
    fn leave_out_behind(&mut self, page: &mut Page) {
        let Some(after) = &self.expected_key else { return };
        let passed = |key: &Key| self.order.compare(key.as_bytes(), after.as_bytes()).is_gt();
        let at = page.entries.partition_point(|e| !passed(&e.key));
        let met = at > 0 && page.entries[at - 1].key == *after;
        page.entries.drain(..at);
        if met || !page.entries.is_empty() {
            if met && self.store.capability().list_start_after == StartAfter::Unproved {
                self.store.learn(Fact::StartAfter(StartAfter::Proved));
            }
            self.expected_key = None;
        }
    }

    /// Goes on a little before `key`, when that is further than the walk has come and the server is known to begin at
    /// keys: for a listing that lags behind another.
    pub(crate) async fn skip_to(&mut self, key: &Key) -> Result<()> {
        let to = just_before(key);
        let ahead = self.order == Order::Bytes
            && self.ahead.is_empty()
            && self.next.is_some()
            && self.expected_key.is_none()
            && to > self.last;
        if ahead && self.begins_at_keys().await? {
            self.begin_at(to);
        }
        Ok(())
    }

    /// Whether the server begins at keys, asked once with a key that was just listed.
    async fn begins_at_keys(&self) -> Result<bool> {
        match self.store.capability().list_start_after {
            StartAfter::Exact | StartAfter::Proved => return Ok(true),
            StartAfter::Broken => return Ok(false),
            StartAfter::Unproved if self.last.is_empty() => return Ok(false),
            StartAfter::Unproved => {}
        }
        let from = Position::after(just_before(&self.last));
        let request = ListRequest { prefix: self.prefix.clone(), from, max: 1, delimiter: None };
        let begins = match self.store.list(&request).await {
            Ok(page) => page.entries.first().is_some_and(|e| e.key == self.last),
            Err(f) if f.kind == Kind::OutOfOrderListing => false,
            Err(f) => return Err(f.at(self.side)),
        };
        let start = if begins { StartAfter::Proved } else { StartAfter::Broken };
        self.store.learn(Fact::StartAfter(start));
        Ok(begins)
    }
}

/// A listing broke its promise: the next weaker one is assumed from now on. False when there is none weaker.
pub(crate) fn fall_back_to_weaker_order(store: &dyn ObjectStore, failure: &Error) -> bool {
    let weaker = match store.capability().list_order {
        Order::Bytes => Order::Segments,
        Order::Segments => Order::Unknown,
        Order::Unknown => return false,
    };
    tracing::info!(place = store.location(), ?weaker, "listing again in a weaker order: {failure}");
    store.learn(Fact::ListOrder(weaker));
    store.capability().list_order == weaker
}

fn refuses_token(kind: Kind) -> bool {
    matches!(kind, Kind::Invalid | Kind::NotFound | Kind::Unsupported | Kind::Changed)
}

fn out_of_order(message: String) -> Error {
    Error::new(Kind::OutOfOrderListing, "list", message)
}

/// The first key behind another, where a walk begins there.
pub(crate) async fn first_key_after(store: &dyn ObjectStore, prefix: &str, key: &Key) -> Result<Option<Key>> {
    let mut from = Position::after(key.clone());
    let mut refused = 0;
    loop {
        let request = ListRequest { prefix: prefix.to_owned(), from, max: 2, delimiter: None };
        let page = match store.list(&request).await {
            Err(f) if f.kind == Kind::OutOfOrderListing => return Ok(None),
            // Its token has expired: the request is sent again.
            Err(f)
                if refuses_token(f.kind)
                    && matches!(request.from, Position::Token(_))
                    && refused < REFUSED_MAX =>
            {
                refused += 1;
                from = Position::after(key.clone());
                continue;
            }
            page => page?,
        };
        let first = page.entries.into_iter().map(|e| e.key).find(|k| k != key);
        match (first, page.next) {
            (None, Some(next)) => from = next,
            (first, _) => return Ok(first),
        }
    }
}

/// Whether a key is there by its own answer. One that may not be asked about, or that is not an object, is taken to be there,
/// which is safe for all callers: they list once more.
pub(crate) async fn exists(store: &dyn ObjectStore, key: &Key) -> Result<bool> {
    match store.head(key, None).await {
        Ok(_) => Ok(true),
        // A store has no key that it cannot hold.
        Err(f) if matches!(f.kind, Kind::NotFound | Kind::InvalidKey | Kind::Invalid) => Ok(false),
        Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => Ok(true),
        Err(f) => Err(f),
    }
}

/// Whether the listing shows a key. It is asked for by name, and followed as far as keys begin with that name.
pub(crate) async fn is_listed(store: Arc<dyn ObjectStore>, key: &Key, side: Side) -> Result<bool> {
    let mut refused = 0;
    loop {
        match shows(store.clone(), key, side).await {
            // A token of it was refused: the request is sent again.
            Err(f) if f.kind == Kind::OutOfOrderListing && refused < REFUSED_MAX => refused += 1,
            done => return done,
        }
    }
}

/// Whether there is an object whose key a server has listed without encoding its `+`, so that it was read as a blank.
pub(crate) async fn exists_with_plus(store: &dyn ObjectStore, key: &Key) -> Result<bool> {
    if !key.as_bytes().contains(&b' ') {
        return Ok(false);
    }
    let plus: Vec<u8> = key.as_bytes().iter().map(|&b| if b == b' ' { b'+' } else { b }).collect();
    exists(store, &Key::new(plus)).await
}

async fn shows(store: Arc<dyn ObjectStore>, key: &Key, side: Side) -> Result<bool> {
    let Some(prefix) = key.as_str() else { return exists(&*store, key).await };
    let mut lister = Lister::unordered(store.clone(), prefix, side);
    // In an order of its own the key may stand behind all that begin with it.
    let first_comes_first = store.capability().list_order != Order::Unknown;
    while let Some(ListedPage { page, .. }) = lister.next().await? {
        if page.entries.iter().any(|e| e.key == *key) {
            return Ok(true);
        }
        if first_comes_first {
            return Ok(false);
        }
    }
    Ok(false)
}

/// A key that sorts before `key` in every order, with little between the two.
fn just_before(key: &Key) -> Key {
    let text = key.as_str().unwrap_or_default().trim_end_matches('/');
    let Some((cut, last)) = text.char_indices().next_back() else { return Key::default() };
    // `/` before `0` is right in both orders: what stands in a folder sorts before its longer siblings.
    let before = Some(last).filter(|l| *l > ' ').and_then(|l| char::from_u32(u32::from(l) - 1));
    match before {
        Some(before) => Key::from(format!("{}{before}~", &text[..cut])),
        None => Key::from(&text[..cut]),
    }
}

#[cfg(test)]
mod tests;
