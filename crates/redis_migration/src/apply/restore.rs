//! `RESTORE` in the stream: its payload was made for the source, and goes to the target in a form that it takes.

use model::failure::Result;
use redis_proto::rdb::{Family, Head, Kind, Type, decode, dump};

use super::Apply;
use crate::rebuild::Rebuild;
use crate::restore::{Conflict, restore};
use crate::server::Server;

/// Versions of the format from here on are Valkey's (rdb.h).
const VALKEY: u16 = 80;

/// Whose payload it is, by what stands behind its value.
fn family(payload: &[u8]) -> Family {
    let version = payload.len().checked_sub(dump::FOOTER).and_then(|at| payload.get(at..at + 2));
    match version.map(|v| u16::from_le_bytes([v[0], v[1]])) {
        Some(VALKEY..) => Family::Valkey,
        _ => Family::Redis,
    }
}

/// The words of a `RESTORE`.
struct Words<'a> {
    key: &'a [u8],
    /// Absolute, ms since 1970.
    expire_ms: Option<i64>,
    idle: Option<u64>,
    freq: Option<u8>,
    kind: Type,
    span: &'a [u8],
}

fn words<'a>(args: &[&'a [u8]], now_ms: i64) -> Option<Words<'a>> {
    let (key, ttl, payload) = (*args.get(1)?, *args.get(2)?, *args.get(3)?);
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<i64>().ok();
    let behind = |name: &[u8]| {
        let at = args.iter().skip(4).position(|a| a.eq_ignore_ascii_case(name))?;
        number(args.get(at + 5)?)
    };
    let absolute = args.iter().skip(4).any(|a| a.eq_ignore_ascii_case(b"ABSTTL"));
    let expire_ms = match number(ttl)? {
        0 => None,
        ttl if absolute => Some(ttl),
        ttl => Some(now_ms.saturating_add(ttl)),
    };
    let (kind, span) = dump::open(family(payload), payload).ok()?;
    Some(Words {
        key,
        expire_ms,
        idle: behind(b"IDLETIME").and_then(|n| n.try_into().ok()),
        freq: behind(b"FREQ").and_then(|n| n.try_into().ok()),
        kind,
        span,
    })
}

impl Apply {
    /// The same value in the target's form, or by commands; one that has neither is asked for at the source.
    pub(super) fn restore(&mut self, args: &[&[u8]], db: u32, out: &mut Vec<u8>, now_ms: i64) -> Result<()> {
        let to = self.tongue.as_ref().map(|tongue| tongue.to.clone());
        let (Some(to), Some(words)) = (to, words(args, now_ms)) else {
            return self.not_restored(args, out);
        };
        if self.look(b"RESTORE", args, args, db, out, now_ms) {
            return Ok(());
        }
        match words.kind.kind() {
            Some(kind) if kind != Kind::Module && to.takes(words.kind) => {
                self.as_payload(&words, &to, db, out, now_ms);
            }
            Some(kind) if kind != Kind::Module && !(kind == Kind::Stream && to.lacks.transactions) => {
                let mut built = Vec::new();
                let Some(count) = build(&words, kind, &to, &mut built) else {
                    return self.not_restored(args, out);
                };
                self.write_args(db, &[b"DEL", words.key], out);
                self.write_built(db, &built, count.0, out);
                if let Some(at) = words.expire_ms {
                    self.write_args(db, &[b"PEXPIREAT", words.key, at.to_string().as_bytes()], out);
                }
                if let Some(what) = count.1 {
                    *self.left_out.entry(what.into()).or_default() += 1;
                }
            }
            _ => return self.not_restored(args, out),
        }
        Ok(())
    }

    fn as_payload(&mut self, words: &Words<'_>, to: &Server, db: u32, out: &mut Vec<u8>, now_ms: i64) {
        let head = Head {
            key: words.key.into(),
            kind: words.kind,
            expire_ms: words.expire_ms,
            idle: words.idle,
            freq: words.freq,
            offset: 0,
        };
        let mut one = Vec::new();
        let place = restore(&mut one, &head, words.span, to, Conflict::Replace, words.expire_ms, now_ms);
        if let Some(at) = place {
            one.splice(at..at, words.span.iter().copied());
        }
        self.write_built(db, &one, 1, out);
    }

    fn not_restored(&mut self, args: &[&[u8]], out: &mut Vec<u8>) -> Result<()> {
        if self.live {
            return self.doubt(b"RESTORE", args, out);
        }
        *self
            .left_out
            .entry("RESTORE values in a format that the target does not support".into())
            .or_default() += 1;
        Ok(())
    }
}

/// Appends the commands that make a value: how many they are, and what the target has no place for; none for a payload that
/// cannot be decoded.
fn build(
    words: &Words<'_>,
    kind: Kind,
    to: &Server,
    out: &mut Vec<u8>,
) -> Option<(u64, Option<&'static str>)> {
    let mut rebuild = Rebuild::new(words.key, kind, to);
    if kind == Kind::Stream {
        rebuild.missing = decode::pending_of_deleted(words.kind, words.span).ok()?.into();
    }
    let mut count = 0;
    let read = decode::elements(words.kind, words.span, |element| {
        count += rebuild.add(out, element);
        Ok(())
    });
    read.ok()?;
    count += rebuild.end(out);
    Some((count as u64, rebuild.dropped))
}
