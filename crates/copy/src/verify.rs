//! Comparing two sides without writing: lock-step where both list in one order, a HEAD per key otherwise.

use std::sync::Arc;

use model::failure::{Failure, Kind, Result, Side};
use model::key::{Key, Order};
use model::selection::Scope;
use storage::checksum::{Hasher, Wanted};
use storage::{Entry, Etag, ListRequest, ObjectStore, ReadRequest};

use crate::feed::Feed;
use crate::glob::Filter;

/// What two sides have in common, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Compared {
    /// Equal, by digest or ETag.
    pub equal: u64,
    /// Equal in length; nothing stronger could be compared.
    pub equal_size: u64,
    /// On both sides, but different.
    pub differ: u64,
    /// Only at the source.
    pub missing: u64,
    /// Only at the target.
    pub extra: u64,
    /// Only at the target, and written there by migrations to tell what they did.
    pub records: u64,
}

impl Compared {
    /// True when nothing differs.
    pub fn same(&self) -> bool {
        self.differ + self.missing + self.extra == 0
    }
}

/// One difference, for the user's eyes.
#[derive(Clone, Debug)]
pub enum Difference {
    /// Only at the source.
    Missing(Key),
    /// Only at the target.
    Extra(Key),
    /// On both sides; the text says how they differ.
    Differs(Key, String),
}

/// What to compare, and how.
pub struct Comparison {
    /// Where from.
    pub source: Arc<dyn ObjectStore>,
    /// Where to.
    pub target: Arc<dyn ObjectStore>,
    /// Prefix at the source.
    pub from: String,
    /// Prefix at the target.
    pub to: String,
    /// Keys to compare.
    pub filter: Filter,
    /// Read objects whose ETags cannot be compared.
    pub digest: bool,
}

impl Comparison {
    /// Compares everything; `tell` hears of each difference.
    ///
    /// # Errors
    /// When a side cannot be listed or read.
    pub async fn run(&self, mut tell: impl FnMut(&Difference)) -> Result<Compared> {
        let order = self.source.capability().list_order;
        let common = order == self.target.capability().list_order && order != Order::Unknown;
        let mut out = Compared::default();
        let mut source = Listing::new(&self.source, &self.from, Side::Source);
        let mut target = Listing::new(&self.target, &self.to, Side::Target);
        if !common {
            return self.by_head(source, target, out, &mut tell).await;
        }
        loop {
            let (a, b) = (source.peek().await?, target.peek().await?);
            let which = match (&a, &b) {
                (None, None) => return Ok(out),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => order.compare(a.key.as_bytes(), b.key.as_bytes()),
            };
            match (which, a, b) {
                (std::cmp::Ordering::Less, Some(a), _) => {
                    source.pop();
                    if self.filter.keeps(a.key.as_bytes()) {
                        out.missing += 1;
                        tell(&Difference::Missing(a.key));
                    }
                }
                (std::cmp::Ordering::Greater, _, Some(b)) => {
                    target.pop();
                    if self.filter.keeps(b.key.as_bytes()) {
                        extra(b.key, &mut out, &mut tell);
                    }
                }
                (_, Some(a), Some(b)) => {
                    source.pop();
                    target.pop();
                    if self.filter.keeps(a.key.as_bytes()) {
                        self.judge(&a, &b, &mut out, &mut tell).await?;
                    }
                }
                _ => return Ok(out),
            }
        }
    }

    async fn by_head(
        &self,
        mut source: Listing,
        mut target: Listing,
        mut out: Compared,
        tell: &mut impl FnMut(&Difference),
    ) -> Result<Compared> {
        while let Some(a) = source.take().await? {
            if !self.filter.keeps(a.key.as_bytes()) {
                continue;
            }
            match stat(&*self.target, &a.key.under(&self.to)).await? {
                Some(b) => self.judge(&a, &b, &mut out, tell).await?,
                None => {
                    out.missing += 1;
                    tell(&Difference::Missing(a.key));
                }
            }
        }
        while let Some(b) = target.take().await? {
            if self.filter.keeps(b.key.as_bytes())
                && stat(&*self.source, &b.key.under(&self.from)).await?.is_none()
            {
                extra(b.key, &mut out, tell);
            }
        }
        Ok(out)
    }

