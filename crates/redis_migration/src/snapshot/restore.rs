//! Pure: a key with its value's span becomes the bytes of one `RESTORE`.

use redis_proto::rdb::decode::elements;
use redis_proto::rdb::{Element, KeyHeader, Kind, dump};
use redis_proto::resp::{header, text};

use crate::connection::server::ServerInfo;

/// What is done about a key that the target has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflict {
    /// It is replaced.
    #[default]
    Replace,
    /// It is skipped.
    Skip,
    /// The migration fails.
    Fail,
}

/// A string up to this long goes as `SET`, bytes as written: measured with short strings, the target takes a tenth less
/// time than for payloads. Expanding a compressed one would cost us more than that.
const SET_VALUE_MAX: usize = 16 << 10;
/// How a compressed string begins (rdb.h: `RDB_ENCVAL`, `RDB_ENC_LZF`).
const COMPRESSED: u8 = 0xC3;

/// Strings that are written by one `MSET`: that costs the target half of what as many `SET`s do.
#[derive(Debug, Default)]
pub struct StringBatch {
    args: Vec<u8>,
    count: u64,
}

/// Strings of one command.
const BATCH_STRINGS: u64 = 64;
/// Bytes of the strings of one command.
const BATCH_BYTES: usize = 32 << 10;

impl StringBatch {
    /// Takes a string that has no expiry, where `MSET` makes the same key as a payload would; false where it does not.
    pub fn add(&mut self, head: &KeyHeader<'_>, raw: &[u8]) -> bool {
        if !is_plain(head, raw) {
            return false;
        }
        let (args, mut done) = (&mut self.args, false);
        let read = elements(head.kind, raw, |element| {
            if let Element::String(value) = element {
                text(args, &head.key);
                text(args, &value);
                done = true;
            }
            Ok(())
        });
        self.count += u64::from(done);
        done && read.is_ok()
    }

    /// True when they should be written.
    pub fn is_full(&self) -> bool {
        self.count >= BATCH_STRINGS || self.args.len() >= BATCH_BYTES
    }

    /// Appends them as one command; answers how many they are.
    pub fn write(&mut self, out: &mut Vec<u8>) -> u64 {
        let count = std::mem::take(&mut self.count);
        if count > 0 {
            header(out, b'*', 1 + 2 * count);
            out.extend_from_slice(b"$4\r\nMSET\r\n");
            out.append(&mut self.args);
        }
        count
    }
}

/// A short string as it is, about which nothing else is to be told.
fn is_plain(head: &KeyHeader<'_>, raw: &[u8]) -> bool {
    let plain = head.kind.kind() == Some(Kind::String) && head.idle.is_none() && head.freq.is_none();
    plain && raw.first() != Some(&COMPRESSED) && raw.len() <= SET_VALUE_MAX
}

/// Appends `SET key value [PXAT at]` where that makes the same key as a payload would; false where it does not.
pub fn append_set(
    out: &mut Vec<u8>,
    head: &KeyHeader<'_>,
    raw: &[u8],
    target: &ServerInfo,
    expire_ms: Option<i64>,
) -> bool {
    if !is_plain(head, raw) || (expire_ms.is_some() && !target.sets_absolutely()) {
        return false;
    }
    let mut done = false;
    let read = elements(head.kind, raw, |element| {
        if let Element::String(value) = element {
            header(out, b'*', if expire_ms.is_some() { 5 } else { 3 });
            out.extend_from_slice(b"$3\r\nSET\r\n");
            text(out, &head.key);
            text(out, &value);
            done = true;
        }
        Ok(())
    });
    if let (true, Some(at)) = (done && read.is_ok(), expire_ms) {
        out.extend_from_slice(b"$4\r\nPXAT\r\n");
        text(out, at.max(1).to_string().as_bytes());
    }
    done
}

/// A value longer than this is not copied on its way, bytes.
const INLINE_MAX: usize = 1 << 20;

/// Appends `RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME|FREQ]`. `expire_ms` is absolute; `now_ms` is only needed
/// for servers that count from now.
///
/// A long value is not written to `out`: it is sent at the returned position.
pub fn append_restore(
    out: &mut Vec<u8>,
    head: &KeyHeader<'_>,
    raw: &[u8],
    target: &ServerInfo,
    conflict: Conflict,
    expire_ms: Option<i64>,
    now_ms: i64,
) -> Option<usize> {
    let absolute = target.restores_absolutely();
    let replace = conflict == Conflict::Replace;
    let used: Option<(&[u8], u64)> = match (head.freq, head.idle) {
        _ if !absolute => None,
        (Some(freq), _) => Some((b"FREQ", u64::from(freq))),
        (None, Some(idle)) => Some((b"IDLETIME", idle)),
        (None, None) => None,
    };
    let expires = absolute && expire_ms.is_some();
    let count = 4 + u64::from(replace) + u64::from(expires) + 2 * u64::from(used.is_some());
    header(out, b'*', count);
    out.extend_from_slice(b"$7\r\nRESTORE\r\n");
    text(out, &head.key);
    let ttl = match expire_ms {
        None => 0,
        Some(at) if absolute => at.max(1),
        // What has expired meanwhile lives a last moment.
        Some(at) => (at - now_ms).max(1),
    };
    text(out, ttl.to_string().as_bytes());
    header(out, b'$', dump::len(raw.len()) as u64);
    let version = target.payload_version(head.kind);
    let mut insert_at = None;
    if raw.len() > INLINE_MAX {
        out.push(head.kind.number);
        insert_at = Some(out.len());
        out.extend_from_slice(&dump::footer(head.kind, raw, version));
    } else {
        dump::payload(out, head.kind, raw, version);
    }
    out.extend_from_slice(b"\r\n");
    if replace {
        out.extend_from_slice(b"$7\r\nREPLACE\r\n");
    }
    if expires {
        out.extend_from_slice(b"$6\r\nABSTTL\r\n");
    }
    if let Some((word, n)) = used {
        text(out, word);
        text(out, n.to_string().as_bytes());
    }
    insert_at
}
