//! Sets of integers (intset.h): width in bytes, count, then the numbers, little-endian and ascending.

use std::borrow::Cow;

use super::text;
use crate::rdb::cursor::{Cursor, Read};

pub(crate) fn read<'b>(blob: &'b [u8]) -> Read<Vec<Cow<'b, [u8]>>> {
    let mut cursor = Cursor::new(blob);
    let (width, count) = (cursor.u32_le()?, cursor.u32_le()?);
    if !matches!(width, 2 | 4 | 8) {
        cursor.at = 0;
        return cursor.wrong(format!("intset with an invalid encoding of {width} bytes"));
    }
    if cursor.left() as u64 != u64::from(count) * u64::from(width) {
        cursor.at = 4;
        return cursor.wrong(format!("intset of {count} numbers in {} bytes", cursor.left()));
    }
    let mut out = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let mut number = [0; 8];
        let bytes = cursor.take(width as usize)?;
        number[..bytes.len()].copy_from_slice(bytes);
        // Sign-extend from the width that is stored.
        let shift = 64 - 8 * width;
        out.push(text(i64::from_le_bytes(number) << shift >> shift));
    }
    Ok(out)
}
