//! Listing a source to know what is there: counts, bytes, sizes, the largest folders. Reads nothing, keeps no
//! ledger, and uses the same splitting as a migration.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use flow_control::io_threads::IoThreads;
use model::count::Tally;
use model::error::{Kind, Result, Side};
use model::key::Key;
use model::selection::Scope;
use storage::{Entry, SharedStore};
use store::{NewRange, Pass, RangeRow};
use tokio_util::sync::CancellationToken;

use crate::glob::Filter;
use crate::listing::lister::{Lister, fall_back_to_weaker_order};
use crate::ranges::scheduler::{
    ActiveRange, OpenListing, RangeFuture, RangePage, RangeScheduler, SplitLog, row_of,
};

/// Folders remembered while listing; the rest is counted together.
const MAX_FOLDERS: usize = 10_000;

/// What a source holds.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Inventory {
    /// Objects and bytes.
    pub total: Tally,
    /// Objects by size: up to 0, 4 KiB, 64 KiB, 1 MiB, 16 MiB, 1 GiB, and larger.
    pub sizes: [u64; 7],
    /// The largest first-level folders by bytes, at most ten.
    pub folders: Vec<(String, Tally)>,
    /// Listing requests made for it.
    pub pages: u64,
}

#[derive(Default)]
struct InventorySums {
    out: Inventory,
    folders: BTreeMap<Vec<u8>, Tally>,
}

impl InventorySums {
    fn add(&mut self, entry: &Entry) {
        self.out.total += Tally::one(entry.size);
        let bounds = [0, 4 << 10, 64 << 10, 1 << 20, 16 << 20, 1 << 30];
        self.out.sizes[bounds.iter().position(|b| entry.size <= *b).unwrap_or(6)] += 1;
        let key = entry.key.as_bytes();
        let folder = key.iter().position(|b| *b == b'/').map_or(&b""[..], |i| &key[..=i]);
        if let Some(tally) = self.folders.get_mut(folder) {
            *tally += Tally::one(entry.size);
        } else if self.folders.len() < MAX_FOLDERS {
            self.folders.insert(folder.to_vec(), Tally::one(entry.size));
        }
    }
}

/// Splits need not survive: a listing that is interrupted begins again.
struct NoSplitLog;

#[async_trait]
impl SplitLog for NoSplitLog {
    async fn split(&self, _: i64, _: Key, _: NewRange) -> Result<()> {
        Ok(())
    }
}

/// Lists everything, `width` ranges at once; serially where the source lists in an order of its own.
///
/// # Errors
/// When the source cannot be listed.
pub async fn take_inventory(
    source: SharedStore,
    io_threads: &IoThreads,
    filter: Filter,
    width: usize,
) -> Result<Inventory> {
    loop {
        match walk(source.clone(), io_threads, filter.clone(), width).await {
            Err(f) if f.kind == Kind::OutOfOrderListing && fall_back_to_weaker_order(&*source, &f) => {}
            done => return done,
        }
    }
}

async fn walk(
    source: SharedStore,
    io_threads: &IoThreads,
    filter: Filter,
    width: usize,
) -> Result<Inventory> {
    let scheduler = RangeScheduler::new(Pass::Precount, width, source.clone());
    let pass = Pass::Precount;
    let scope = Scope::Prefix(String::new());
    let row = row_of(&NewRange { id: 1, pass, scope, after: Key::default(), upto: None });
    let sums: Arc<Mutex<InventorySums>> = Arc::default();
    let ranges = InventoryRanges { scheduler: scheduler.clone(), source, filter, sums: sums.clone() };
    let ranges = Arc::new(ranges);
    let sum_up = move |range, row, first| -> RangeFuture {
        let ranges = ranges.clone();
        Box::pin(async move { ranges.sum_up(range, row, first).await })
    };
    let never_stopped = CancellationToken::new();
    scheduler.run(vec![row], io_threads, &NoSplitLog, &never_stopped, || true, sum_up).await?;
    let mut sums = std::mem::take(&mut *sums.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let mut folders: Vec<(String, Tally)> =
        sums.folders.into_iter().map(|(k, t)| (String::from_utf8_lossy(&k).into_owned(), t)).collect();
    folders.sort_by_key(|(_, t)| std::cmp::Reverse(t.bytes));
    folders.truncate(10);
    sums.out.folders = folders;
    Ok(sums.out)
}

/// What the runners of all ranges share.
struct InventoryRanges {
    scheduler: Arc<RangeScheduler>,
    source: SharedStore,
    filter: Filter,
    sums: Arc<Mutex<InventorySums>>,
}

impl InventoryRanges {
    /// Lists one range to its end and adds up what the filter keeps.
    async fn sum_up(&self, range: Arc<ActiveRange>, row: RangeRow, first: Option<OpenListing>) -> Result<()> {
        let (mut first, mut lister) = match first {
            Some(OpenListing { page, lister }) => (Some(page), lister),
            None => (None, Lister::after(self.source.clone(), "", row.cursor, Side::Source)),
        };
        loop {
            let page = match first.take() {
                Some(page) => Some(page),
                None => lister.next().await?.map(|l| l.page),
            };
            let Some(page) = page else {
                return self.scheduler.verify_end(self.scheduler.listing_ended(&range)).await;
            };
            let RangePage { entries, finished, missing_end } = self.scheduler.take_page(&range, page);
            self.add(&entries);
            if finished {
                return self.scheduler.verify_end(missing_end).await;
            }
        }
    }

    fn add(&self, entries: &[Entry]) {
        let mut sums = self.sums.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sums.out.pages += 1;
        entries.iter().filter(|e| self.filter.keeps(e.key.as_bytes())).for_each(|e| sums.add(e));
    }
}
