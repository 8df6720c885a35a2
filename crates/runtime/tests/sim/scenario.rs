//! What is drawn from a seed.

use std::collections::BTreeMap;
use std::fmt;

use http::{HeaderName, HeaderValue, header};
use model::error::Kind;
use model::key::{Key, Order};
use model::policy::{Check, MetadataRule, Overwrite, StoragePolicy};
use model::selection::Selection;
use model::spec::{ApiVersion, Extensions, Location, TaskSpec};
use testkit::model::{Behaviour, EtagKind, Headers, Listing, ModelFault};

/// The time at which everything begins, milliseconds.
pub(crate) const BEGAN_MS: i64 = 1_700_000_000_000;
/// Objects longer than this go in parts, where parts are wanted, bytes.
pub(crate) const PART: u64 = 700;

/// How a run of the task is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// It is stopped.
    Stop,
    /// The process is gone.
    Kill,
}

/// An object as it is at the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) bytes: Vec<u8>,
    pub(crate) modified_ms: i64,
    pub(crate) headers: Headers,
}

/// Everything that a run begins with.
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) source: Behaviour,
    pub(crate) target: Behaviour,
    pub(crate) at_source: BTreeMap<Key, Given>,
    pub(crate) at_target: BTreeMap<Key, Given>,
    pub(crate) spec: TaskSpec,
    /// Requests of both sides together after which a run is interrupted, one for each run.
    pub(crate) interruptions: Vec<(u64, Interruption)>,
}

const NAMES: [&str; 24] = [
    "a", "a!", "a/", "a/b", "a/b/c", "a/c", "a0", "a.txt", "b/1", "b/2", "b/10", "b-1", "c", "d/e/f/g", "é",
    "ü/ö", "z", "z/z", "%41", "a b", "a+b", "k~", "_", "0",
];

fn bytes(random: &mut fastrand::Rng, size: usize) -> Vec<u8> {
    (0..size).map(|_| random.u8(..)).collect()
}

fn keys(random: &mut fastrand::Rng) -> Vec<Key> {
    let mut all: Vec<Key> = NAMES.iter().filter(|_| random.bool()).map(|name| Key::from(*name)).collect();
    for i in 0..random.u32(0..30) {
        all.push(Key::from(format!("{}{i:03}", random.choice(&["n/", "many-", "b/"]).unwrap_or(&""))));
    }
    all
}

