//! What a task has settled so far, in objects and bytes.

use serde::{Deserialize, Serialize};
use std::ops::{Add, AddAssign};

/// A number of objects and the bytes in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Objects.
    pub objects: u64,
    /// Bytes in those objects.
    pub bytes: u64,
}

impl Tally {
    /// One object of `bytes` bytes.
    pub fn one(bytes: u64) -> Self {
        Self { objects: 1, bytes }
    }
}

impl Add for Tally {
    type Output = Tally;
    fn add(self, o: Tally) -> Tally {
        Tally { objects: self.objects + o.objects, bytes: self.bytes + o.bytes }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, o: Tally) {
        *self = *self + o;
    }
}

/// How a copied object was proved equal to its source, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A digest computed over the bytes in flight equals what the target stored.
    Digest,
    /// Both sides' ETags are MD5-based and equal.
    Etag,
    /// Both sides' CRC-64 are equal.
    Crc64,
    /// Only length (and time) could be compared.
    Size,
}

/// Objects settled in one range or one task. Every settled key is in exactly one of the first five.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Transferred and proved.
    pub copied: Tally,
    /// Left alone by the overwrite rule or a filter of time.
    pub skipped: Tally,
    /// Given up after retries; each is also a row with its cause.
    pub failed: Tally,
    /// Listed, but no longer at the source when read.
    pub gone: Tally,
    /// Removed at the target because the source no longer has them.
    pub deleted: Tally,
    /// Copied objects by the proof that was used: digest, etag, crc64, size.
    pub proof: [u64; 4],
}

impl Counters {
    /// All keys settled, whatever the outcome; deletions are not source keys and do not count.
    pub fn settled(&self) -> Tally {
        self.copied + self.skipped + self.failed + self.gone
    }

    /// Counts one copied object of `bytes` bytes with its proof.
    pub fn copied_one(&mut self, bytes: u64, proof: Proof) {
        self.copied += Tally::one(bytes);
        self.proof[proof as usize] += 1;
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, o: Counters) {
        self.copied += o.copied;
        self.skipped += o.skipped;
        self.failed += o.failed;
        self.gone += o.gone;
        self.deleted += o.deleted;
        for (mine, theirs) in self.proof.iter_mut().zip(o.proof) {
            *mine += theirs;
        }
    }
}
