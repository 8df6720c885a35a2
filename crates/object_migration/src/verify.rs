//! Comparing two sides without writing: lock-step where both list in one order, a HEAD per key otherwise.

use std::collections::HashSet;
use std::hash::{Hash, Hasher as _};
use std::sync::Arc;

use model::error::{Error, Kind, Result, Side};
use model::key::{Key, Order};
use storage::checksum::{DigestSet, Hasher};
use storage::{Entry, Etag, ObjectStore, ReadRequest};

use crate::glob::Filter;
use crate::listing::feed::Feed;
use crate::listing::lister::{ListedPage, Lister, fall_back_to_weaker_order, is_listed};

/// What two sides have in common, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ComparisonResult {
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
    /// Keys at the target that the filter keeps, without records.
    #[serde(skip)]
    pub at_target: u64,
    /// Some keys that the source listed, whatever the filter.
    #[serde(skip)]
    pub witnesses: Vec<Key>,
    #[serde(skip)]
    listed_at_source: u64,
}

impl ComparisonResult {
    /// Notes a key of the source: the witnesses are spread over the whole listing.
    fn at_source(&mut self, key: &Key) {
        self.listed_at_source += 1;
        if self.witnesses.len() < MAX_WITNESSES {
            self.witnesses.push(key.clone());
        } else if self.listed_at_source.is_power_of_two() {
            self.witnesses.remove(1);
            self.witnesses.push(key.clone());
        }
    }

    /// True when nothing differs.
    pub fn is_equal(&self) -> bool {
        self.differ + self.missing + self.extra == 0
    }
}

/// One difference, for the user's eyes.
#[derive(Clone, Debug, Hash)]
pub enum Difference {
    /// Only at the source.
    Missing(Key),
    /// Only at the target, with its bytes there.
    Extra(Key, u64),
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
    /// How closely.
    pub depth: Depth,
}

/// How closely two sides are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Which keys there are.
    Presence,
    /// Lengths, ETags and checksums.
    Tags,
    /// The bytes of objects that nothing else compares.
    Bytes,
}

/// Differences that are remembered, so that none is told twice.
const MAX_REPORTED: usize = 1 << 20;
/// Walks of one comparison before a listing that keeps no promise ends it.
const MAX_LISTINGS: u32 = 9;
/// Keys of the source that are remembered as witnesses.
const MAX_WITNESSES: usize = 8;

impl Comparison {
    /// Compares everything; `tell` is called once for each difference.
    ///
    /// # Errors
    /// When a side cannot be listed or read.
    pub async fn run(&self, mut tell: impl FnMut(&Difference)) -> Result<ComparisonResult> {
        let mut told = HashSet::new();
        let mut once = |difference: &Difference| {
            let mut hasher = std::hash::DefaultHasher::new();
            difference.hash(&mut hasher);
            // After a listing broke its promise everything is looked at again.
            if told.len() >= MAX_REPORTED || told.insert(hasher.finish()) {
                tell(difference);
            }
        };
        let mut walks = 1;
        loop {
            match self.compare_listings(&mut once).await {
                // Where there is no weaker order, a token was refused: the same walk begins again.
                Err(f)
                    if f.kind == Kind::OutOfOrderListing && (self.falls_back(&f) || walks < MAX_LISTINGS) =>
                {
                    walks += 1
                }
                done => return done,
            }
        }
    }

    fn falls_back(&self, failure: &Error) -> bool {
        let store = if failure.side == Side::Target { &self.target } else { &self.source };
        fall_back_to_weaker_order(&**store, failure)
    }

