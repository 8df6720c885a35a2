//! The compact encodings of small values: one string that holds many elements.

pub(crate) mod intset;
pub(crate) mod listpack;
pub(crate) mod ziplist;
pub(crate) mod zipmap;

use std::borrow::Cow;

/// An element of a compact encoding: bytes, or a number kept as one.
pub(crate) fn text<'b>(number: i64) -> Cow<'b, [u8]> {
    Cow::Owned(number.to_string().into_bytes())
}
