//! Splitting, against a store whose pages take 20 ms of virtual time: nothing missed, nothing doubled, and the
//! speed-up of sixteen I/O threads.

use std::collections::BTreeSet;
use std::time::Duration;

use storage::{Capability, Etag, ListRequest, Meta, ObjectStore, Position, Probe, ReadRequest, Reading};

use super::*;
use flow_control::io_threads::IoThreads;
use tokio_util::sync::CancellationToken;

/// Sorted keys, listed with a delay.
#[derive(Debug)]
struct Listed {
    keys: Vec<Key>,
    capability: Capability,
    delay: Duration,
    keys_listed: std::sync::atomic::AtomicUsize,
}

impl Listed {
    fn new(mut keys: Vec<String>, order: Order, delay: Duration) -> Arc<Self> {
        keys.sort_by(|a, b| order.compare(a.as_bytes(), b.as_bytes()));
        keys.dedup();
        let keys = keys.into_iter().map(Key::from).collect();
        Arc::new(Self {
            keys,
            capability: Capability { list_order: order, ..Capability::S3 },
            delay,
            keys_listed: Default::default(),
        })
    }
}

fn entry(key: &Key) -> Entry {
    Entry { key: key.clone(), size: 1, modified_ms: 0, written_ms: 0, etag: Etag::None, class: None }
}

impl Listed {
    /// Keys that were listed for each key that there is.
    fn overshoot(&self) -> f64 {
        let listed = self.keys_listed.load(std::sync::atomic::Ordering::Relaxed);
        listed as f64 / self.keys.len() as f64
    }

    fn folders(&self, prefix: &str, delimiter: char, max: usize) -> Page {
        let mut page = Page::default();
        for key in &self.keys {
            let Some(rest) = key.as_str().and_then(|k| k.strip_prefix(prefix)) else { continue };
            match rest.find(delimiter) {
                Some(i) => {
                    let folder = format!("{prefix}{}", &rest[..=i]);
                    if page.folders.last() == Some(&folder) {
                        continue;
                    }
                    page.folders.push(folder);
                }
                None => page.entries.push(entry(key)),
            }
            if page.folders.len() + page.entries.len() >= max {
                page.next = Some(Position::Token("more".into()));
                break;
            }
        }
        page
    }
}

#[async_trait]
impl ObjectStore for Listed {
    fn capability(&self) -> &Capability {
        &self.capability
    }
    fn location(&self) -> String {
        "listed".into()
    }
    async fn list(&self, request: &ListRequest) -> Result<Page> {
        tokio::time::sleep(self.delay).await;
        let order = self.capability.list_order;
        let from = self
            .keys
            .partition_point(|k| order.compare(k.as_bytes(), request.from.after_key().as_bytes()).is_le());
        if let Some(delimiter) = request.delimiter {
            let page = self.folders(&request.prefix, delimiter, request.max as usize);
            let found = page.entries.len() + page.folders.len();
            self.keys_listed.fetch_add(found, std::sync::atomic::Ordering::Relaxed);
            return Ok(page);
        }
        let inside = |k: &&Key| k.as_bytes().starts_with(request.prefix.as_bytes());
        let mut found: Vec<&Key> =
            self.keys[from..].iter().filter(inside).take(request.max as usize + 1).collect();
        let more = found.len() > request.max as usize;
        found.truncate(request.max as usize);
        self.keys_listed.fetch_add(found.len(), std::sync::atomic::Ordering::Relaxed);
        let entries: Vec<Entry> = found.into_iter().map(entry).collect();
        let next = entries.last().filter(|_| more).map(|last| Position::After(last.key.clone()));
        Ok(Page { entries, folders: vec![], next })
    }
    async fn probe(&self, _: &str) -> Result<Probe> {
        unreachable!("only lists")
    }
    async fn head(&self, key: &Key, _: Option<u32>) -> Result<Meta> {
        let there =
            self.keys.binary_search_by(|k| self.capability.list_order.compare(k.as_bytes(), key.as_bytes()));
        there.map(|_| Meta::default()).map_err(|_| Error::new(Kind::NotFound, "head", "no such key"))
    }
    async fn read(&self, _: &Key, _: &ReadRequest) -> Result<Reading> {
        unreachable!("only lists")
    }
    async fn tags(&self, _: &Key) -> Result<Vec<(String, String)>> {
        unreachable!("only lists")
    }
    async fn buckets(&self) -> Result<Vec<String>> {
        unreachable!("only lists")
    }
}

