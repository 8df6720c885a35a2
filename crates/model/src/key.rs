//! Object keys, and the order in which a store lists them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::printable::Printable;

/// An object key: bytes until proved to be UTF-8, compared byte by byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(Box<[u8]>);

impl Key {
    /// A key of exactly these bytes.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as text, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The key as text, where a text must stand for it; bytes that are not UTF-8 are replaced. For logs and terminals there is
    /// `Display`.
    pub fn to_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// True for the empty key, which sorts before every other.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `prefix` followed by this key, with nothing put between them (OMS §4.2).
    pub fn under(&self, prefix: &str) -> Key {
        if prefix.is_empty() {
            return self.clone();
        }
        let mut bytes = Vec::with_capacity(prefix.len() + self.0.len());
        bytes.extend_from_slice(prefix.as_bytes());
        bytes.extend_from_slice(&self.0);
        Key(bytes.into())
    }

    /// True when the key names a folder marker: it ends in `/`.
    pub fn is_folder(&self) -> bool {
        self.0.last() == Some(&b'/')
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key(text.as_bytes().into())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Key(text.into_bytes().into())
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Key(bytes.into())
    }
}

/// For people: control characters are escaped.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable(&self.to_text()).fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// The order in which a store promises to list keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Plain byte order, as Amazon S3 lists.
    Bytes,
    /// A folder walk: byte order in which `/` sorts below every other byte.
    Segments,
    /// No promise: such a store is listed serially and never merged with another.
    Unknown,
}

impl Order {
    /// Compares two keys in this order.
    pub fn compare(self, a: &[u8], b: &[u8]) -> Ordering {
        match self {
            Order::Bytes | Order::Unknown => a.cmp(b),
            Order::Segments => a.iter().map(|&c| fold(c)).cmp(b.iter().map(|&c| fold(c))),
        }
    }

    /// True when `a` sorts at or before `upto`; no bound means the end of the key space.
    pub fn within(self, a: &[u8], upto: Option<&Key>) -> bool {
        upto.is_none_or(|u| self.compare(a, u.as_bytes()) != Ordering::Greater)
    }
}

fn fold(c: u8) -> u8 {
    match c {
        b'/' => 0,
        c if c < b'/' => c + 1,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_order_puts_a_folder_before_longer_siblings() {
        let mut keys = ["o/a!", "o/a/b", "o/a.txt", "o/a0", "o/a"];
        keys.sort_by(|a, b| Order::Segments.compare(a.as_bytes(), b.as_bytes()));
        assert_eq!(keys, ["o/a", "o/a/b", "o/a!", "o/a.txt", "o/a0"]);
        keys.sort_by(|a, b| Order::Bytes.compare(a.as_bytes(), b.as_bytes()));
        assert_eq!(keys, ["o/a", "o/a!", "o/a.txt", "o/a/b", "o/a0"]);
    }

    #[test]
    fn sec_f37_key_is_shown_on_one_line_and_kept_as_it_is() {
        let key = Key::from("a\n\u{1b}[2J\u{202e}b");
        assert_eq!(key.to_string(), "a\\n\\u{1b}[2J\\u{202e}b");
        assert_eq!(key.to_text(), "a\n\u{1b}[2J\u{202e}b");
    }

    #[test]
    fn prefix_is_joined_without_a_slash() {
        assert_eq!(Key::from("k").under("p"), Key::from("pk"));
        assert_eq!(Key::from("k").under(""), Key::from("k"));
    }

    #[test]
    fn key_bound_is_inclusive() {
        assert!(Order::Bytes.within(b"b", Some(&Key::from("b"))));
        assert!(!Order::Bytes.within(b"b0", Some(&Key::from("b"))));
        assert!(Order::Bytes.within(b"zzz", None));
    }
}
