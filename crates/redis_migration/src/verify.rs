//! Comparing two servers key by key, by what values are made of, not by how they are written. What expires or changes
//! meanwhile is looked at again before it counts as different.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use model::failure::{Failure, Kind, Result, Side};
use redis_proto::rdb::decode::elements;
use redis_proto::rdb::{Element, Family, Kind as Value, dump};
use redis_proto::resp::Reply;
use ring::digest::{Context, SHA256, digest};

use crate::checkpoint::RESERVED_PREFIX;
use crate::node::Node;
use crate::query_client::QueryClient;
use crate::route::Route;
use crate::server::ServerInfo;
use crate::topology::Addr;

/// Keys that are asked about together.
const BATCH_KEYS: usize = 100;
/// Keys of a sample, about.
const SAMPLE: u64 = 10_000;
/// Looks at what differs, and the pause between them.
const PASSES: u32 = 4;
const PASS_INTERVAL: Duration = Duration::from_millis(400);
/// Differences that are looked at again; with more, the sides are different.
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

/// One key as one side has it.
pub(crate) struct KeyState {
    pub(crate) payload: Vec<u8>,
    /// Milliseconds since the epoch, or that are left; -1: it does not expire.
    pub(crate) expiry: i64,
}

/// One side.
pub(crate) struct Endpoint {
    pub(crate) query: QueryClient,
    pub(crate) server: ServerInfo,
    side: Side,
}

impl Endpoint {
    pub(crate) async fn open(node: &Node, side: Side) -> Result<Self> {
        let (query, server, _) = QueryClient::open(node, side).await?;
        Ok(Self { query, server, side })
    }

    /// Looks at a database from here on; false when this side has no such database, and nothing is to be asked.
    pub(crate) async fn select(&mut self, db: u32) -> Result<bool> {
        if self.server.cluster {
            return Ok(db == 0);
        }
        match self.query.select(db).await {
            Err(f) if f.kind == Kind::Unsupported => Ok(false),
            selected => selected.map(|()| true),
        }
    }

    /// One step of a scan of one server: the keys, and the next cursor; none at the end.
    pub(crate) async fn scan(
        &mut self,
        addr: &Addr,
        cursor: &[u8],
    ) -> Result<(Vec<Vec<u8>>, Option<Vec<u8>>)> {
        let client = self.query.client_at(addr).await?;
        let reply = client.call(&[b"SCAN", cursor, b"COUNT", b"1000"]).await.map_err(|f| f.at(self.side))?;
        let wrong = || Failure::new(Kind::Corrupt, "scan", "invalid reply to SCAN").at(self.side);
        let [next, keys] = reply.array().unwrap_or_default() else { return Err(wrong()) };
        let next = next.text().ok_or_else(wrong)?.to_vec();
        let keys =
            keys.array().ok_or_else(wrong)?.iter().filter_map(|k| k.text().map(<[u8]>::to_vec)).collect();
        Ok((keys, Some(next).filter(|n| n != b"0")))
    }

    pub(crate) async fn read_keys(
        &mut self,
        keys: &[Vec<u8>],
        absolute: bool,
    ) -> Result<Vec<Option<KeyState>>> {
        let word: &[u8] = if absolute { b"PEXPIRETIME" } else { b"PTTL" };
        let payloads = self.query.call_each(keys, &[b"DUMP"], &[]).await?;
        let expiries = self.query.call_each(keys, &[word], &[]).await?;
        let wrong = || Failure::new(Kind::Corrupt, "verify", "unexpected reply type").at(self.side);
        let pairs = payloads.into_iter().zip(expiries);
        pairs
            .map(|(payload, at)| match payload {
                Reply::Nil => Ok(None),
                Reply::Bulk(payload) => Ok(Some(KeyState { payload, expiry: at.number().unwrap_or(-1) })),
                _ => Err(wrong()),
            })
            .collect()
    }

    /// Its libraries of functions and their code; none where the user may not list them.
    async fn libraries(&mut self) -> Result<Option<BTreeMap<Vec<u8>, Vec<u8>>>> {
        let Some(addr) = self.query.masters().first().cloned() else { return Ok(None) };
        let list = match self.query.client_at(&addr).await?.call(&[b"FUNCTION", b"LIST", b"WITHCODE"]).await {
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Unsupported) => return Ok(None),
            list => list.map_err(|f| f.at(self.side))?,
        };
        let text = |parts: &[Reply], name: &[u8]| {
            let pair = parts.chunks(2).find(|pair| pair[0].text() == Some(name))?;
            Some(pair.get(1)?.text()?.to_vec())
        };
        let libraries = list.array().unwrap_or_default().iter().filter_map(Reply::array);
        let examples =
            libraries.filter_map(|one| Some((text(one, b"library_name")?, text(one, b"library_code")?)));
        Ok(Some(examples.collect()))
    }

    async fn exist(&mut self, keys: &[Vec<u8>]) -> Result<Vec<bool>> {
        let answers = self.query.call_each(keys, &[b"EXISTS"], &[]).await?;
        Ok(answers.iter().map(|a| a.number() == Some(1)).collect())
    }
}