struct NoLog;

#[async_trait]
impl SplitLog for NoLog {
    async fn split(&self, _: i64, _: Key, _: NewRange) -> Result<()> {
        Ok(())
    }
}

/// Walks everything on the test's own runtime, whose clock is virtual; answers keys met and virtual time.
async fn walk(store: Arc<Listed>, prefix: &str) -> (Vec<Key>, Duration) {
    walk_row(store, row(prefix)).await
}

fn row(prefix: &str) -> RangeRow {
    RangeRow {
        id: 1,
        pass: Pass::Precount,
        scope: Scope::Prefix(prefix.into()),
        upto: None,
        cursor: Key::default(),
        ahead: vec![],
        done: false,
        counters: Default::default(),
        fence: 0,
    }
}

async fn walk_row(store: Arc<Listed>, row: RangeRow) -> (Vec<Key>, Duration) {
    let scheduler = RangeScheduler::new(Pass::Precount, 16, store.clone());
    let met = Arc::new(Mutex::new(Vec::new()));
    let io_threads = IoThreads::on_runtime(tokio::runtime::Handle::current());
    let began = tokio::time::Instant::now();
    let runner = {
        let (scheduler, met) = (scheduler.clone(), met.clone());
        move |range: Arc<ActiveRange>, row: RangeRow, first: Option<OpenListing>| -> RangeFuture {
            let (scheduler, met, store) = (scheduler.clone(), met.clone(), store.clone());
            Box::pin(async move {
                let prefix = range.scope.prefix();
                let (mut first, mut lister) = match first {
                    Some(OpenListing { page, lister }) => (Some(page), lister),
                    None => (None, Lister::after(store, prefix, row.cursor, Side::Source)),
                };
                loop {
                    let page = match first.take() {
                        Some(page) => Some(page),
                        None => lister.next().await?.map(|l| l.page),
                    };
                    let Some(page) = page else {
                        return scheduler.verify_end(scheduler.listing_ended(&range)).await;
                    };
                    let RangePage { entries, finished: over, missing_end: unmet } =
                        scheduler.take_page(&range, page);
                    met.lock().unwrap().extend(entries.into_iter().map(|e| e.key));
                    if over {
                        return scheduler.verify_end(unmet).await;
                    }
                }
            })
        }
    };
    scheduler.run(vec![row], &io_threads, &NoLog, &CancellationToken::new(), || true, runner).await.unwrap();
    let keys = std::mem::take(&mut *met.lock().unwrap());
    (keys, began.elapsed())
}

fn exactly_once(store: &Listed, met: Vec<Key>) {
    assert_eq!(met.len(), store.keys.len(), "keys met");
    let met: BTreeSet<Key> = met.into_iter().collect();
    assert!(store.keys.iter().all(|k| met.contains(k)) && met.len() == store.keys.len());
}

/// Found by the simulation: the last key of a range may be settled before those in front of it.
#[tokio::test(start_paused = true)]
async fn range_ends_when_its_last_key_is_listed_not_when_it_is_copied() {
    let key = |i: usize| format!("k{i:05}");
    let store = Listed::new((0..3000).map(key).collect(), Order::Bytes, Duration::ZERO);
    let (upto, cursor) = (Key::from(key(2500)), Key::from(key(10)));
    let interrupted = RangeRow { ahead: vec![upto.clone()], upto: Some(upto), cursor, ..row("") };
    let (met, _) = walk_row(store, interrupted).await;
    let want: BTreeSet<Key> = (11..=2500).map(|i| Key::from(key(i))).collect();
    assert_eq!(met.into_iter().collect::<BTreeSet<_>>(), want);
}