/// Headers of an object, some with runs of blanks and bytes beyond ASCII.
fn headers(random: &mut fastrand::Rng) -> Headers {
    let mut all = Vec::new();
    if random.bool() {
        let kind = *random.choice(&["text/plain; charset=utf-8", "image/jpeg"]).unwrap_or(&"");
        all.push((header::CONTENT_TYPE, HeaderValue::from_static(kind)));
    }
    if random.u32(0..4) == 0 {
        all.push((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
    }
    for name in ["x-amz-meta-a", "x-amz-meta-long-name"] {
        let value = *random.choice(&["", "1", "two  blanks", "gr\u{fc}n"]).unwrap_or(&"");
        if let (true, Ok(value)) = (random.u32(0..3) == 0, HeaderValue::from_bytes(value.as_bytes())) {
            all.push((HeaderName::from_static(name), value));
        }
    }
    all
}

fn source_objects(random: &mut fastrand::Rng, keys: &[Key]) -> BTreeMap<Key, Given> {
    let mut all = BTreeMap::new();
    for key in keys {
        let size = *random.choice(&[0, 1, 9, 100, 699, 700, 701, 1400, 2500]).unwrap_or(&1);
        let modified_ms = BEGAN_MS - random.i64(1..1_000_000);
        all.insert(key.clone(), Given { bytes: bytes(random, size), modified_ms, headers: vec![] });
    }
    all
}

/// Some objects of the source, as they are or differing from it, and some that the source does not have.
fn target_objects(random: &mut fastrand::Rng, at_source: &BTreeMap<Key, Given>) -> BTreeMap<Key, Given> {
    let mut all = BTreeMap::new();
    for (key, given) in at_source {
        let one = match random.u32(0..10) {
            0 => given.clone(),
            1 => Given { bytes: [&given.bytes[..], b"longer"].concat(), ..given.clone() },
            // Of equal length, and older than the source's.
            2 => Given {
                bytes: bytes(random, given.bytes.len()),
                modified_ms: given.modified_ms - 50_000_000,
                headers: vec![],
            },
            _ => continue,
        };
        all.insert(key.clone(), one);
    }
    for i in 0..random.u32(0..8) {
        let key = Key::from(format!("{}extra{i}", random.choice(&["", "a/", "z"]).unwrap_or(&"")));
        let one = Given { bytes: bytes(random, 5), modified_ms: BEGAN_MS - 5, headers: vec![] };
        all.insert(key, one);
    }
    all
}

fn spec(random: &mut fastrand::Rng, delete: bool, parts: bool) -> TaskSpec {
    TaskSpec {
        api_version: ApiVersion::Cli,
        selection: Selection::Prefix(vec![
            random.choice(&["", "", "", "a", "b/"]).unwrap_or(&"").to_string(),
        ]),
        source: Location::default(),
        target: Location::default(),
        save_prefix: String::new(),
        description: String::new(),
        overwrite: *random
            .choice(&[
                Overwrite::Newer,
                Overwrite::Newer,
                Overwrite::Checksum,
                Overwrite::Always,
                Overwrite::Never,
            ])
            .unwrap_or(&Overwrite::Newer),
        check: Check::Digest,
        metadata: MetadataRule::All,
        storage: StoragePolicy::Standard,
        since_ms: 0,
        windows: vec![],
        record_failures: false,
        record_outcomes: random.bool(),
        requester_pays: false,
        kms: false,
        restore: false,
        cdn: None,
        notify: None,
        include: vec![],
        exclude: if random.u32(0..5) == 0 { vec!["many-*".into()] } else { vec![] },
        part_size: if parts { PART } else { 0 },
        concurrency: 0,
        bandwidth: 0,
        extensions: Extensions { delete, delete_most: random.bool(), ..Extensions::default() },
        echo: serde_json::Map::new(),
    }
}

impl Scenario {
    pub(crate) fn draw(seed: u64) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let (mut source, mut target) = (Behaviour::draw(random), Behaviour::draw(random));
        let keys = keys(random);
        let at_source = source_objects(random, &keys);
        let at_target = target_objects(random, &at_source);
        let mut some = |n: u32| -> Vec<Key> {
            if random.u32(0..3) > 0 {
                return vec![];
            }
            keys.iter().filter(|_| random.u32(0..n) == 0).cloned().collect()
        };
        (source.vanishing, source.hidden, source.changing) = (some(6), some(8), some(6));
        let (broken_there, broken_here) = (some(10), some(10));
        source.broken = broken_here.into_iter().map(|key| (key, Kind::Forbidden)).collect();
        target.broken = broken_there.into_iter().map(|key| (key, Kind::InvalidKey)).collect();
        // A changed byte can be known only by what the source says of its bytes.
        let proves = source.etag == EtagKind::Md5 && source.listed_etags;
        source.faults.retain(|(_, fault)| *fault != ModelFault::Changed || proves);
        let parts = random.bool();
        if parts {
            source.faults.retain(|(_, fault)| *fault != ModelFault::Changed);
        }
        let ends = random.u32(0..12);
        if ends == 0 {
            source.ends_at = Some(random.u64(5..120));
        }
        let delete = random.u32(0..3) == 0;
        let spec = spec(random, delete, parts);
        let mut interruptions: Vec<(u64, Interruption)> = Vec::new();
        for _ in 0..random.u32(0..4) {
            let how = if random.bool() { Interruption::Stop } else { Interruption::Kill };
            interruptions.push((random.u64(1..150), how));
        }
        Self { seed, source, target, at_source, at_target, spec, interruptions }.more()
    }

    /// Drawn after everything else, so that older seeds keep their scenarios.
    fn more(mut self) -> Self {
        let more = &mut fastrand::Rng::with_seed(self.seed ^ 0x006d_6f72_6500);
        if more.u32(0..3) == 0 {
            let source = &self.source;
            let is_special = |key: &Key| {
                [&source.vanishing, &source.hidden, &source.changing].iter().any(|keys| keys.contains(key))
                    || source.broken.iter().any(|(broken, _)| broken == key)
            };
            let lag = |key: &&Key| more.u32(0..6) == 0 && !is_special(key);
            self.source.unlisted = self.at_source.keys().filter(lag).cloned().collect();
        }
        if more.u32(0..6) == 0 {
            self.source.faults.push((more.u32(20..200), ModelFault::Slow));
        }
        for behaviour in [&mut self.source, &mut self.target] {
            behaviour.tokens_expire = if more.u32(0..4) == 0 { more.u32(1..3) } else { 0 };
            if more.u32(0..12) == 0 {
                // Such a store is told to have no order: a few keys may come in any by chance.
                (behaviour.listing, behaviour.capability.list_order) = (Listing::Unstable, Order::Unknown);
            }
        }
        if more.u32(0..4) == 0 {
            // More than a quarter of an hour would be refused by the signature.
            self.source.skew_ms = more.i64(-60..61) * 10_000;
            self.target.skew_ms = more.i64(-60..61) * 10_000;
        }
        for given in self.at_source.values_mut() {
            given.headers = headers(more);
        }
        if more.u32(0..10) == 0 {
            self.target.headers_max = more.usize(0..60);
        }
        if more.u32(0..4) == 0 {
            self.spec.metadata = MetadataRule::ContentType;
        }
        if more.u32(0..5) == 0 {
            self.target.locked = self.at_target.keys().filter(|_| more.u32(0..4) == 0).cloned().collect();
        }
        if more.u32(0..8) == 0 {
            // A list names some keys, and now and then one that is not there.
            let named = self.at_source.keys().filter(|_| more.u32(0..3) > 0);
            let mut named: Vec<String> = named.map(Key::to_string).collect();
            if named.is_empty() || more.bool() {
                named.push("b/missing".into());
            }
            self.spec.selection = Selection::Keys(named);
            // With it the keys would be those of events, which remove; and a list knows of keys that no listing shows.
            self.spec.extensions.delete = false;
            self.source.unlisted.clear();
        }
        // Small enough to be seen with a few thousand bytes, and seldom: these runs take their time.
        if more.u32(0..64) == 0 {
            self.spec.bandwidth = more.u64(96..192) << 10;
        }
        self
    }

    /// Keys of the source that the task is about and that a listing shows.
    pub(crate) fn listed(&self, key: &Key) -> bool {
        self.selected(key) && !self.source.unlisted.contains(key)
    }

    /// The headers that a copy of a key has.
    pub(crate) fn headers(&self, key: &Key) -> Headers {
        let all = self.at_source.get(key).map(|given| given.headers.clone()).unwrap_or_default();
        let is_copied = |name: &HeaderName| {
            self.spec.metadata == MetadataRule::All
                || [header::CONTENT_TYPE, header::CONTENT_ENCODING].contains(name)
        };
        all.into_iter().filter(|(name, _)| is_copied(name)).collect()
    }

    /// Keys of the source that the task is about.
    pub(crate) fn selected(&self, key: &Key) -> bool {
        let excluded = !self.spec.exclude.is_empty() && key.as_bytes().starts_with(b"many-");
        let names = |n: &String| n.as_bytes() == key.as_bytes();
        !excluded
            && match &self.spec.selection {
                Selection::Prefix(prefixes) => {
                    prefixes.iter().any(|p| key.as_bytes().starts_with(p.as_bytes()))
                }
                Selection::Keys(named) => named.iter().any(names),
                _ => false,
            }
    }

    /// Keys that a list names and that the source never had.
    pub(crate) fn missing(&self) -> Vec<Key> {
        let Selection::Keys(named) = &self.spec.selection else { return vec![] };
        let keys = named.iter().map(|name| Key::from(name.as_str()));
        keys.filter(|key| !self.at_source.contains_key(key)).collect()
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = |all: &BTreeMap<Key, Given>| {
            all.iter().map(|(k, g)| format!("{k}:{}", g.bytes.len())).collect::<Vec<_>>().join(" ")
        };
        writeln!(f, "from {:?}\nto {:?}", self.source, self.target)?;
        let spec = &self.spec;
        writeln!(
            f,
            "task {:?} {:?} without {:?}, parts {}, {} bytes/s, delete {} {}, {:?}",
            spec.selection,
            spec.overwrite,
            spec.exclude,
            spec.part_size,
            spec.bandwidth,
            spec.extensions.delete,
            spec.extensions.delete_most,
            self.interruptions
        )?;
        write!(f, "at the source: {}\nat the target: {}", given(&self.at_source), given(&self.at_target))
    }
}