/// Compares two servers.
///
/// # Errors
/// What the connections meet.
pub async fn compare(source: &Node, target: &Node, route: &Route, depth: Depth) -> Result<Comparison> {
    let mut a = Endpoint::open(source, Side::Source).await?;
    let mut b = Endpoint::open(target, Side::Target).await?;
    let dbs = pairs(&a.server, &b.server, route);
    let sample_every = match depth {
        Depth::Full => 1,
        Depth::Sample => (a.server.keys.max(b.server.keys) / SAMPLE).max(1),
    };
    let mut out = Comparison::default();
    let mut differing: Vec<(u32, u32, Vec<u8>)> = Vec::new();
    for (from, to) in &dbs {
        if !a.select(*from).await? {
            continue;
        }
        let b_has = b.select(*to).await?;
        // Servers that are still to be looked through, and where.
        let mut left: Vec<(Addr, Vec<u8>)> =
            a.query.masters().into_iter().map(|m| (m, b"0".to_vec())).collect();
        while let Some((addr, at)) = left.pop() {
            let (keys, next) = a.scan(&addr, &at).await?;
            let keys: Vec<Vec<u8>> = keys
                .into_iter()
                .filter(|k| !k.starts_with(RESERVED_PREFIX) && route.includes(k))
                .filter(|k| sample_every == 1 || dump::crc64(k).is_multiple_of(sample_every))
                .collect();
            for some in keys.chunks(BATCH_KEYS) {
                out.keys += some.len() as u64;
                for (key, difference) in
                    some.iter().zip(compare_keys(&mut a, &mut b, some, (true, b_has)).await?)
                {
                    differing.extend((difference != Difference::Same).then(|| (*from, *to, key.clone())));
                }
            }
            if differing.len() > DIFFERENCES_MAX {
                break;
            }
            left.extend(next.map(|next| (addr, next)));
        }
    }
    extra(&mut a, &mut b, &dbs, route, sample_every, &mut differing).await?;
    for pass in 1..=PASSES {
        let last = pass == PASSES || differing.len() > DIFFERENCES_MAX;
        let mut left = Vec::new();
        for (from, to, key) in differing {
            let have = (a.select(from).await?, b.select(to).await?);
            let difference =
                compare_keys(&mut a, &mut b, std::slice::from_ref(&key), have).await?.first().copied();
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
    if depth == Depth::Full {
        libraries(&mut a, &mut b, &mut out).await?;
    }
    Ok(out)
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

/// True when two payloads build the same value.
fn same_content(a: (&[u8], Family), b: (&[u8], Family)) -> bool {
    let value = |payload: &[u8]| payload.len().checked_sub(dump::FOOTER).map(|n| payload[..n].to_vec());
    if value(a.0).is_some() && value(a.0) == value(b.0) {
        return true;
    }
    // Types of streams whose servers count what was added and read (rdb.h).
    let counts = |payload: &[u8]| matches!(payload.first(), Some(19 | 21));
    let counts = counts(a.0) && counts(b.0);
    match (content(a.1, a.0, counts), content(b.1, b.0, counts)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// What a payload holds: its kind, how much, and a digest that does not depend on how it is written; `counts`: with
/// what streams and their groups count. None for what cannot be taken apart.
pub fn content(family: Family, payload: &[u8], counts: bool) -> Option<(Value, u64, [u8; 32])> {
    let (kind, raw) = dump::open(family, payload).ok()?;
    let value = kind.kind()?;
    let in_order = matches!(value, Value::String | Value::List | Value::Stream);
    let (mut ordered, mut sum, mut count) = (Context::new(&SHA256), [0u8; 32], 0);
    let mut consumer: Option<Vec<u8>> = None;
    elements(kind, raw, |element| {
        let mut bytes = canonical_bytes(&element, counts);
        match &element {
            // Servers do not tell their replicas of one that has nothing pending.
            Element::Consumer { .. } => {
                consumer = Some(bytes);
                return Ok(());
            }
            Element::Pending { .. } => {
                if let Some(name) = consumer.take() {
                    bytes.splice(0..0, name);
                }
            }
            _ => {}
        }
        count += 1;
        if in_order {
            ordered.update(&bytes);
        } else {
            let one = digest(&SHA256, &bytes);
            let mut carry = 0u16;
            for (sum, b) in sum.iter_mut().zip(one.as_ref()) {
                carry += u16::from(*sum) + u16::from(*b);
                *sum = carry.to_le_bytes()[0];
                carry >>= 8;
            }
        }
        Ok(())
    })
    .ok()?;
    if in_order {
        sum.copy_from_slice(ordered.finish().as_ref());
    }
    Some((value, count, sum))
}

/// An element without what depends on the server: when consumers were seen, and, unless both sides keep `counts`, what older
/// servers do not count.
fn canonical_bytes(element: &Element<'_>, counts: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut text = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    let id = |(ms, sequence): (u64, u64)| format!("{ms}-{sequence}");
    match element {
        Element::String(s) | Element::Item(s) | Element::Member(s) => text(s),
        Element::Scored(member, score) => {
            text(member);
            // Both zeros are one score.
            text(&(score + 0.0).to_bits().to_le_bytes());
        }
        Element::Field(field, value, expiry) => {
            text(field);
            text(value);
            text(&expiry.unwrap_or(-1).to_le_bytes());
        }
        Element::Entry(at, fields) => {
            text(id(*at).as_bytes());
            for (name, value) in fields {
                text(name);
                text(value);
            }
        }
        Element::Stream(facts) => {
            text(id(facts.last).as_bytes());
            if counts {
                text(&facts.added.unwrap_or_default().to_le_bytes());
                text(id(facts.max_deleted.unwrap_or_default()).as_bytes());
            }
        }
        Element::Group { name, last, read } => {
            text(name);
            text(id(*last).as_bytes());
            if counts {
                text(&read.unwrap_or(-1).to_le_bytes());
            }
        }
        Element::Consumer { name, .. } => text(name),
        Element::Pending { id: at, count, .. } => {
            text(id(*at).as_bytes());
            text(&count.to_le_bytes());
        }
    }
    out
}
