//! Lengths and short strings at the beginning of what follows.

use std::borrow::Cow;

use super::SMALL_MAX;
use crate::error::ProtocolError;
use crate::rdb::cursor::{Cursor, Length, Read, Stop};
use crate::rdb::shape::{Family, Type};

/// Everything before a value.
pub(super) struct Prefix<'b> {
    pub(super) key: Cow<'b, [u8]>,
    pub(super) kind: Type,
    pub(super) expire_ms: Option<i64>,
    pub(super) idle: Option<u64>,
    pub(super) freq: Option<u8>,
    pub(super) type_at: usize,
}

pub(super) fn prefix<'b>(cursor: &mut Cursor<'b>, family: Family) -> Read<Prefix<'b>> {
    let (mut expire_ms, mut idle, mut freq) = (None, None, None);
    loop {
        let type_at = cursor.at;
        match cursor.byte()? {
            0xfd => expire_ms = Some(i64::from(cursor.u32_le()?) * 1000),
            0xfc => expire_ms = Some(cursor.i64_le()?),
            0xf9 => freq = Some(cursor.byte()?),
            0xf8 => idle = Some(cursor.number()?),
            // Servers read on past these with what they know of the key; KeyDB writes names and values there.
            0xfa => {
                skip_string(cursor)?;
                skip_string(cursor)?;
            }
            0xfb => {
                cursor.number()?;
                cursor.number()?;
            }
            0xf4 => {
                cursor.number()?;
                cursor.number()?;
                cursor.number()?;
            }
            other if other >= 0xf0 => {
                let m = format!("unknown opcode {other:#04x} between an expiry and its key");
                return Err(Stop::Wrong(ProtocolError::new(type_at as u64, m).newer()));
            }
            number => {
                let kind = Type { family, number };
                let mut ahead = cursor.clone();
                if let Length::Plain(n) = ahead.length()?
                    && n > SMALL_MAX
                {
                    return cursor.wrong(format!("key of {n} bytes exceeds the limit"));
                }
                return Ok(Prefix { key: cursor.string()?, kind, expire_ms, idle, freq, type_at });
            }
        }
    }
}

/// Skips a string that is not a key or its value.
pub(super) fn skip_string(cursor: &mut Cursor<'_>) -> Read<()> {
    if let Length::Plain(n) = cursor.clone().length()?
        && n > SMALL_MAX
    {
        return cursor.wrong(format!("name of {n} bytes exceeds the limit"));
    }
    cursor.raw_string().map(drop)
}

pub(super) fn behind(stop: Stop, bytes: usize) -> Stop {
    match stop {
        Stop::Short => Stop::Short,
        Stop::Wrong(error) => Stop::Wrong(error.behind(bytes as u64)),
    }
}

/// `REDISnnnn` or `VALKEYnnn`.
pub(super) fn magic(buf: &[u8]) -> Read<(Family, u16, usize)> {
    let wrong =
        || Stop::Wrong(ProtocolError::new(0, "not an RDB file: it does not begin with REDIS or VALKEY"));
    for (word, family) in [(&b"REDIS"[..], Family::Redis), (b"VALKEY", Family::Valkey)] {
        let n = word.len().min(buf.len());
        if buf[..n] != word[..n] {
            continue;
        }
        let digits = buf.get(word.len()..9).ok_or(Stop::Short)?;
        let version = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
        return Ok((family, version.and_then(|d| d.parse().ok()).ok_or_else(wrong)?, 9));
    }
    Err(wrong())
}
