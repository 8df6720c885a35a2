//! RDB: the snapshot format, versions 1 to 12 of Redis and 80 of Valkey, and of newer ones whatever has a type of these (rdb.h,
//! rdb.c of the servers).
//!
//! [`Parser`] takes bytes as they come and gives keys with the spans of their values, without decoding them. What
//! cannot be passed on as it is goes through [`decode`]. A value beyond a bound is never held whole: it comes open,
//! element by element.

mod cursor;
pub mod decode;
pub mod dump;
mod parser;
mod shape;
mod value;

pub use decode::Element;
pub use parser::{Item, KeyHeader, Parser};
pub use shape::{Family, Kind, Type, is_empty};
