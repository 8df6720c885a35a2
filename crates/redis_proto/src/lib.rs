//! Redis on the wire and on the disk: bytes in, events out. No sockets, no clock, no waiting.
//!
//! ```text
//! RDB stream ─> rdb::Parser ─┬─> Item::Value (a span, passed through as a RESTORE payload)
//!                            └─> rdb::decode (elements, when the target cannot take the span)
//! commands   ─> resp::Commands ─> command::keys (which keys, which slot)
//! replies    ─> resp::Replies
//! ```
//!
//! Whatever comes in is distrusted: every length is checked before it is believed, every error names the offset of the
//! byte that it is about, and nothing panics.

pub mod aof;
pub mod command;
pub mod error;
pub mod lzf;
pub mod rdb;
pub mod resp;

pub use error::{ProtocolError, Result};
