//! Pure: the elements of a value become commands that build it again, some thousand elements at a time. For targets
//! that cannot take a value as it is written, and for values that are too long to be held whole.

use redis_proto::rdb::{Element, Kind};
use redis_proto::resp::command;

use crate::server::Server;

/// Elements of one command.
const ELEMENTS: usize = 1000;
/// Bytes of one command, roughly.
const BYTES: usize = 256 << 10;

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
    pub fn new(key: &[u8], kind: Kind, target: &Server) -> Self {
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
                let name = field.into_owned();
                let mut n = self.gather(out, [name.clone(), value.into_owned()]);
                if !self.fields_expire {
                    self.dropped = Some("expiry of fields of a hash");
                    return n;
                }
                n += self.flush(out);
                command(out, &[b"HPEXPIREAT", &self.key, at.to_string().as_bytes(), b"FIELDS", b"1", &name]);
                n + 1
            }
            Element::Entry(at, fields) => {
                let at = id(at);
                let mut args: Vec<&[u8]> = vec![b"XADD", &self.key, &at];
                for (name, value) in &fields {
                    args.extend([&**name, &**value]);
                }
                command(out, &args);
                self.entries += 1;
                1
            }
            Element::Stream(facts) => self.facts(out, &facts),
            Element::Group { name, last, read } => {
                self.group = name.into_owned();
                let (last, read) = (id(last), read.unwrap_or(-1).to_string());
                let mut args: Vec<&[u8]> =
                    vec![b"XGROUP", b"CREATE", &self.key, &self.group, &last, b"MKSTREAM"];
                if self.streams_know {
                    args.extend([b"ENTRIESREAD".as_slice(), read.as_bytes()]);
                }
                command(out, &args);
                1
            }
            Element::Consumer { name, .. } => {
                self.consumer = name.into_owned();
                let (key, group, name) = (&self.key, &self.group, &self.consumer);
                if self.creates_consumers {
                    command(out, &[b"XGROUP", b"CREATECONSUMER", key, group, name]);
                } else {
                    // It comes to be when it is first heard of; it has read nothing that it could read again.
                    command(out, &[b"XREADGROUP", b"GROUP", group, name, b"STREAMS", key, b"0"]);
                }
                1
            }
            Element::Pending { id: at, delivered_ms, count } => {
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
        }
    }

    fn facts(&mut self, out: &mut Vec<u8>, facts: &redis_proto::rdb::decode::StreamFacts) -> usize {
        let last = id(facts.last);
        let mut n = 0;
        if self.entries == 0 {
            // An empty stream: an entry that goes at once leaves the stream behind.
            let first = if facts.last == (0, 0) { b"0-1".to_vec() } else { last.clone() };
            command(out, &[b"XADD", &self.key, b"MAXLEN", b"0", &first, b"x", b"y"]);
            n += 1;
        }
        let (added, deleted) =
            (facts.added.unwrap_or(facts.length).to_string(), id(facts.max_deleted.unwrap_or_default()));
        let mut args: Vec<&[u8]> = vec![b"XSETID", &self.key, &last];
        if self.streams_know && facts.added.is_some() {
            args.extend([b"ENTRIESADDED", added.as_bytes(), b"MAXDELETEDID", deleted.as_slice()]);
        }
        command(out, &args);
        n + 1
    }

    fn gather<const N: usize>(&mut self, out: &mut Vec<u8>, args: [Vec<u8>; N]) -> usize {
        self.bytes += args.iter().map(Vec::len).sum::<usize>();
        self.args.extend(args);
        self.elements += 1;
        if self.elements >= ELEMENTS || self.bytes >= BYTES { self.flush(out) } else { 0 }
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
    fn scores_are_written_exactly() {
        for s in [0.1, -4.329_000_123_123_131e28, 5e-324, f64::MAX, 3_479_099_956_230_698.0, 0.0] {
            let text = String::from_utf8(score(s)).unwrap();
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), s.to_bits(), "{text}");
        }
        assert_eq!(score(f64::NEG_INFINITY), b"-inf");
    }
}
