//! Keys that the target's clock may have taken too early ([`crate::watch`]): when nothing is behind any more, the source is
//! asked for them, and where its stream stands in that moment; what it says is written when the target stands exactly there.
//!
//! ```text
//! doubted at the target ──> source: what are they, at which offset? ──> stream reaches it ──> written, no longer doubted
//! ```
//!
//! Interrupted anywhere, the doubt still stands at the target, and the source is asked again.

use std::collections::BTreeMap;

use model::failure::{Failure, Kind, Result, Side};
use pace::clock::SharedClock;
use redis_proto::command::SLOTS;
use redis_proto::rdb::{Family, Head, Item, dump};
use redis_proto::resp::{Reply, command};

use crate::attempt::Ends;
use crate::client::{Client, failure};
use crate::load::Load;
use crate::marker::Names;
use crate::restore::Conflict;
use crate::route::Route;
use crate::target::Writer;
use crate::watch::{Place, Watch, member, place, swapped};

/// Doubts that are read together at a server, and of one slot of a cluster.
const LISTED: &[u8] = b"9999";
const LISTED_OF_SLOT: &[u8] = b"63";
/// Keys that the source is asked for together, and how many bytes of values are enough.
const TOGETHER: std::ops::RangeInclusive<usize> = 8..=512;
const ENOUGH: usize = 4 << 20;

/// A key that may be wrong at the target.
#[derive(Debug)]
struct Doubt {
    place: Place,
    /// It stands even when the source says that the key never expires.
    stands: bool,
}

/// What the source says of it.
#[derive(Debug)]
enum Told {
    /// Nobody's clock has touched it, or the stream says all of it.
    Right,
    /// It is not there.
    Gone,
    /// It is this.
    Whole { payload: Vec<u8>, expire_ms: Option<i64> },
}

/// What the source said at an offset of its stream.
#[derive(Debug)]
struct Asked {
    offset: u64,
    told: Vec<(Doubt, Told)>,
}

/// Doubts on their way out.
#[derive(Debug)]
pub(crate) struct Mend {
    doubts: Vec<Doubt>,
    asked: Option<Asked>,
    together: usize,
    /// What the target has no place for, and how often that was met.
    pub(crate) left_out: BTreeMap<String, u64>,
    /// Keys that were written.
    written: u64,
}

impl Default for Mend {
    fn default() -> Self {
        Self {
            doubts: vec![],
            asked: None,
            together: *TOGETHER.start(),
            left_out: BTreeMap::new(),
            written: 0,
        }
    }
}