    async fn compare_listings(&self, tell: &mut impl FnMut(&Difference)) -> Result<ComparisonResult> {
        let order = self.source.capability().list_order;
        let common = order == self.target.capability().list_order && order != Order::Unknown;
        let mut out = ComparisonResult::default();
        let mut source = SideListing::new(&self.source, &self.from, Side::Source);
        let mut target = SideListing::new(&self.target, &self.to, Side::Target);
        if !common {
            return self.compare_by_head(source, target, out, tell).await;
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
                    out.at_source(&a.key);
                    if self.filter.keeps(a.key.as_bytes()) {
                        self.check_target(&a, &mut out, tell).await?;
                    }
                }
                (std::cmp::Ordering::Greater, _, Some(b)) => {
                    target.pop();
                    if self.filter.keeps(b.key.as_bytes()) {
                        out.at_target += 1;
                        self.check_source(b, &mut out, tell).await?;
                    }
                }
                (_, Some(a), Some(b)) => {
                    source.pop();
                    target.pop();
                    out.at_source(&a.key);
                    if self.filter.keeps(a.key.as_bytes()) {
                        out.at_target += 1;
                        self.compare_entries(&a, &b, &mut out, tell).await?;
                    }
                }
                _ => return Ok(out),
            }
        }
    }

    /// A key that only the source lists: the target is asked before it is called missing.
    async fn check_target(
        &self,
        a: &Entry,
        out: &mut ComparisonResult,
        tell: &mut impl FnMut(&Difference),
    ) -> Result<()> {
        match self.head(&self.target, &a.key.under(&self.to), &a.key, Side::Target, out, tell).await? {
            HeadResult::Found(b) => self.compare_entries(a, &b, out, tell).await,
            HeadResult::Reported => Ok(()),
            HeadResult::Missing => {
                out.missing += 1;
                tell(&Difference::Missing(a.key.clone()));
                Ok(())
            }
        }
    }

    /// A key that only the target lists: the source is asked before it is called extra.
    async fn check_source(
        &self,
        b: Entry,
        out: &mut ComparisonResult,
        tell: &mut impl FnMut(&Difference),
    ) -> Result<()> {
        match self.head(&self.source, &b.key.under(&self.from), &b.key, Side::Source, out, tell).await? {
            HeadResult::Found(a) => {
                self.compare_entries(&Entry { key: b.key.clone(), ..*a }, &b, out, tell).await
            }
            HeadResult::Reported => Ok(()),
            HeadResult::Missing => {
                count_extra(b, out, tell);
                Ok(())
            }
        }
    }

    /// Asks one side about a key. One that may not be asked about does not end the comparison of all others.
    async fn head(
        &self,
        store: &Arc<dyn ObjectStore>,
        key: &Key,
        name: &Key,
        side: Side,
        out: &mut ComparisonResult,
        tell: &mut impl FnMut(&Difference),
    ) -> Result<HeadResult> {
        match head_entry(&**store, key).await {
            Ok(Some(entry)) => Ok(HeadResult::Found(Box::new(entry))),
            Ok(None) => Ok(HeadResult::Missing),
            // Something of this name that is not an object is not missing: a broken link, a pipe.
            Err(f)
                if f.kind == Kind::Unsupported
                    || f.kind == Kind::Forbidden && is_listed(store.clone(), key, side).await? =>
            {
                if self.depth != Depth::Presence {
                    out.differ += 1;
                    tell(&Difference::Differs(name.clone(), f.message));
                }
                Ok(HeadResult::Reported)
            }
            Err(f) => Err(f.at(side)),
        }
    }

    async fn compare_by_head(
        &self,
        mut source: SideListing,
        mut target: SideListing,
        mut out: ComparisonResult,
        tell: &mut impl FnMut(&Difference),
    ) -> Result<ComparisonResult> {
        while let Some(a) = source.next_entry().await? {
            out.at_source(&a.key);
            if self.filter.keeps(a.key.as_bytes()) {
                self.check_target(&a, &mut out, tell).await?;
            }
        }
        while let Some(b) = target.next_entry().await? {
            if !self.filter.keeps(b.key.as_bytes()) {
                continue;
            }
            out.at_target += 1;
            let from = b.key.under(&self.from);
            match head_entry(&*self.source, &from).await {
                Ok(Some(_)) => {}
                Ok(None) => count_extra(b, &mut out, tell),
                // It was told when its own turn came, if it is listed.
                Err(f) if f.kind == Kind::Forbidden => {
                    if !is_listed(self.source.clone(), &from, Side::Source).await? {
                        return Err(f.at(Side::Source));
                    }
                }
                Err(f) => return Err(f.at(Side::Source)),
            }
        }
        Ok(out)
    }

    async fn compare_entries(
        &self,
        a: &Entry,
        b: &Entry,
        out: &mut ComparisonResult,
        tell: &mut impl FnMut(&Difference),
    ) -> Result<()> {
        if self.depth == Depth::Presence {
            return Ok(());
        }
        if a.size != b.size {
            out.differ += 1;
            tell(&Difference::Differs(a.key.clone(), format!("{} bytes and {} bytes", a.size, b.size)));
            return Ok(());
        }
        let proved = match self.is_equal(a, b).await {
            // One object that cannot be read does not end the comparison of all others.
            Err(f) if f.kind.policy() == model::error::Policy::GiveUp => {
                out.differ += 1;
                tell(&Difference::Differs(a.key.clone(), f.message));
                return Ok(());
            }
            proved => proved?,
        };
        match proved {
            Some(true) => out.equal += 1,
            None => out.equal_size += 1,
            Some(false) => {
                out.differ += 1;
                tell(&Difference::Differs(a.key.clone(), "equal length, different content".into()));
            }
        }
        Ok(())
    }

    /// Whether two objects of equal length are equal; none when it is unknown.
    async fn is_equal(&self, a: &Entry, b: &Entry) -> Result<Option<bool>> {
        if a.etag.proves(&b.etag) == Some(true) {
            return Ok(Some(true));
        }
        let (from, to) = (a.key.under(&self.from), a.key.under(&self.to));
        let mut tags = (a.etag.clone(), b.etag.clone());
        // A listing does not tell whether an ETag is a digest: the objects do.
        if tags.0.proves(&tags.1) == Some(false) {
            let source = self.source.head(&from, None).await.map_err(|f| f.at(Side::Source))?;
            let target = self.target.head(&to, None).await.map_err(|f| f.at(Side::Target))?;
            // Parts of other lengths make another ETag of equal bytes.
            let by_parts = source.etag.parts().is_some() && self.depth == Depth::Bytes;
            let by_etag = source.etag.proves(&target.etag).filter(|equal| *equal || !by_parts);
            let proved = by_etag.or(source.sums.agree(&target.sums));
            if proved.is_some() || self.depth == Depth::Tags {
                return Ok(proved);
            }
            tags = (source.etag, target.etag);
        }
        if self.depth == Depth::Tags {
            return Ok(None);
        }
        let x = self.md5(&self.source, &from, &tags.0, a.size, Side::Source).await?;
        let y = self.md5(&self.target, &to, &tags.1, b.size, Side::Target).await?;
        Ok(Some(x == y))
    }

    /// The MD5 of an object: told by a tag that is known to be one, else by reading it.
    async fn md5(
        &self,
        store: &Arc<dyn ObjectStore>,
        key: &Key,
        tag: &Etag,
        size: u64,
        side: Side,
    ) -> Result<[u8; 16]> {
        let read = async {
            if tag.md5().is_some() {
                let meta = store.head(key, None).await?;
                if let Some(md5) = meta.etag.md5() {
                    return Ok(*md5);
                }
            }
            digest(&**store, key, size).await
        };
        read.await.map_err(|f: Error| f.at(side))
    }
}

