//! Values taken apart into their elements, where a target cannot take them as they are written, or where they are too
//! long to be held whole.

mod element;

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::error::{ProtocolError, Result};
use crate::rdb::cursor::{Cursor, Read, Stop, complete};
use crate::rdb::shape::{Family, Kind, Type};
use crate::rdb::value::listpack::Listpack;
use crate::rdb::value::{intset, listpack, ziplist, zipmap};
pub use element::{Element, StreamFacts, StreamId, Text, pending_of_deleted};

/// How far a value is decoded.
#[derive(Debug)]
enum Stage {
    /// What stands before everything else.
    Front,
    /// So many pieces are left: items, members, pairs, nodes.
    Pieces(u64),
    /// The facts of a stream.
    Facts,
    /// So many groups are left.
    Groups(u64),
    /// Entries pending in a group: so many left to read, then its consumers, then so many groups.
    GroupPending(u64, u64),
    /// So many consumers are left of a group, then so many groups.
    Consumers(u64, u64),
    /// So many pending entries are left of a consumer, then consumers, then groups.
    ConsumerPending(u64, u64, u64),
    /// Nothing is left.
    Done,
}

/// What a decoder finds.
pub(crate) enum Next<'b> {
    /// An element.
    Element(Element<'b>),
    /// The end of the value.
    End,
    /// More bytes are needed.
    Short,
}

/// Takes a value apart as its bytes come.
#[derive(Debug)]
pub(crate) struct Decoder {
    kind: Type,
    stage: Stage,
    /// Field expiries of Redis are relative to this, milliseconds.
    base_ms: i64,
    /// Elements of a compact node, on their way out.
    ready: VecDeque<Element<'static>>,
    /// Delivery times and counts of a group's pending entries, which its consumers only name.
    pending: std::collections::HashMap<StreamId, (i64, u64)>,
    length: u64,
}

/// Pending entries of one group that are kept while its consumers are read.
const PENDING_MAX: u64 = 64 << 20;

fn id_of(raw: &[u8]) -> StreamId {
    let half = |at: usize| {
        let mut out = [0; 8];
        out.copy_from_slice(&raw[at..at + 8]);
        u64::from_be_bytes(out)
    };
    (half(0), half(8))
}