impl Mend {
    /// What the source said is to be written at this offset.
    pub(crate) fn is_due(&self, offset: u64) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.offset == offset)
    }

    /// The source was asked, and the stream has not been there yet.
    pub(crate) fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// The stream is at this offset: what was to be written before that is doubted again.
    pub(crate) fn pass(&mut self, offset: u64) {
        if let Some(asked) = self.asked.take_if(|asked| asked.offset < offset) {
            self.doubts.extend(asked.told.into_iter().map(|(doubt, _)| doubt));
        }
    }

    /// Nothing is doubted any more; answers how many keys were written. What was left out stays.
    pub(crate) fn rest(&mut self) -> u64 {
        let left_out = std::mem::take(&mut self.left_out);
        std::mem::replace(self, Self { left_out, ..Self::default() }).written
    }

    /// Two databases of the source have changed places.
    pub(crate) fn swap(&mut self, pair: (u32, u32), listed: bool) {
        self.pass(u64::MAX);
        if listed {
            // The list at the target says it anew.
            self.doubts.clear();
        }
        for doubt in &mut self.doubts {
            doubt.place.0 = swapped(doubt.place.0, pair);
        }
    }

    /// Reads what is doubted, when everything that could doubt is applied; false when that is nothing.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) async fn list(&mut self, ends: &mut Ends, names: &Names, watch: &mut Watch) -> Result<bool> {
        if !self.doubts.is_empty() {
            return Ok(true);
        }
        if watch.list().is_none() {
            self.doubts = watch.take().into_iter().map(|(place, stands)| Doubt { place, stands }).collect();
        } else {
            let (lists, last) = match &ends.writer {
                Writer::One(_) => (vec![names.doubted.clone()], LISTED),
                Writer::Many(_) => ((0..SLOTS).map(|slot| names.doubted_at(slot)).collect(), LISTED_OF_SLOT),
            };
            for reply in ends.target.each(&lists, &[b"ZRANGE"], &[b"0", last, b"WITHSCORES"]).await? {
                for pair in reply.array().unwrap_or_default().chunks(2) {
                    let [doubted, weight] = pair else { continue };
                    if let Some((db, key)) = doubted.text().and_then(place) {
                        let stands = weight.text() != Some(b"0");
                        self.doubts.push(Doubt { place: (db, key.to_vec()), stands });
                    }
                }
            }
        }
        // Those of one database are asked for together.
        self.doubts.sort_by_key(|doubt| doubt.place.0);
        Ok(!self.doubts.is_empty())
    }

    /// Asks the source for the next of them.
    ///
    /// # Errors
    /// What the source answers.
    pub(crate) async fn ask(&mut self, source: &mut Client, absolute: bool) -> Result<()> {
        let Some(db) = self.doubts.last().map(|doubt| doubt.place.0) else { return Ok(()) };
        let mut batch = Vec::new();
        while batch.len() < self.together
            && let Some(doubt) = self.doubts.pop_if(|doubt| doubt.place.0 == db)
        {
            batch.push(doubt);
        }
        source.select(db).await?;
        let mut out = Vec::new();
        for doubt in &batch {
            command(&mut out, &[b"PTTL", &doubt.place.1]);
        }
        let lives = source.many(&out, batch.len()).await?;
        out.clear();
        command(&mut out, &[b"MULTI"]);
        let asks: Vec<bool> = batch
            .iter()
            .zip(&lives)
            // What is gone now may be there again a moment later.
            .map(|(doubt, left)| doubt.stands || left.number() != Some(-1))
            .collect();
        for (doubt, _) in batch.iter().zip(&asks).filter(|(_, asks)| **asks) {
            command(&mut out, &[b"DUMP", &doubt.place.1]);
            command(&mut out, &[if absolute { b"PEXPIRETIME" } else { b"PTTL" }, &doubt.place.1]);
        }
        command(&mut out, &[b"TIME"]);
        command(&mut out, &[b"INFO", b"replication"]);
        command(&mut out, &[b"EXEC"]);
        let answers = source.many(&out, 4 + 2 * asks.iter().filter(|asks| **asks).count()).await?;
        let (offset, mut said) = answer(source.place(), answers, absolute)?;
        let mut bytes = 0;
        let told = batch.into_iter().zip(asks).map(|(doubt, asks)| {
            let told = if asks { said.next().unwrap_or(Told::Right) } else { Told::Right };
            if let Told::Whole { payload, .. } = &told {
                bytes += payload.len();
            }
            (doubt, told)
        });
        self.asked = Some(Asked { offset, told: told.collect() });
        let together = if bytes > ENOUGH { self.together / 2 } else { self.together * 2 };
        self.together = together.clamp(*TOGETHER.start(), *TOGETHER.end());
        Ok(())
    }

    /// Writes what the source said. Everything up to where it said so is applied, nothing else is under way.
    ///
    /// # Errors
    /// What the target answers.
    pub(crate) async fn write(
        &mut self,
        ends: &mut Ends,
        route: &Route,
        names: &Names,
        clock: &SharedClock,
        watch: &mut Watch,
    ) -> Result<()> {
        let Some(asked) = self.asked.take() else { return Ok(()) };
        let mut done: Vec<Place> = Vec::new();
        let family = ends.from.family;
        let (server, target) = (&ends.server, &mut ends.target);
        let mut load = Load::new(route, server, Conflict::Replace, &mut ends.writer, target, clock);
        for (doubt, told) in asked.told {
            let is_anew = watch.is_anew(&doubt.place);
            match told {
                Told::Right if is_anew && !doubt.stands => {
                    self.doubts.push(Doubt { stands: true, ..doubt });
                    continue;
                }
                Told::Right => {}
                Told::Gone => {
                    if let Some(to) = route.db(doubt.place.0) {
                        load.remove(to, &doubt.place.1).await?;
                    }
                }
                Told::Whole { payload, expire_ms } => {
                    load.item(Item::Db(u64::from(doubt.place.0))).await?;
                    load.item(value(family, &doubt.place.1, &payload, expire_ms)?).await?;
                    self.written += 1;
                }
            }
            done.push(doubt.place);
        }
        load.end().await?;
        for (what, n) in std::mem::take(&mut load.loaded.left_out) {
            *self.left_out.entry(what).or_default() += n;
        }
        ends.writer.settle().await?;
        if watch.list().is_some() {
            undoubt(ends, names, &done).await?;
        }
        Ok(())
    }
}

