//! The keys of a bucket: kept in a sorted map, or computed from their number so that ten million cost nothing.

use std::collections::BTreeMap;

use model::key::Order;

use crate::content::Content;

/// One object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes.
    pub content: Content,
    /// ETag without quotes.
    pub etag: String,
    /// Size of its parts, when it was written in parts.
    pub part_size: Option<u64>,
    /// Headers to send with it.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Last modification, milliseconds.
    pub modified_ms: i64,
}

/// A key in listing order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sorted(pub(crate) Order, pub(crate) Vec<u8>);

impl PartialOrd for Sorted {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sorted {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.compare(&self.1, &other.1)
    }
}

/// The objects of one bucket.
#[derive(Debug)]
pub(crate) enum Keys {
    Kept(BTreeMap<Sorted, Object>),
    /// `n` keys `obj-` and ten digits, all with the same object.
    Numbered(u64, Object),
}

impl Keys {
    pub(crate) fn get(&self, order: Order, key: &[u8]) -> Option<&Object> {
        match self {
            Keys::Kept(map) => map.get(&Sorted(order, key.to_vec())),
            Keys::Numbered(n, object) => number(key).filter(|i| i < n).map(|_| object),
        }
    }

    /// Calls `each` for keys after `after` with `prefix`, until it says stop; true when keys were left.
    pub(crate) fn walk(
        &self,
        order: Order,
        after: &[u8],
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &Object) -> bool,
    ) -> bool {
        match self {
            Keys::Kept(map) => {
                let from = if order.compare(after, prefix).is_lt() { prefix } else { after };
                let start = Sorted(order, from.to_vec());
                for (key, object) in map.range(start..) {
                    if key.1 == after && !after.is_empty() {
                        continue;
                    }
                    if !key.1.starts_with(prefix) {
                        break;
                    }
                    if !each(&key.1, object) {
                        return true;
                    }
                }
                false
            }
            Keys::Numbered(n, object) => {
                let mut i = first_after(after);
                let mut text = *b"obj-0000000000";
                while i < *n {
                    let mut rest = i;
                    for digit in text[4..].iter_mut().rev() {
                        *digit = b'0' + (rest % 10) as u8;
                        rest /= 10;
                    }
                    if text.starts_with(prefix) && !each(&text, object) {
                        return true;
                    }
                    i += 1;
                }
                false
            }
        }
    }
}

fn number(key: &[u8]) -> Option<u64> {
    let digits = key.strip_prefix(b"obj-")?;
    (digits.len() == 10).then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// The first number whose key sorts after `after`.
fn first_after(after: &[u8]) -> u64 {
    if let Some(i) = number(after) {
        return i + 1;
    }
    let (mut low, mut high) = (0u64, 10_000_000_000u64);
    while low < high {
        let middle = (low + high) / 2;
        if format!("obj-{middle:010}").as_bytes() <= after { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_keys_continue_after_any_key() {
        assert_eq!(first_after(b""), 0);
        assert_eq!(first_after(b"obj-0000000041"), 42);
        assert_eq!(first_after(b"obj-00000000410"), 42);
        assert_eq!(first_after(b"obj-5"), 5_000_000_000);
    }
}
