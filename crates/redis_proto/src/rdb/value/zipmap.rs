//! Zipmaps (zipmap.c), hashes of versions before 2.6: count, then length, field, length, free bytes, value; 0xff.

use std::borrow::Cow;

use crate::rdb::cursor::{Cursor, Read};

/// Fields and values, one after the other.
pub(crate) fn read(blob: &[u8]) -> Read<Vec<Cow<'_, [u8]>>> {
    let mut cursor = Cursor::new(blob);
    // Counts from 254 on are not kept.
    cursor.byte()?;
    let mut out = Vec::new();
    loop {
        let Some(len) = length(&mut cursor)? else {
            if cursor.left() > 0 {
                return cursor.wrong("trailing bytes after a zipmap");
            }
            return Ok(out);
        };
        out.push(Cow::Borrowed(cursor.take(len)?));
        let Some(len) = length(&mut cursor)? else {
            return cursor.wrong("zipmap field without a value");
        };
        let free = usize::from(cursor.byte()?);
        out.push(Cow::Borrowed(cursor.take(len)?));
        cursor.take(free)?;
    }
}

/// A length; none at the end of the map.
fn length(cursor: &mut Cursor<'_>) -> Read<Option<usize>> {
    Ok(match cursor.byte()? {
        0xff => None,
        0xfe => Some(cursor.u32_le()? as usize),
        n => Some(usize::from(n)),
    })
}
