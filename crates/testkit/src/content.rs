//! Object bodies that cost nothing: slices of one repeating megabyte, or bytes given by a test.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, OnceLock};

use bytes::Bytes;
use md5::{Digest, Md5};

const BLOCK: usize = 1 << 20;

fn block() -> &'static Bytes {
    static BLOCK_BYTES: OnceLock<Bytes> = OnceLock::new();
    BLOCK_BYTES.get_or_init(|| {
        let mut random = fastrand::Rng::with_seed(42);
        let mut bytes = vec![0; 2 * BLOCK];
        random.fill(&mut bytes[..BLOCK]);
        bytes.copy_within(..BLOCK, BLOCK);
        Bytes::from(bytes)
    })
}

/// What an object holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// These bytes.
    Given(Bytes),
    /// So many bytes of the repeating pattern.
    Pattern(u64),
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Content::Given(bytes) => bytes.len() as u64,
            Content::Pattern(len) => *len,
        }
    }

    /// True when there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The chunk that begins at `at`, up to `end`; no copy.
    pub fn chunk(&self, at: u64, end: u64) -> Bytes {
        match self {
            Content::Given(bytes) => {
                let most = (end - at).min(1 << 20);
                bytes.slice(at as usize..(at + most) as usize)
            }
            Content::Pattern(_) => {
                let from = (at % BLOCK as u64) as usize;
                let len = (end - at).min(BLOCK as u64) as usize;
                block().slice(from..from + len)
            }
        }
    }

    /// All bytes of a range.
    pub fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let chunk = self.chunk(at, range.end);
            at += chunk.len() as u64;
            out.extend_from_slice(&chunk);
        }
        out
    }

    /// MD5 of a range; of the pattern computed once per length and offset.
    pub fn md5(&self, range: Range<u64>) -> [u8; 16] {
        type Digests = HashMap<(u64, u64), [u8; 16]>;
        static KNOWN: OnceLock<Mutex<Digests>> = OnceLock::new();
        let compute = || {
            let mut md5 = Md5::new();
            let mut at = range.start;
            while at < range.end {
                let chunk = self.chunk(at, range.end);
                at += chunk.len() as u64;
                md5.update(&chunk);
            }
            md5.finalize().into()
        };
        match self {
            Content::Given(_) => compute(),
            Content::Pattern(_) => {
                let known = KNOWN.get_or_init(Mutex::default);
                let key = (range.start % BLOCK as u64, range.end - range.start);
                let found =
                    known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&key).copied();
                found.unwrap_or_else(|| {
                    let md5 = compute();
                    known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key, md5);
                    md5
                })
            }
        }
    }

    /// The ETag of this content, written whole or in parts of a size.
    pub fn etag(&self, part_size: Option<u64>) -> String {
        let Some(size) = part_size else { return storage::checksum::hex(&self.md5(0..self.len())) };
        let count = self.len().div_ceil(size).max(1);
        let parts = (0..count).map(|i| self.md5(i * size..((i + 1) * size).min(self.len())));
        format!("{}-{count}", storage::checksum::hex(&storage::checksum::md5_of_parts(parts)))
    }
}
