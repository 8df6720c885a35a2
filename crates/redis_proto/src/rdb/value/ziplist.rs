//! Ziplists (ziplist.c), which listpacks replaced: total bytes, offset of the last entry, count, entries each with
//! the length of the one before it, 0xff.

use std::borrow::Cow;

use super::listpack::signed;
use super::text;
use crate::rdb::cursor::{Cursor, Read};

pub(crate) fn read(blob: &[u8]) -> Read<Vec<Cow<'_, [u8]>>> {
    let mut cursor = Cursor::new(blob);
    let (total, _tail, count) = (cursor.u32_le()?, cursor.u32_le()?, cursor.u16_le()?);
    if total as usize != blob.len() {
        cursor.at = 0;
        return cursor.wrong(format!("ziplist of {total} bytes in {} bytes", blob.len()));
    }
    let mut out = Vec::new();
    loop {
        let begin = cursor.at;
        let before = cursor.byte()?;
        if before == 0xff {
            // A count of 65,535 means: go and see.
            if count != u16::MAX && usize::from(count) != out.len() {
                return cursor.wrong(format!("ziplist declares {count} entries, found {}", out.len()));
            }
            if cursor.left() > 0 {
                return cursor.wrong("trailing bytes after a ziplist");
            }
            return Ok(out);
        }
        if before == 0xfe {
            cursor.u32_le()?;
        }
        let first = cursor.byte()?;
        out.push(match first {
            0x00..=0x3f => Cow::Borrowed(cursor.take(usize::from(first))?),
            0x40..=0x7f => {
                let n = usize::from(first & 0x3f) << 8 | usize::from(cursor.byte()?);
                Cow::Borrowed(cursor.take(n)?)
            }
            0x80 => {
                let n = cursor.take(4)?;
                let n = u32::from_be_bytes([n[0], n[1], n[2], n[3]]) as usize;
                Cow::Borrowed(cursor.take(n)?)
            }
            0xc0 => text(signed(cursor.take(2)?)),
            0xd0 => text(signed(cursor.take(4)?)),
            0xe0 => text(signed(cursor.take(8)?)),
            0xf0 => text(signed(cursor.take(3)?)),
            0xfe => text(signed(cursor.take(1)?)),
            0xf1..=0xfd => text(i64::from(first & 0x0f) - 1),
            other => {
                cursor.at = begin;
                return cursor.wrong(format!("{other:#04x} is not a ziplist entry encoding"));
            }
        });
    }
}
