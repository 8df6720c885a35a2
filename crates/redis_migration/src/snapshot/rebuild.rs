//! Pure: the elements of a value become commands that build it again, some thousand elements at a time. For targets
//! that cannot take a value as it is written, and for values that are too long to be held whole.

use std::borrow::Cow;
use std::collections::VecDeque;

use redis_proto::rdb::decode::{StreamFacts, StreamId};
use redis_proto::rdb::{Element, Kind};
use redis_proto::resp::command;

use crate::connection::server::ServerInfo;

/// Elements of one command.
const COMMAND_ELEMENTS: usize = 1000;
/// Bytes of one command, roughly.
const COMMAND_BYTES: usize = 256 << 10;

/// A field of an entry of a stream, and its value.
type EntryField<'e> = (Cow<'e, [u8]>, Cow<'e, [u8]>);

/// Gathers elements of one key into commands.
#[derive(Debug)]
pub struct Rebuild {
    key: Vec<u8>,
    name: &'static [u8],
    args: Vec<Vec<u8>>,
    bytes: usize,
    elements: usize,
    group: Vec<u8>,
    consumer: Vec<u8>,
    /// Whether the target can let fields expire, and knows what streams know since 7.0.
    fields_expire: bool,
    streams_know: bool,
    /// Consumers of streams can be made (since 6.2).
    creates_consumers: bool,
    /// Entries of a stream so far: an empty one needs its key too.
    entries: u64,
    /// Entries of a stream that are pending and deleted: each is written, claimed, and deleted again.
    pub missing: VecDeque<StreamId>,
    placed: Vec<StreamId>,
    facts: Option<StreamFacts>,
    first: Option<StreamId>,
    /// Added to each expiry of a field, milliseconds.
    pub(crate) held_ms: i64,
    /// What the target has no place for.
    pub dropped: Option<&'static str>,
}

fn score(score: f64) -> Vec<u8> {
    match score {
        s if s == f64::INFINITY => b"inf".to_vec(),
        s if s == f64::NEG_INFINITY => b"-inf".to_vec(),
        s => format!("{s:e}").into_bytes(),
    }
}

fn id((ms, sequence): (u64, u64)) -> Vec<u8> {
    format!("{ms}-{sequence}").into_bytes()
}

impl Rebuild {
    /// Begins a key of a kind.
    pub fn new(key: &[u8], kind: Kind, target: &ServerInfo) -> Self {
        let name: &[u8] = match kind {
            Kind::String => b"APPEND",
            Kind::List => b"RPUSH",
            Kind::Set => b"SADD",
            Kind::SortedSet => b"ZADD",
            Kind::Hash => b"HSET",
            Kind::Stream | Kind::Module => b"",
        };
        // HSET takes several fields since 4.0; before there was HMSET.
        let old = target.version < (4, 0) && target.family == redis_proto::rdb::Family::Redis;
        Self {
            key: key.to_vec(),
            name: if name == b"HSET" && old { b"HMSET" } else { name },
            args: Vec::new(),
            bytes: 0,
            elements: 0,
            group: Vec::new(),
            consumer: Vec::new(),
            fields_expire: target.expires_fields(),
            streams_know: target.tells_expiry_time(),
            creates_consumers: target.is_at_least((6, 2)),
            entries: 0,
            missing: VecDeque::new(),
            placed: Vec::new(),
            facts: None,
            first: None,
            held_ms: 0,
            dropped: None,
        }
    }

    /// Takes an element; appends commands to `out` and answers how many.
    pub fn add(&mut self, out: &mut Vec<u8>, element: Element<'_>) -> usize {
        match element {
            Element::String(bytes) => {
                command(out, &[b"SET", &self.key, &bytes]);
                1
            }
            Element::Item(bytes) | Element::Member(bytes) => self.gather(out, [bytes.into_owned()]),
            Element::Scored(member, s) => self.gather(out, [score(s), member.into_owned()]),
            Element::Field(field, value, None) => self.gather(out, [field.into_owned(), value.into_owned()]),
            Element::Field(field, value, Some(at)) => {
                self.expiring_field(out, field.into_owned(), value.into_owned(), at)
            }
            Element::Entry(at, fields) => self.entry(out, at, &fields),
            Element::Stream(facts) => self.facts(out, &facts),
            Element::Group { name, last, read } => {
                self.group = name.into_owned();
                self.create_group(out, last, read)
            }
            Element::Consumer { name, .. } => {
                self.consumer = name.into_owned();
                self.create_consumer(out)
            }
            Element::Pending { id, delivered_ms, count } => self.claim(out, id, delivered_ms, count),
        }
    }