/// The answers to a question: where the source's stream stands, and what it says of each key.
fn answer(
    place: &str,
    answers: Vec<Reply>,
    absolute: bool,
) -> Result<(u64, impl Iterator<Item = Told> + use<>)> {
    let wrong = |why: &str| Failure::new(Kind::Corrupt, "mend", format!("{place}: {why}"));
    let refused = answers.iter().find_map(|a| if let Reply::Error(text) = a { Some(text) } else { None });
    if let Some(text) = refused {
        return Err(failure(place, "mend", text));
    }
    let Some(Reply::Array(mut said)) = answers.into_iter().last() else {
        return Err(wrong("the reply to EXEC is not an array"));
    };
    let info = said.pop().and_then(|reply| Some(String::from_utf8_lossy(reply.text()?).into_owned()));
    let offset = info
        .as_deref()
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("master_repl_offset:")?.trim().parse().ok())
        .ok_or_else(|| wrong("the reply to INFO has no replication offset"))?;
    let time = said.pop().ok_or_else(|| wrong("the reply to EXEC is too short"))?;
    let number = |reply: &Reply| std::str::from_utf8(reply.text()?).ok()?.parse::<i64>().ok();
    let now_ms = match time.array().unwrap_or_default() {
        [seconds, micros] => {
            number(seconds).unwrap_or_default() * 1000 + number(micros).unwrap_or_default() / 1000
        }
        _ => return Err(wrong("invalid reply to TIME")),
    };
    let mut said = said.into_iter();
    let told = std::iter::from_fn(move || {
        let (payload, expiry) = (said.next()?, said.next()?);
        let expire_ms =
            expiry.number().filter(|at| *at >= 0).map(|at| if absolute { at } else { now_ms + at });
        Some(match payload {
            Reply::Bulk(payload) => Told::Whole { payload, expire_ms },
            _ => Told::Gone,
        })
    });
    Ok((offset, told))
}

/// A dumped value as a snapshot would hold it.
fn value<'v>(family: Family, key: &'v [u8], payload: &'v [u8], expire_ms: Option<i64>) -> Result<Item<'v>> {
    let (kind, span) = dump::open(family, payload).map_err(|e| {
        let m = format!("key `{}`: {e}", String::from_utf8_lossy(key));
        Failure::new(Kind::Corrupt, "dump", m).at(Side::Source)
    })?;
    let head = Head { key: key.into(), kind, expire_ms, idle: None, freq: None, offset: 0 };
    Ok(Item::Value(head, span))
}

/// These are right now.
async fn undoubt(ends: &mut Ends, names: &Names, done: &[Place]) -> Result<()> {
    for some in done.chunks(500) {
        let members: Vec<Vec<u8>> = some.iter().map(|(db, key)| member(*db, key)).collect();
        let mut words: Vec<&[u8]> = vec![b"ZREM", &names.doubted];
        words.extend(members.iter().map(Vec::as_slice));
        match &mut ends.writer {
            Writer::One(_) => ends.target.ok(&names.doubted, &words).await?,
            Writer::Many(many) => {
                let mut out = Vec::new();
                command(&mut out, &words);
                many.divide(&out, None, false).await?;
                many.settle().await?;
            }
        }
    }
    Ok(())
}
