//! Compares two servers key by key, by the elements of values, not by their encoding. Keys that differ are read again
//! before they count as different: they may have expired or changed.

mod content;
pub(crate) mod endpoint;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use model::error::{Result, Side};
use redis_proto::rdb::{Family, dump};

use crate::connection::RESERVED_PREFIX;
use crate::connection::node::Node;
use crate::connection::server::ServerInfo;
use crate::connection::topology::Addr;
use crate::route::Route;
use crate::verify::content::same_content;
use crate::verify::endpoint::{Endpoint, KeyState};

/// Keys that are asked about together.
const BATCH_KEYS: usize = 100;
/// Keys of a sample, about.
const SAMPLE: u64 = 10_000;
/// Comparisons of a key that differs.
const PASSES: u32 = 4;
/// Time between two comparisons of keys that differ.
const PASS_INTERVAL: Duration = Duration::from_millis(400);
/// Differences that are checked again; with more, the servers are different.
const DIFFERENCES_MAX: usize = 10_000;
/// Differences that are named.
const NAMED_MAX: usize = 100;
/// Two servers that tell only the time that is left are asked one after the other, milliseconds.
const TTL_SKEW_MS: i64 = 1500;

/// How much is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Some thousand keys, chosen by their hash.
    Sample,
    /// All keys, in both directions.
    Full,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Keys compared.
    pub keys: u64,
    /// Of other content.
    pub differ: u64,
    /// Of other expiry.
    pub expiry_differs: u64,
    /// Only at the source.
    pub missing: u64,
    /// Only at the target.
    pub extra: u64,
    /// The first of them, for people.
    pub examples: Vec<String>,
}

impl Comparison {
    /// True when nothing differs.
    pub fn is_same(&self) -> bool {
        self.differ + self.expiry_differs + self.missing + self.extra == 0
    }

    fn record_library(&mut self, name: &[u8], difference: Difference) {
        self.record_as(format!("library `{}`", String::from_utf8_lossy(name)), difference);
    }

    fn record(&mut self, db: u32, key: &[u8], difference: Difference) {
        self.record_as(format!("{db}: `{}`", String::from_utf8_lossy(key)), difference);
    }