    fn expiring_field(&mut self, out: &mut Vec<u8>, name: Vec<u8>, value: Vec<u8>, at: i64) -> usize {
        let mut n = self.gather(out, [name.clone(), value]);
        if !self.fields_expire {
            self.dropped = Some("expiry of fields of a hash");
            return n;
        }
        n += self.flush(out);
        let at = at.saturating_add(self.held_ms);
        command(out, &[b"HPEXPIREAT", &self.key, at.to_string().as_bytes(), b"FIELDS", b"1", &name]);
        n + 1
    }

    fn entry(&mut self, out: &mut Vec<u8>, at: StreamId, fields: &[EntryField<'_>]) -> usize {
        let placed = self.place(out, Some(at));
        self.first.get_or_insert(at);
        let at = id(at);
        let mut args: Vec<&[u8]> = vec![b"XADD", &self.key, &at];
        for (name, value) in fields {
            args.extend([&**name, &**value]);
        }
        command(out, &args);
        self.entries += 1;
        placed + 1
    }

    fn create_group(&self, out: &mut Vec<u8>, last: StreamId, read: Option<i64>) -> usize {
        let (last, read) = (id(last), read.unwrap_or(-1).to_string());
        let mut args: Vec<&[u8]> = vec![b"XGROUP", b"CREATE", &self.key, &self.group, &last, b"MKSTREAM"];
        if self.streams_know {
            args.extend([b"ENTRIESREAD".as_slice(), read.as_bytes()]);
        }
        command(out, &args);
        1
    }

    fn create_consumer(&self, out: &mut Vec<u8>) -> usize {
        let (key, group, name) = (&self.key, &self.group, &self.consumer);
        if self.creates_consumers {
            command(out, &[b"XGROUP", b"CREATECONSUMER", key, group, name]);
        } else {
            // The server creates it with its first command; it has read nothing that it could read again.
            command(out, &[b"XREADGROUP", b"GROUP", group, name, b"STREAMS", key, b"0"]);
        }
        1
    }

    fn claim(&self, out: &mut Vec<u8>, at: StreamId, delivered_ms: i64, count: u64) -> usize {
        let (at, time, count) = (id(at), delivered_ms.to_string(), count.to_string());
        let args: [&[u8]; 12] = [
            b"XCLAIM",
            &self.key,
            &self.group,
            &self.consumer,
            b"0",
            &at,
            b"TIME",
            time.as_bytes(),
            b"RETRYCOUNT",
            count.as_bytes(),
            b"FORCE",
            b"JUSTID",
        ];
        command(out, &args);
        1
    }

    /// Writes entries that are missing before another one.
    fn place(&mut self, out: &mut Vec<u8>, before: Option<StreamId>) -> usize {
        let mut n = 0;
        while let Some(at) = self.missing.front().copied().filter(|at| before.is_none_or(|b| *at < b)) {
            self.missing.pop_front();
            // No stream has an entry of this name.
            if at != (0, 0) {
                command(out, &[b"XADD", &self.key, &id(at), b"x", b"y"]);
                self.placed.push(at);
                n += 1;
            }
        }
        n
    }

    /// The last commands of the key; answers how many they are.
    pub fn end(&mut self, out: &mut Vec<u8>) -> usize {
        let mut n = self.flush(out);
        let (placed, facts) = (std::mem::take(&mut self.placed), self.facts);
        let Some(facts) = facts.filter(|_| !placed.is_empty()) else { return n };
        // What was deleted goes by its name, and counts for the greatest name that was; what was trimmed must not.
        let deleted = |at: &&StreamId| !self.streams_know || facts.max_deleted.is_none_or(|max| **at <= max);
        let all: Vec<Vec<u8>> = placed.iter().filter(deleted).map(|at| id(*at)).collect();
        for some in all.chunks(COMMAND_ELEMENTS) {
            let words = [&b"XDEL"[..], &self.key].into_iter().chain(some.iter().map(Vec::as_slice));
            command(out, &words.collect::<Vec<_>>());
            n += 1;
        }
        if all.len() < placed.len() {
            match self.first {
                Some(first) => command(out, &[b"XTRIM", &self.key, b"MINID", &id(first)]),
                None => command(out, &[b"XTRIM", &self.key, b"MAXLEN", b"0"]),
            }
            n += 1;
        }
        n + self.set_facts(out, &facts, 0)
    }

    fn facts(&mut self, out: &mut Vec<u8>, facts: &StreamFacts) -> usize {
        let last = id(facts.last);
        let mut n = self.place(out, None);
        self.facts = Some(*facts);
        if self.entries == 0 && self.placed.is_empty() {
            // An empty stream: an entry that goes at once leaves the stream behind.
            let first = if facts.last == (0, 0) { b"0-1".to_vec() } else { last.clone() };
            command(out, &[b"XADD", &self.key, b"MAXLEN", b"0", &first, b"x", b"y"]);
            n += 1;
        }
        n + self.set_facts(out, facts, self.placed.len() as u64)
    }

    /// `more`: so many entries are there that will go.
    fn set_facts(&self, out: &mut Vec<u8>, facts: &StreamFacts, more: u64) -> usize {
        let last = id(facts.last);
        let added = facts.added.unwrap_or(facts.length).max(if more > 0 { facts.length + more } else { 0 });
        let (added, deleted) = (added.to_string(), id(facts.max_deleted.unwrap_or_default()));
        let mut args: Vec<&[u8]> = vec![b"XSETID", &self.key, &last];
        if self.streams_know && facts.added.is_some() {
            args.extend([b"ENTRIESADDED", added.as_bytes(), b"MAXDELETEDID", deleted.as_slice()]);
        }
        command(out, &args);
        1
    }

    fn gather<const N: usize>(&mut self, out: &mut Vec<u8>, args: [Vec<u8>; N]) -> usize {
        self.bytes += args.iter().map(Vec::len).sum::<usize>();
        self.args.extend(args);
        self.elements += 1;
        if self.elements >= COMMAND_ELEMENTS || self.bytes >= COMMAND_BYTES { self.flush(out) } else { 0 }
    }

    /// A piece of a string that comes in pieces.
    pub fn piece(&mut self, out: &mut Vec<u8>, piece: &[u8]) -> usize {
        command(out, &[b"APPEND", &self.key, piece]);
        1
    }

    /// What is gathered; answers how many commands that is.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> usize {
        if self.args.is_empty() {
            return 0;
        }
        let mut all: Vec<&[u8]> = vec![self.name, &self.key];
        all.extend(self.args.iter().map(Vec::as_slice));
        command(out, &all);
        self.args.clear();
        (self.bytes, self.elements) = (0, 0);
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_20_c19_pending_entries_of_deleted_messages_are_written_claimed_and_deleted() {
        let target = ServerInfo::for_tests(redis_proto::rdb::Family::Redis, (6, 2));
        let mut rebuild = Rebuild::new(b"s", Kind::Stream, &target);
        rebuild.missing = VecDeque::from([(2, 0)]);
        let (mut out, mut n) = (Vec::new(), 0);
        let field = || vec![(b"f"[..].into(), b"v"[..].into())];
        let facts = StreamFacts { length: 2, last: (3, 0), ..StreamFacts::default() };
        for element in [
            Element::Entry((1, 0), field()),
            Element::Entry((3, 0), field()),
            Element::Stream(facts),
            Element::Group { name: b"g"[..].into(), last: (3, 0), read: None },
            Element::Consumer { name: b"c"[..].into(), seen_ms: 0, active_ms: None },
            Element::Pending { id: (2, 0), delivered_ms: 5, count: 1 },
        ] {
            n += rebuild.add(&mut out, element);
        }
        n += rebuild.end(&mut out);
        let mut commands = redis_proto::resp::Commands::starting_at(0);
        commands.push(&out);
        let mut lines = Vec::new();
        while let Some(command) = commands.next_command().unwrap() {
            lines.push(command.args().map(String::from_utf8_lossy).collect::<Vec<_>>().join(" "));
        }
        let want = [
            "XADD s 1-0 f v",
            "XADD s 2-0 x y",
            "XADD s 3-0 f v",
            "XSETID s 3-0",
            "XGROUP CREATE s g 3-0 MKSTREAM",
            "XGROUP CREATECONSUMER s g c",
            "XCLAIM s g c 0 2-0 TIME 5 RETRYCOUNT 1 FORCE JUSTID",
            "XDEL s 2-0",
            "XSETID s 3-0",
        ];
        assert_eq!((lines.len(), lines), (n, want.map(String::from).to_vec()));
    }

    #[test]
    fn scores_are_written_exactly() {
        for s in [0.1, -4.329_000_123_123_131e28, 5e-324, f64::MAX, 3_479_099_956_230_698.0, 0.0] {
            let text = String::from_utf8(score(s)).unwrap();
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), s.to_bits(), "{text}");
        }
        assert_eq!(score(f64::NEG_INFINITY), b"-inf");
    }
}