    async fn judge(
        &self,
        a: &Entry,
        b: &Entry,
        out: &mut Compared,
        tell: &mut impl FnMut(&Difference),
    ) -> Result<()> {
        if a.size != b.size {
            out.differ += 1;
            tell(&Difference::Differs(a.key.clone(), format!("{} bytes and {} bytes", a.size, b.size)));
            return Ok(());
        }
        let mut proved = a.etag.proves(&b.etag);
        if proved.is_none() && self.digest {
            proved = match self.by_digest(a, b).await {
                // One object that cannot be read does not end the comparison of all others.
                Err(f) if f.kind.policy() == model::failure::Policy::GiveUp => {
                    out.differ += 1;
                    tell(&Difference::Differs(a.key.clone(), f.message));
                    return Ok(());
                }
                proved => proved?,
            };
        }
        match proved {
            Some(true) => out.equal += 1,
            None => out.equal_size += 1,
            Some(false) => {
                out.differ += 1;
                tell(&Difference::Differs(a.key.clone(), "equal length, other bytes".into()));
            }
        }
        Ok(())
    }

    async fn by_digest(&self, a: &Entry, b: &Entry) -> Result<Option<bool>> {
        let (from, to) = (a.key.under(&self.from), a.key.under(&self.to));
        let md5 = |etag: &Etag| etag.md5().copied();
        let side = |known: Option<[u8; 16]>, store: Arc<dyn ObjectStore>, key: Key, side: Side| async move {
            match known {
                Some(md5) => Ok(md5),
                None => digest(&*store, &key).await.map_err(|f| f.at(side)),
            }
        };
        let x = side(md5(&a.etag), self.source.clone(), from, Side::Source).await?;
        let y = side(md5(&b.etag), self.target.clone(), to, Side::Target).await?;
        Ok(Some(x == y))
    }
}

/// Counts what stands at the target only.
fn extra(key: Key, out: &mut Compared, tell: &mut impl FnMut(&Difference)) {
    if crate::records::is_record(key.as_bytes()) {
        out.records += 1;
    } else {
        out.extra += 1;
        tell(&Difference::Extra(key));
    }
}

async fn digest(store: &dyn ObjectStore, key: &Key) -> Result<[u8; 16]> {
    let mut reading = store.read(key, &ReadRequest::default()).await?;
    let mut hasher = Hasher::new(Wanted { md5: true, ..Wanted::default() });
    while let Some(chunk) = reading.body.chunk().await {
        hasher.update(&chunk?);
    }
    hasher.finish().md5.ok_or_else(|| Failure::new(Kind::Internal, "verify", "no digest"))
}

async fn stat(store: &dyn ObjectStore, key: &Key) -> Result<Option<Entry>> {
    match crate::feed::one(store, key.clone()).await {
        Ok(mut page) => Ok(page.entries.pop()),
        Err(f) if matches!(f.kind, Kind::KeyRefused | Kind::Invalid) => Ok(None),
        Err(f) => Err(f),
    }
}

/// One side's listing, with the prefix taken off its keys.
struct Listing {
    feed: Feed,
    strip: usize,
    held: std::collections::VecDeque<Entry>,
    over: bool,
}

impl Listing {
    fn new(store: &Arc<dyn ObjectStore>, prefix: &str, side: Side) -> Self {
        let scope = Scope::Prefix(prefix.to_owned());
        let feed = Feed::list(store.clone(), &scope, prefix, Key::default(), side);
        Self { feed, strip: prefix.len(), held: Default::default(), over: false }
    }

    async fn peek(&mut self) -> Result<Option<Entry>> {
        while self.held.is_empty() && !self.over {
            match self.feed.next().await {
                None => self.over = true,
                Some(page) => {
                    let page = page?;
                    self.over = !page.more;
                    let strip = self.strip;
                    self.held.extend(page.entries.into_iter().map(|mut e| {
                        e.key = Key::new(&e.key.as_bytes()[strip.min(e.key.as_bytes().len())..]);
                        e
                    }));
                }
            }
        }
        Ok(self.held.front().cloned())
    }

    fn pop(&mut self) {
        self.held.pop_front();
    }

    async fn take(&mut self) -> Result<Option<Entry>> {
        let entry = self.peek().await?;
        self.pop();
        Ok(entry)
    }
}

/// Lists one page below a prefix: a quick look for messages and checks.
///
/// # Errors
/// When the store cannot be listed.
pub async fn peek(store: &dyn ObjectStore, prefix: &str) -> Result<usize> {
    let request = ListRequest { prefix: prefix.to_owned(), after: Key::default(), max: 1, delimiter: None };
    Ok(store.list(&request).await?.entries.len())
}