/// Five shapes of key space.
fn shapes(n: usize) -> Vec<(&'static str, Vec<String>)> {
    let mut random = fastrand::Rng::with_seed(5);
    let day = |i: usize| format!("{}/{:02}/{:02}", 2021 + i / 372, i / 31 % 12 + 1, i % 31 + 1);
    let letters: Vec<char> = "あいうえおかきくけこ日本語漢字αβγδ".chars().collect();
    let word = |r: &mut fastrand::Rng| (0..4).map(|_| letters[r.usize(0..letters.len())]).collect::<String>();
    vec![
        ("flat hash", (0..n).map(|_| format!("{:016x}", random.u64(..))).collect()),
        (
            "dates",
            (0..n)
                .map(|i| format!("{}/event-{:05}.json", day(i * 1400 / n), random.u32(0..100_000)))
                .collect(),
        ),
        (
            "one hot prefix",
            (0..n)
                .map(|i| match i % 50 {
                    0 => format!("cold-{:02}/x{i}", i % 37),
                    _ => format!("data/tenant-0042/uploads/{i:09}.bin"),
                })
                .collect(),
        ),
        ("utf-8", (0..n).map(|i| format!("{}/{}{i}", word(&mut random), word(&mut random))).collect()),
        (
            "deep tree",
            (0..n)
                .map(|i| {
                    let d: Vec<String> = (0..6).map(|_| format!("d{}", random.u8(0..6))).collect();
                    format!("{}/f{i}", d.join("/"))
                })
                .collect(),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn five_key_distributions_are_split_evenly_without_loss() {
    let delay = Duration::from_millis(20);
    for (name, keys) in shapes(500_000) {
        let store = Listed::new(keys, Order::Bytes, delay);
        let pages = store.keys.len().div_ceil(1000) as u32;
        let (met, took) = walk(store.clone(), "").await;
        exactly_once(&store, met);
        let ideal = delay * pages.div_ceil(16);
        let share = ideal.as_secs_f64() / took.as_secs_f64();
        let overshoot = store.overshoot();
        println!(
            "{name}: {took:?} for {pages} pages, {share:.2} of ideal, {overshoot:.2} of the keys listed"
        );
        assert!(share >= 0.8, "{name}: {share:.2} of the ideal speed-up");
        assert!(overshoot <= 1.3, "{name}: {overshoot:.2} of the keys were listed");
    }
}

#[tokio::test(start_paused = true)]
async fn small_buckets_are_listed_about_once() {
    // Five pages on sixteen I/O threads: what is gained in time is lost in keys.
    for (size, most) in [(1, 1.0), (900, 1.0), (2_000, 2.0), (5_000, 3.0), (20_000, 2.1)] {
        for (name, keys) in shapes(size) {
            let store = Listed::new(keys, Order::Bytes, Duration::from_millis(20));
            let (met, took) = walk(store.clone(), "").await;
            exactly_once(&store, met);
            let overshoot = store.overshoot();
            println!("{name}, {size} keys: {took:?}, {overshoot:.2} of the keys listed");
            assert!(overshoot <= most, "{name}, {size} keys: {overshoot:.2} of the keys were listed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn folder_order_is_split_without_loss() {
    for (_, keys) in shapes(20_000) {
        let mut keys = keys;
        keys.extend(["o/a/b", "o/a!", "o/a", "o/a.txt", "o/a0/x"].map(String::from));
        let store = Listed::new(keys, Order::Segments, Duration::from_millis(20));
        let (met, _) = walk(store.clone(), "").await;
        exactly_once(&store, met);
    }
}

#[tokio::test(start_paused = true)]
async fn listing_is_bounded_by_the_prefix() {
    let (_, keys) = shapes(20_000).swap_remove(2);
    let wanted = keys.iter().filter(|k| k.starts_with("cold-1")).count();
    let store = Listed::new(keys, Order::Bytes, Duration::from_millis(20));
    let (met, _) = walk(store, "cold-1").await;
    assert_eq!(met.len(), wanted);
}