/// What one side says about a key.
enum HeadResult {
    Found(Box<Entry>),
    Missing,
    /// Nothing, which was told.
    Reported,
}

/// Counts what stands at the target only.
fn count_extra(entry: Entry, out: &mut ComparisonResult, tell: &mut impl FnMut(&Difference)) {
    if crate::report::records::is_record(entry.key.as_bytes()) {
        out.records += 1;
        out.at_target -= 1;
    } else {
        out.extra += 1;
        tell(&Difference::Extra(entry.key, entry.size));
    }
}

/// Reads an object of `size` bytes to its end.
async fn digest(store: &dyn ObjectStore, key: &Key, size: u64) -> Result<[u8; 16]> {
    let mut reading = store.read(key, &ReadRequest { size: Some(size), ..ReadRequest::default() }).await?;
    let mut hasher = Hasher::new(DigestSet { md5: true, ..DigestSet::default() });
    while let Some(chunk) = reading.body.chunk().await {
        hasher.update(&chunk?);
    }
    hasher.finish().md5.ok_or_else(|| Error::new(Kind::Internal, "verify", "no digest"))
}

async fn head_entry(store: &dyn ObjectStore, key: &Key) -> Result<Option<Entry>> {
    match crate::listing::feed::head_page(store, key.clone()).await {
        Ok(mut page) => Ok(page.entries.pop()),
        Err(f) if matches!(f.kind, Kind::InvalidKey | Kind::Invalid) => Ok(None),
        Err(f) => Err(f),
    }
}

/// One side's listing, with the prefix taken off its keys.
struct SideListing {
    feed: Feed,
    strip: usize,
    buffered: std::collections::VecDeque<Entry>,
    finished: bool,
}

impl SideListing {
    fn new(store: &Arc<dyn ObjectStore>, prefix: &str, side: Side) -> Self {
        let feed = Feed::of_listing(Lister::new(store.clone(), prefix, side));
        Self { feed, strip: prefix.len(), buffered: Default::default(), finished: false }
    }

    async fn peek(&mut self) -> Result<Option<Entry>> {
        while self.buffered.is_empty() && !self.finished {
            match self.feed.next().await {
                None => self.finished = true,
                Some(page) => {
                    let ListedPage { page, .. } = page?;
                    self.finished = !page.more();
                    let strip = self.strip;
                    self.buffered.extend(page.entries.into_iter().map(|mut e| {
                        e.key = Key::new(&e.key.as_bytes()[strip.min(e.key.as_bytes().len())..]);
                        e
                    }));
                }
            }
        }
        Ok(self.buffered.front().cloned())
    }

    fn pop(&mut self) {
        self.buffered.pop_front();
    }

    async fn next_entry(&mut self) -> Result<Option<Entry>> {
        let entry = self.peek().await?;
        self.pop();
        Ok(entry)
    }
}

/// Whether a store lists any object below a prefix: a quick look for messages and checks. Pages without keys are followed.
///
/// # Errors
/// When the store cannot be listed.
pub async fn lists_any(store: Arc<dyn ObjectStore>, prefix: &str, side: Side) -> Result<bool> {
    let mut lister = Lister::unordered(store, prefix, side);
    while let Some(listed) = lister.next().await? {
        if !listed.page.entries.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
