//! Listpacks (listpack.c): total bytes, count, entries each followed by its own length backwards, 0xff.

use std::borrow::Cow;

use super::text;
use crate::rdb::cursor::{Cursor, Read};

/// A walk through the entries of a listpack.
#[derive(Clone, Debug)]
pub(crate) struct Listpack<'b> {
    cursor: Cursor<'b>,
}

impl<'b> Listpack<'b> {
    /// Checks what stands at the beginning.
    pub(crate) fn open(blob: &'b [u8]) -> Read<Self> {
        let mut cursor = Cursor::new(blob);
        let total = cursor.u32_le()?;
        cursor.u16_le()?;
        if total as usize != blob.len() {
            cursor.at = 0;
            return cursor.wrong(format!("listpack of {total} bytes in {} bytes", blob.len()));
        }
        Ok(Self { cursor })
    }

    /// The next entry; none at the end.
    pub(crate) fn entry(&mut self) -> Read<Option<Cow<'b, [u8]>>> {
        let begin = self.cursor.at;
        let cursor = &mut self.cursor;
        let first = cursor.byte()?;
        let entry = match first {
            0xff => {
                if cursor.left() > 0 {
                    return cursor.wrong("trailing bytes after a listpack");
                }
                return Ok(None);
            }
            0x00..=0x7f => text(i64::from(first)),
            0x80..=0xbf => Cow::Borrowed(cursor.take(usize::from(first & 0x3f))?),
            0xc0..=0xdf => {
                let n = i64::from(first & 0x1f) << 8 | i64::from(cursor.byte()?);
                text(if n >= 1 << 12 { n - (1 << 13) } else { n })
            }
            0xe0..=0xef => {
                let n = usize::from(first & 0x0f) << 8 | usize::from(cursor.byte()?);
                Cow::Borrowed(cursor.take(n)?)
            }
            0xf0 => {
                let n = cursor.u32_le()? as usize;
                Cow::Borrowed(cursor.take(n)?)
            }
            0xf1..=0xf4 => {
                let width = [2, 3, 4, 8][usize::from(first - 0xf1)];
                text(signed(cursor.take(width)?))
            }
            other => {
                cursor.at = begin;
                return cursor.wrong(format!("{other:#04x} is not a listpack entry encoding"));
            }
        };
        // The length backwards is as long as the entry needs (listpack.c, lpEncodeBacklen).
        let len = cursor.at - begin;
        let back = match len {
            0..=127 => 1,
            128..=16_383 => 2,
            16_384..=2_097_151 => 3,
            2_097_152..=268_435_455 => 4,
            _ => 5,
        };
        cursor.take(back)?;
        Ok(Some(entry))
    }

    /// The next entry, which must be there.
    pub(crate) fn must(&mut self) -> Read<Cow<'b, [u8]>> {
        match self.entry()? {
            Some(entry) => Ok(entry),
            None => self.cursor.wrong("unexpected end of a listpack"),
        }
    }

    /// The next entry as a number.
    pub(crate) fn number(&mut self) -> Read<i64> {
        let begin = self.cursor.at;
        let entry = self.must()?;
        match std::str::from_utf8(&entry).ok().and_then(|t| t.parse().ok()) {
            Some(number) => Ok(number),
            None => {
                self.cursor.at = begin;
                self.cursor.wrong("expected a number")
            }
        }
    }

    /// Where the walk is.
    pub(crate) fn at(&self) -> usize {
        self.cursor.at
    }

    pub(crate) fn wrong<T>(&self, what: impl Into<String>) -> Read<T> {
        self.cursor.wrong(what)
    }
}

/// A little-endian number of up to eight bytes.
pub(crate) fn signed(bytes: &[u8]) -> i64 {
    let mut out = [0; 8];
    out[..bytes.len().min(8)].copy_from_slice(&bytes[..bytes.len().min(8)]);
    let shift = 64 - 8 * bytes.len().clamp(1, 8) as u32;
    i64::from_le_bytes(out) << shift >> shift
}

/// All entries.
pub(crate) fn read(blob: &[u8]) -> Read<Vec<Cow<'_, [u8]>>> {
    let mut pack = Listpack::open(blob)?;
    let mut out = Vec::new();
    while let Some(entry) = pack.entry()? {
        out.push(entry);
    }
    Ok(out)
}
