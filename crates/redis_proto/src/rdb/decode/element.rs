//! Elements of values, as the commands that rebuild a value need them.

use std::borrow::Cow;

use super::elements;
use crate::error::Result;
use crate::rdb::shape::Type;

/// Identity of an entry of a stream: milliseconds and sequence number.
pub type StreamId = (u64, u64);

/// Bytes of an element.
pub type Text<'b> = Cow<'b, [u8]>;

/// What a value is made of, in the order that builds it again.
#[derive(Clone, Debug, PartialEq)]
pub enum Element<'b> {
    /// The bytes of a string.
    String(Text<'b>),
    /// An item of a list, from its head.
    Item(Text<'b>),
    /// A member of a set.
    Member(Text<'b>),
    /// A field of a hash, its value, and when it expires, milliseconds since the epoch.
    Field(Text<'b>, Text<'b>, Option<i64>),
    /// A member of a sorted set with its score.
    Scored(Text<'b>, f64),
    /// An entry of a stream with its fields and values.
    Entry(StreamId, Vec<(Text<'b>, Text<'b>)>),
    /// What a stream knows of itself; behind its entries.
    Stream(StreamFacts),
    /// A group of consumers.
    Group {
        /// Its name.
        name: Text<'b>,
        /// The last entry that was delivered.
        last: StreamId,
        /// Entries read by it, where the server keeps that.
        read: Option<i64>,
    },
    /// A consumer of the group before it.
    Consumer {
        /// Its name.
        name: Text<'b>,
        /// Last seen, milliseconds since the epoch.
        seen_ms: i64,
        /// Last active, where the server keeps that.
        active_ms: Option<i64>,
    },
    /// An entry delivered to the consumer before it, and not acknowledged.
    Pending {
        /// The entry.
        id: StreamId,
        /// When it was delivered, milliseconds since the epoch.
        delivered_ms: i64,
        /// How often.
        count: u64,
    },
}

/// What a stream knows of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamFacts {
    /// Entries that it holds.
    pub length: u64,
    /// The last identity that it gave.
    pub last: StreamId,
    /// The first entry that it holds, since version 10 of the format.
    pub first: Option<StreamId>,
    /// The greatest identity that was deleted, since version 10.
    pub max_deleted: Option<StreamId>,
    /// Entries added in all, since version 10.
    pub added: Option<u64>,
}

/// Entries of a stream that are pending and deleted, in order: a claim makes an entry pending only where it is.
///
/// # Errors
/// As [`elements`].
pub fn pending_of_deleted(kind: Type, raw: &[u8]) -> Result<Vec<StreamId>> {
    let mut pending = std::collections::BTreeSet::new();
    elements(kind, raw, |element| {
        if let Element::Pending { id, .. } = element {
            pending.insert(id);
        }
        Ok(())
    })?;
    if !pending.is_empty() {
        elements(kind, raw, |element| {
            if let Element::Entry(id, _) = element {
                pending.remove(&id);
            }
            Ok(())
        })?;
    }
    Ok(pending.into_iter().collect())
}
