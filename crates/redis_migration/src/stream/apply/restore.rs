//! `RESTORE` in the stream: its payload was made for the source, and goes to the target in a form that it takes.

use model::error::Result;
use redis_proto::rdb::{Family, KeyHeader, Kind, Type, decode, dump};

use redis_proto::resp::command as encode;

use super::Applier;
use crate::connection::server::ServerInfo;
use crate::operation::{Encoder, Operation};
use crate::snapshot::rebuild::Rebuild;
use crate::snapshot::restore::{Conflict, append_restore};

/// Versions of the format from here on are Valkey's (rdb.h).
const VALKEY_VERSION_MIN: u16 = 80;

/// Whose payload it is, by what stands behind its value.
fn family(payload: &[u8]) -> Family {
    let version = payload.len().checked_sub(dump::FOOTER).and_then(|at| payload.get(at..at + 2));
    match version.map(|v| u16::from_le_bytes([v[0], v[1]])) {
        Some(VALKEY_VERSION_MIN..) => Family::Valkey,
        _ => Family::Redis,
    }
}

/// The words of a `RESTORE`.
struct RestoreArguments<'a> {
    key: &'a [u8],
    /// Absolute, ms since 1970.
    expire_ms: Option<i64>,
    idle: Option<u64>,
    freq: Option<u8>,
    kind: Type,
    raw: &'a [u8],
}

fn parse_arguments<'a>(args: &[&'a [u8]], now_ms: i64) -> Option<RestoreArguments<'a>> {
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
    let (kind, raw) = dump::open(family(payload), payload).ok()?;
    Some(RestoreArguments {
        key,
        expire_ms,
        idle: behind(b"IDLETIME").and_then(|n| n.try_into().ok()),
        freq: behind(b"FREQ").and_then(|n| n.try_into().ok()),
        kind,
        raw,
    })
}

impl Applier {
    /// The same value in the target's form, or by commands; one that has neither is asked for at the source.
    pub(super) fn restore(
        &mut self,
        args: &[&[u8]],
        db: u32,
        out: &mut dyn Encoder,
        now_ms: i64,
    ) -> Result<()> {
        let to = self.translator.as_ref().map(|translator| translator.target.clone());
        let (Some(to), Some(arguments)) = (to, parse_arguments(args, now_ms)) else {
            return self.handle_unrestorable(args, out);
        };
        if self.guard_expiry(b"RESTORE", args, args, db, out, now_ms)? {
            return Ok(());
        }
        match arguments.kind.kind() {
            Some(kind) if kind != Kind::Module && to.accepts(arguments.kind) => {
                self.write_payload(&arguments, &to, db, out, now_ms)
            }
            Some(kind) if kind != Kind::Module && !(kind == Kind::Stream && to.missing.transactions) => {
                let mut bytes = Vec::new();
                encode(&mut bytes, &[b"DEL", arguments.key]);
                let Some((mut count, dropped)) = build_commands(&arguments, kind, &to, &mut bytes) else {
                    return self.handle_unrestorable(args, out);
                };
                count += 1;
                if let Some(at) = arguments.expire_ms {
                    encode(&mut bytes, &[b"PEXPIREAT", arguments.key, at.to_string().as_bytes()]);
                    count += 1;
                }
                if let Some(what) = dropped {
                    *self.unsupported.entry(what.into()).or_default() += 1;
                }
                self.write_value(arguments.key, &bytes, count, db, out)
            }
            _ => self.handle_unrestorable(args, out),
        }
    }

    fn write_value(
        &mut self,
        key: &[u8],
        bytes: &[u8],
        count: u64,
        db: u32,
        out: &mut dyn Encoder,
    ) -> Result<()> {
        self.commands += count;
        out.push(Operation::Value { db, key, bytes, count })
    }

    fn write_payload(
        &mut self,
        arguments: &RestoreArguments<'_>,
        to: &ServerInfo,
        db: u32,
        out: &mut dyn Encoder,
        now_ms: i64,
    ) -> Result<()> {
        let head = KeyHeader {
            key: arguments.key.into(),
            kind: arguments.kind,
            expire_ms: arguments.expire_ms,
            idle: arguments.idle,
            freq: arguments.freq,
            offset: 0,
        };
        let mut one = Vec::new();
        let insert_at = append_restore(
            &mut one,
            &head,
            arguments.raw,
            to,
            Conflict::Replace,
            arguments.expire_ms,
            now_ms,
        );
        if let Some(at) = insert_at {
            one.splice(at..at, arguments.raw.iter().copied());
        }
        self.write_value(arguments.key, &one, 1, db, out)
    }

    fn handle_unrestorable(&mut self, args: &[&[u8]], out: &mut dyn Encoder) -> Result<()> {
        if self.from_server {
            return self.suspect_keys(b"RESTORE", args, out);
        }
        *self
            .unsupported
            .entry("RESTORE values in a format that the target does not support".into())
            .or_default() += 1;
        Ok(())
    }
}

/// Appends the commands that make a value: how many they are, and what the target has no place for; none for a payload that
/// cannot be decoded.
fn build_commands(
    arguments: &RestoreArguments<'_>,
    kind: Kind,
    to: &ServerInfo,
    out: &mut Vec<u8>,
) -> Option<(u64, Option<&'static str>)> {
    let mut rebuild = Rebuild::new(arguments.key, kind, to);
    if kind == Kind::Stream {
        rebuild.missing = decode::pending_of_deleted(arguments.kind, arguments.raw).ok()?.into();
    }
    let mut count = 0;
    let read = decode::elements(arguments.kind, arguments.raw, |element| {
        count += rebuild.add(out, element);
        Ok(())
    });
    read.ok()?;
    count += rebuild.end(out);
    Some((count as u64, rebuild.dropped))
}
