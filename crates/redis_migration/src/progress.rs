//! What a migration is doing, and what it did.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::snapshot::load::LoadStats;

/// The counters of a running migration, readable at any time.
#[derive(Debug, Default)]
pub struct Progress {
    /// 0: connecting; 1: snapshot; 2: stream.
    pub phase: AtomicU64,
    /// Keys of the snapshot that the target has confirmed.
    pub keys: AtomicU64,
    /// Keys that the source has, by its own words.
    pub keys_expected: AtomicU64,
    /// Bytes of the snapshot.
    pub full_bytes: AtomicU64,
    /// Commands that went on.
    pub commands: AtomicU64,
    /// Bytes of the stream.
    pub stream_bytes: AtomicU64,
    /// Offset of the source's stream up to which the target has confirmed it.
    pub applied: Arc<AtomicU64>,
    /// How far the target is behind, bytes.
    pub lag_bytes: AtomicU64,
    /// How far the target is behind, milliseconds.
    pub lag_ms: AtomicU64,
}

/// What a migration did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// It is done; else it was stopped and can go on.
    pub done: bool,
    /// Its checkpoint is at the target: the same migration continues from there.
    pub resumable: bool,
    /// Keys of snapshots.
    pub full: LoadStats,
    /// Keys that existed at the target and were skipped.
    pub skipped_existing: u64,
    /// Keys whose module the target does not have.
    pub failed: Vec<String>,
    /// Commands of a file that the target refused; the first of them are named among what failed.
    pub refused: u64,
    /// How long snapshots took.
    pub full_seconds: f64,
    /// Snapshots taken.
    pub full_syncs: u64,
    /// Times that the stream went on where it was.
    pub partial_syncs: u64,
    /// Something to know.
    pub notes: Vec<String>,
}