    fn record_as(&mut self, what: String, difference: Difference) {
        let (count, word) = match difference {
            Difference::Same => return,
            Difference::Content => (&mut self.differ, "differs"),
            Difference::Expiry => (&mut self.expiry_differs, "has a different expiry"),
            Difference::Missing => (&mut self.missing, "is missing at the target"),
            Difference::Extra => (&mut self.extra, "exists only at the target"),
        };
        *count += 1;
        if self.examples.len() < NAMED_MAX {
            self.examples.push(format!("{what} {word}"));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    Same,
    Content,
    Expiry,
    Missing,
    Extra,
}

/// A key that differs: its databases at the source and at the target.
type DifferingKey = (u32, u32, Vec<u8>);

/// Compares two servers.
///
/// # Errors
/// An error of a connection.
pub async fn compare(source: &Node, target: &Node, route: &Route, depth: Depth) -> Result<Comparison> {
    let mut a = Endpoint::open(source, Side::Source).await?;
    let mut b = Endpoint::open(target, Side::Target).await?;
    let dbs = pairs(&a.server, &b.server, route);
    let sample_every = match depth {
        Depth::Full => 1,
        Depth::Sample => (a.server.keys.max(b.server.keys) / SAMPLE).max(1),
    };
    let mut out = Comparison::default();
    let mut differing = Vec::new();
    for pair in &dbs {
        if a.select(pair.0).await? {
            out.keys +=
                compare_database(&mut a, &mut b, *pair, (route, sample_every), &mut differing).await?;
        }
    }
    extra(&mut a, &mut b, &dbs, route, sample_every, &mut differing).await?;
    recheck(&mut a, &mut b, differing, &mut out).await?;
    if depth == Depth::Full {
        libraries(&mut a, &mut b, &mut out).await?;
    }
    Ok(out)
}

/// Compares the keys that the source has in a database, which is selected there; answers how many they are.
async fn compare_database(
    a: &mut Endpoint,
    b: &mut Endpoint,
    (from, to): (u32, u32),
    (route, sample_every): (&Route, u64),
    differing: &mut Vec<DifferingKey>,
) -> Result<u64> {
    let b_has = b.select(to).await?;
    let mut compared = 0;
    // Servers that are not scanned completely, and their cursors.
    let mut left: Vec<(Addr, Vec<u8>)> = a.query.masters().into_iter().map(|m| (m, b"0".to_vec())).collect();
    while let Some((addr, at)) = left.pop() {
        let (keys, next) = a.scan(&addr, &at).await?;
        let keys: Vec<Vec<u8>> = keys
            .into_iter()
            .filter(|k| !k.starts_with(RESERVED_PREFIX) && route.includes(k))
            .filter(|k| sample_every == 1 || dump::crc64(k).is_multiple_of(sample_every))
            .collect();
        for some in keys.chunks(BATCH_KEYS) {
            compared += some.len() as u64;
            let differences = compare_keys(a, b, some, (true, b_has)).await?;
            let found =
                some.iter().zip(differences).filter(|(_, difference)| *difference != Difference::Same);
            differing.extend(found.map(|(key, _)| (from, to, key.clone())));
        }
        if differing.len() > DIFFERENCES_MAX {
            break;
        }
        left.extend(next.map(|next| (addr, next)));
    }
    Ok(compared)
}

/// Compares keys again that differed, in several passes: what differs in the last one is recorded.
async fn recheck(
    a: &mut Endpoint,
    b: &mut Endpoint,
    mut differing: Vec<DifferingKey>,
    out: &mut Comparison,
) -> Result<()> {
    for pass in 1..=PASSES {
        let last = pass == PASSES || differing.len() > DIFFERENCES_MAX;
        let mut left = Vec::new();
        for (from, to, key) in differing {
            let have = (a.select(from).await?, b.select(to).await?);
            let difference = compare_keys(a, b, std::slice::from_ref(&key), have).await?.first().copied();
            match difference {
                None | Some(Difference::Same) => {}
                Some(difference) if last => out.record(from, &key, difference),
                Some(_) => left.push((from, to, key)),
            }
        }
        differing = left;
        if differing.is_empty() {
            break;
        }
        tokio::time::sleep(PASS_INTERVAL).await;
    }
    Ok(())
}

/// Compares libraries of functions, where both sides have them and let them be listed.
async fn libraries(a: &mut Endpoint, b: &mut Endpoint, out: &mut Comparison) -> Result<()> {
    if !a.server.has_functions() || !b.server.has_functions() {
        return Ok(());
    }
    let (Some(from), Some(to)) = (a.libraries().await?, b.libraries().await?) else { return Ok(()) };
    for (name, code) in &from {
        match to.get(name) {
            None => out.record_library(name, Difference::Missing),
            Some(other) if other != code => out.record_library(name, Difference::Content),
            Some(_) => {}
        }
    }
    to.keys()
        .filter(|name| !from.contains_key(*name))
        .for_each(|name| out.record_library(name, Difference::Extra));
    Ok(())
}

/// Databases that are compared: each that either side uses, with the one that the route makes of it.
fn pairs(a: &ServerInfo, b: &ServerInfo, route: &Route) -> Vec<(u32, u32)> {
    let mut from: BTreeSet<u32> = a.dbs.iter().copied().collect();
    for to in &b.dbs {
        let examples = route.db_map.iter().filter(|(_, t)| *t == to).map(|(f, _)| *f);
        let all = route.all_into.filter(|all| all == to).map(|_| a.dbs.first().copied().unwrap_or(0));
        let may_be = examples.chain([*to]).chain(route.only_db).chain(all);
        from.extend(may_be.filter(|f| route.db(*f) == Some(*to)));
    }
    from.into_iter().filter_map(|f| Some((f, route.db(f)?))).collect()
}

/// Keys that only the target has: none of the databases that become one there has them.
async fn extra(
    a: &mut Endpoint,
    b: &mut Endpoint,
    dbs: &[(u32, u32)],
    route: &Route,
    sample_every: u64,
    differing: &mut Vec<(u32, u32, Vec<u8>)>,
) -> Result<()> {
    let mut by_target: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (from, to) in dbs {
        by_target.entry(*to).or_default().push(*from);
    }
    for (to, from) in &by_target {
        if !b.select(*to).await? {
            continue;
        }
        let mut left: Vec<(Addr, Vec<u8>)> =
            b.query.masters().into_iter().map(|m| (m, b"0".to_vec())).collect();
        while let Some((addr, at)) = left.pop().filter(|_| differing.len() <= DIFFERENCES_MAX) {
            let (keys, next) = b.scan(&addr, &at).await?;
            let keys: Vec<Vec<u8>> = keys
                .into_iter()
                .filter(|k| !k.starts_with(RESERVED_PREFIX) && route.includes(k))
                .filter(|k| sample_every == 1 || dump::crc64(k).is_multiple_of(sample_every))
                .collect();
            let mut there = vec![false; keys.len()];
            for db in from {
                if !keys.is_empty() && a.select(*db).await? {
                    there.iter_mut().zip(a.exist(&keys).await?).for_each(|(t, exists)| *t |= exists);
                }
            }
            let first = from.first().copied().unwrap_or(0);
            differing.extend(keys.into_iter().zip(there).filter(|(_, t)| !t).map(|(k, _)| (first, *to, k)));
            left.extend(next.map(|next| (addr, next)));
        }
    }
    Ok(())
}

/// Looks at some keys in the databases that are selected; `have`: whether each side has its database.
async fn compare_keys(
    a: &mut Endpoint,
    b: &mut Endpoint,
    keys: &[Vec<u8>],
    have: (bool, bool),
) -> Result<Vec<Difference>> {
    let absolute = a.server.tells_expiry_time() && b.server.tells_expiry_time();
    // One after the other: what is asked of the target second has had time to arrive.
    let began = Instant::now();
    let nothing = || (0..keys.len()).map(|_| None).collect();
    let from = if have.0 { a.read_keys(keys, absolute).await? } else { nothing() };
    let to = if have.1 { b.read_keys(keys, absolute).await? } else { nothing() };
    let families = (a.server.family, b.server.family);
    // What is left of a life depends on when that was asked.
    let took = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    let apart = if absolute { 0 } else { TTL_SKEW_MS.saturating_add(took) };
    Ok(from.iter().zip(&to).map(|pair| classify(pair, families, apart)).collect())
}

/// Compares what both hold of a key; expiries may be so far apart, milliseconds.
fn classify(
    pair: (&Option<KeyState>, &Option<KeyState>),
    families: (Family, Family),
    most_apart: i64,
) -> Difference {
    match pair {
        (None, None) => Difference::Same,
        (Some(_), None) => Difference::Missing,
        (None, Some(_)) => Difference::Extra,
        (Some(from), Some(to)) => {
            let apart = (from.expiry - to.expiry).abs();
            let same_expiry = (from.expiry < 0) == (to.expiry < 0) && apart <= most_apart;
            match same_content((&from.payload, families.0), (&to.payload, families.1)) {
                true if same_expiry => Difference::Same,
                true => Difference::Expiry,
                false => Difference::Content,
            }
        }
    }
}
