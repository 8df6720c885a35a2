//! What tests do with a bucket without HTTP.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{S3Server, kept, lock, object};
use crate::content::Content;
use crate::keys::{Keys, Object, Sorted};

/// A bucket to fill from a test.
#[derive(Debug)]
pub struct Bucket<'s> {
    pub(super) server: &'s S3Server,
    pub(super) name: String,
}

impl Bucket<'_> {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<Sorted, Object>) -> T) -> Option<T> {
        match lock(&self.server.state.buckets).get_mut(&self.name) {
            Some(Keys::Kept(map)) => Some(f(map)),
            _ => None,
        }
    }

    fn sorted(&self, key: &str) -> Sorted {
        Sorted(self.server.state.options.order, key.as_bytes().to_vec())
    }

    /// Puts an object of given bytes.
    pub fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        self.put_with(key, Content::Given(bytes.into()), None, &[]);
    }

    /// Puts an object with a part layout and headers.
    pub fn put_with(&self, key: &str, content: Content, part_size: Option<u64>, headers: &[(&str, &[u8])]) {
        let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_vec())).collect();
        let mut object = kept(&self.server.state.options, object(content, part_size, headers));
        // Written before any migration of it began.
        object.modified_ms -= 60_000;
        let key = self.sorted(key);
        self.with(|map| map.insert(key, object));
    }

    /// All keys and objects, in order.
    pub fn objects(&self) -> Vec<(String, Object)> {
        let all = self.with(|map| {
            map.iter().map(|(k, o)| (String::from_utf8_lossy(&k.1).into_owned(), o.clone())).collect()
        });
        all.unwrap_or_default()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.with(|map| map.len()).unwrap_or(0)
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