fn owned(text: Text<'_>) -> Text<'static> {
    Cow::Owned(text.into_owned())
}

impl Decoder {
    /// A decoder for a type; none for one that cannot be taken apart.
    pub(crate) fn new(kind: Type) -> Option<Self> {
        match kind.kind()? {
            Kind::Module => None,
            _ => Some(Self {
                kind,
                stage: Stage::Front,
                base_ms: 0,
                ready: VecDeque::new(),
                pending: Default::default(),
                length: 0,
            }),
        }
    }

    /// What comes next in `buf`, which begins where the last answer ended, and how many bytes are used up.
    pub(crate) fn next<'b>(&mut self, buf: &'b [u8]) -> Read<(usize, Next<'b>)> {
        let mut cursor = Cursor::new(buf);
        loop {
            if let Some(element) = self.ready.pop_front() {
                return Ok((cursor.at, Next::Element(element)));
            }
            let begin = cursor.at;
            match self.step(&mut cursor) {
                Ok(Some(element)) => return Ok((cursor.at, Next::Element(element))),
                Ok(None) if matches!(self.stage, Stage::Done) && self.ready.is_empty() => {
                    return Ok((cursor.at, Next::End));
                }
                Ok(None) => {}
                // A step that was cut short has changed nothing.
                Err(Stop::Short) => return Ok((begin, Next::Short)),
                Err(wrong) => return Err(wrong),
            }
        }
    }

    /// One step: an element, or none when the step only led on.
    fn step<'b>(&mut self, cursor: &mut Cursor<'b>) -> Read<Option<Element<'b>>> {
        match self.stage {
            Stage::Front => self.front(cursor),
            Stage::Pieces(0) => {
                self.stage = match self.kind.kind() {
                    Some(Kind::Stream) => Stage::Facts,
                    _ => Stage::Done,
                };
                Ok(None)
            }
            Stage::Pieces(left) => {
                let element = self.piece(cursor)?;
                self.stage = Stage::Pieces(left - 1);
                Ok(element)
            }
            Stage::Facts => self.facts(cursor).map(Some),
            Stage::Groups(0) => {
                self.stage = Stage::Done;
                Ok(None)
            }
            Stage::Groups(left) => self.group(cursor, left).map(Some),
            Stage::GroupPending(0, groups) => {
                self.stage = Stage::Consumers(cursor.count()?, groups);
                Ok(None)
            }
            Stage::GroupPending(left, groups) => {
                let id = id_of(cursor.take(16)?);
                let (at, count) = (cursor.i64_le()?, cursor.number()?);
                if self.pending.len() as u64 >= PENDING_MAX {
                    return cursor.wrong("stream group with too many pending entries");
                }
                self.pending.insert(id, (at, count));
                self.stage = Stage::GroupPending(left - 1, groups);
                Ok(None)
            }
            Stage::Consumers(0, groups) => {
                self.stage = Stage::Groups(groups);
                Ok(None)
            }
            Stage::Consumers(left, groups) => {
                let (name, seen_ms) = (cursor.string()?, cursor.i64_le()?);
                let active_ms = if self.kind.number == 21 { Some(cursor.i64_le()?) } else { None };
                self.stage = Stage::ConsumerPending(cursor.count()?, left - 1, groups);
                Ok(Some(Element::Consumer { name, seen_ms, active_ms: active_ms.filter(|ms| *ms >= 0) }))
            }
            Stage::ConsumerPending(0, consumers, groups) => {
                self.stage = Stage::Consumers(consumers, groups);
                Ok(None)
            }
            Stage::ConsumerPending(left, consumers, groups) => {
                let id = id_of(cursor.take(16)?);
                let Some((delivered_ms, count)) = self.pending.get(&id).copied() else {
                    return cursor.wrong("the group does not have a pending entry of its consumer");
                };
                self.stage = Stage::ConsumerPending(left - 1, consumers, groups);
                Ok(Some(Element::Pending { id, delivered_ms, count }))
            }
            Stage::Done => Ok(None),
        }
    }

    /// What stands before the pieces; compact values come whole.
    fn front<'b>(&mut self, cursor: &mut Cursor<'b>) -> Read<Option<Element<'b>>> {
        match (self.kind.number, self.kind.family) {
            (0, _) => {
                let text = cursor.string()?;
                self.stage = Stage::Done;
                Ok(Some(Element::String(text)))
            }
            (9..=13 | 16 | 17 | 20, _) | (23, Family::Redis) => self.compact(cursor),
            (25, Family::Redis) => {
                let mut ahead = cursor.clone();
                ahead.i64_le()?;
                self.compact(&mut ahead)?;
                cursor.at = ahead.at;
                Ok(None)
            }
            (24, Family::Redis) => {
                let mut ahead = cursor.clone();
                let base = ahead.i64_le()?;
                self.stage = Stage::Pieces(ahead.count()?);
                (self.base_ms, cursor.at) = (base, ahead.at);
                Ok(None)
            }
            _ => {
                self.stage = Stage::Pieces(cursor.count()?);
                Ok(None)
            }
        }
    }

    /// A value that is one string of a compact encoding.
    fn compact(&mut self, cursor: &mut Cursor<'_>) -> Read<Option<Element<'static>>> {
        let begin = cursor.at;
        let blob = cursor.string()?;
        let entries = match self.kind.number {
            9 => zipmap::read(&blob),
            11 => intset::read(&blob),
            10 | 12 | 13 => ziplist::read(&blob),
            _ => listpack::read(&blob),
        };
        let entries = within(entries, begin)?;
        let mut entries = entries.into_iter().map(owned);
        let kind = self.kind.kind();
        let timed = matches!(self.kind.number, 23 | 25);
        while let Some(first) = entries.next() {
            let mut second = || entries.next().ok_or_else(|| odd(begin));
            self.ready.push_back(match kind {
                Some(Kind::List) => Element::Item(first),
                Some(Kind::Set) => Element::Member(first),
                Some(Kind::SortedSet) => {
                    let score = second()?;
                    let score = std::str::from_utf8(&score).ok().and_then(|t| t.parse().ok());
                    Element::Scored(first, score.ok_or_else(|| bad_score(begin))?)
                }
                _ => {
                    let value = second()?;
                    let expires = match timed {
                        true => {
                            let ttl = second()?;
                            let ttl: Option<i64> =
                                std::str::from_utf8(&ttl).ok().and_then(|t| t.parse().ok());
                            ttl.ok_or_else(|| bad_score(begin))?
                        }
                        false => 0,
                    };
                    Element::Field(first, value, (expires > 0).then_some(expires))
                }
            });
        }
        self.stage = Stage::Done;
        Ok(None)
    }

    /// One piece of what comes in many.
    fn piece<'b>(&mut self, cursor: &mut Cursor<'b>) -> Read<Option<Element<'b>>> {
        let mut ahead = cursor.clone();
        let element = match (self.kind.number, self.kind.family) {
            (1, _) => Some(Element::Item(ahead.string()?)),
            (2, _) => Some(Element::Member(ahead.string()?)),
            (3, _) => Some(Element::Scored(ahead.string()?, ahead.old_double()?)),
            (4, _) => Some(Element::Field(ahead.string()?, ahead.string()?, None)),
            (5, _) => Some(Element::Scored(ahead.string()?, ahead.f64_le()?)),
            (14, _) => {
                let begin = ahead.at;
                let node = ahead.string()?;
                self.items(within(ziplist::read(&node), begin)?);
                None
            }
            (18, _) => self.list_node(&mut ahead)?,
            (15 | 19 | 21, _) => {
                self.stream_node(&mut ahead)?;
                None
            }
            (22, Family::Valkey) => {
                let (field, value, at) = (ahead.string()?, ahead.string()?, ahead.i64_le()?);
                Some(Element::Field(field, value, (at > 0).then_some(at)))
            }
            (22 | 24, Family::Redis) => Some(self.expiring_field(&mut ahead)?),
            (other, _) => return ahead.wrong(format!("type {other} is not a collection")),
        };
        cursor.at = ahead.at;
        Ok(element)
    }

    /// A node of a list since 7.0: one long item, or several.
    fn list_node<'b>(&mut self, cursor: &mut Cursor<'b>) -> Read<Option<Element<'b>>> {
        let container = cursor.number()?;
        let begin = cursor.at;
        let node = cursor.string()?;
        match container {
            1 => Ok(Some(Element::Item(node))),
            2 => {
                self.items(within(listpack::read(&node), begin)?);
                Ok(None)
            }
            other => {
                cursor.at = begin;
                cursor.wrong(format!("unknown list container {other}"))
            }
        }
    }

    fn stream_node(&mut self, cursor: &mut Cursor<'_>) -> Read<()> {
        let begin = cursor.at;
        let key = cursor.string()?;
        if key.len() != 16 {
            cursor.at = begin;
            return cursor.wrong(format!("stream node ID with {} bytes", key.len()));
        }
        let master = id_of(&key);
        let begin = cursor.at;
        let node = cursor.string()?;
        within(self.entries(master, &node), begin)
    }

    /// A field of a hash that may expire. Release candidates wrote the moment itself, 7.4 its distance to the least of all,
    /// plus one; 0: never.
    fn expiring_field<'b>(&mut self, cursor: &mut Cursor<'b>) -> Read<Element<'b>> {
        let ttl = cursor.number()?;
        let (field, value) = (cursor.string()?, cursor.string()?);
        let moment = match (ttl, self.kind.number) {
            (0, _) => None,
            (ttl, 22) => i64::try_from(ttl).ok(),
            (ttl, _) => i64::try_from(ttl - 1).ok().and_then(|t| t.checked_add(self.base_ms)),
        };
        Ok(Element::Field(field, value, moment))
    }

    fn items(&mut self, entries: Vec<Text<'_>>) {
        self.ready.extend(entries.into_iter().map(|e| Element::Item(owned(e))));
    }

    /// Entries of one node of a stream (t_stream.c, "listpack of a macro node").
    fn entries(&mut self, master: StreamId, node: &[u8]) -> Read<()> {
        let mut pack = Listpack::open(node)?;
        let (count, deleted, fields) = (pack.number()?, pack.number()?, pack.number()?);
        let all = count.checked_add(deleted).filter(|n| *n >= 0 && count >= 0 && fields >= 0);
        let Some(all) = all.filter(|n| *n <= node.len() as i64 && fields <= node.len() as i64) else {
            return pack.wrong("stream node with invalid counts");
        };
        let mut names = Vec::new();
        for _ in 0..fields {
            names.push(pack.must()?);
        }
        if pack.number()? != 0 {
            return pack.wrong("the master entry of a stream node is not terminated");
        }
        for _ in 0..all {
            let flags = pack.number()?;
            let (ms, sequence) = (pack.number()?, pack.number()?);
            let id = (master.0.wrapping_add(ms as u64), master.1.wrapping_add(sequence as u64));
            // Flag 2: the fields are those of the first entry.
            let named = if flags & 2 == 0 { pack.number()? } else { fields };
            if named < 0 || named > node.len() as i64 {
                return pack.wrong("stream entry with an invalid number of fields");
            }
            let mut pairs = Vec::new();
            for i in 0..named as usize {
                let name = match flags & 2 {
                    0 => pack.must()?,
                    _ => names.get(i).cloned().unwrap_or_default(),
                };
                pairs.push((owned(name), owned(pack.must()?)));
            }
            // How many elements the entry has, for walking backwards.
            pack.number()?;
            // Flag 1: deleted.
            if flags & 1 == 0 {
                self.ready.push_back(Element::Entry(id, pairs));
            }
        }
        match pack.entry()? {
            None => Ok(()),
            Some(_) => pack.wrong(format!("trailing data in a stream node, at {}", pack.at())),
        }
    }

    fn facts<'b>(&mut self, cursor: &mut Cursor<'b>) -> Read<Element<'b>> {
        let mut ahead = cursor.clone();
        let mut n = || ahead.number();
        let length = n()?;
        let mut facts = StreamFacts { length, last: (n()?, n()?), ..StreamFacts::default() };
        if self.kind.number != 15 {
            facts.first = Some((n()?, n()?));
            facts.max_deleted = Some((n()?, n()?));
            facts.added = Some(n()?);
        }
        self.length = length;
        self.stage = Stage::Groups(ahead.count()?);
        cursor.at = ahead.at;
        Ok(Element::Stream(facts))
    }

    fn group<'b>(&mut self, cursor: &mut Cursor<'b>, left: u64) -> Read<Element<'b>> {
        let mut ahead = cursor.clone();
        let name = ahead.string()?;
        let last = (ahead.number()?, ahead.number()?);
        // "Not known" is written as the largest number.
        let read = match self.kind.number {
            15 => None,
            _ => i64::try_from(ahead.number()?).ok(),
        };
        self.pending.clear();
        self.stage = Stage::GroupPending(ahead.count()?, left - 1);
        cursor.at = ahead.at;
        Ok(Element::Group { name, last, read })
    }
}

fn odd(offset: usize) -> Stop {
    Stop::Wrong(ProtocolError::new(offset as u64, "odd number of entries in a list of pairs"))
}

fn bad_score(offset: usize) -> Stop {
    Stop::Wrong(ProtocolError::new(offset as u64, "expected a number"))
}

/// What is wrong within a string that is there completely: cut short is wrong too. The string may have been
/// compressed, so its beginning is the offset, and where within it is said.
fn within<T>(read: Read<T>, begin: usize) -> Read<T> {
    let at = |what: String| Stop::Wrong(ProtocolError::new(begin as u64, what));
    read.map_err(|stop| match stop {
        Stop::Short => at("truncated entry in a compact value".into()),
        Stop::Wrong(error) => at(format!("{}, at byte {} of a compact value", error.what, error.offset)),
    })
}

/// Takes a whole value apart.
///
/// # Errors
/// [`ProtocolError`] with the offset within `bytes`; for what `each` answers, whatever that is.
pub fn elements<'b>(
    kind: Type,
    bytes: &'b [u8],
    mut each: impl FnMut(Element<'b>) -> Result<()>,
) -> Result<()> {
    let mut decoder = Decoder::new(kind).ok_or_else(|| {
        ProtocolError::new(0, format!("values of type {} cannot be rebuilt from commands", kind.number))
    })?;
    let mut at = 0;
    loop {
        let (used, next) =
            complete(decoder.next(&bytes[at..]), bytes.len() - at).map_err(|e| e.behind(at as u64))?;
        at += used;
        match next {
            Next::Element(element) => each(element)?,
            Next::End if at == bytes.len() => return Ok(()),
            Next::End => return Err(ProtocolError::new(at as u64, "trailing bytes after a value")),
            Next::Short => return Err(ProtocolError::new(bytes.len() as u64, "truncated value")),
        }
    }
}
