//! Pure: which offset of the stream is the checkpoint of all slots of a cluster together.
//!
//! Each slot has a checkpoint of its own, in the transactions that change it; the common one says where to begin. A replica that
//! takes the place of a master of the target may lack what that did last, and its checkpoints lack it too: so the common one stays
//! behind by [`CHECKPOINT_DELAY`], and what a slot has already is skipped.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far the common checkpoint stays behind: longer than replicas usually do.
const CHECKPOINT_DELAY: Duration = Duration::from_secs(2);

/// Offsets that may become the common checkpoint.
#[derive(Debug)]
pub(crate) struct Watermarks {
    /// The common checkpoint.
    checkpointed: u64,
    /// Up to where all slots were, and when.
    reached: VecDeque<(Instant, u64)>,
    /// Offsets from which on the stream is in a database.
    dbs: VecDeque<(u64, u32, bool)>,
}

impl Watermarks {
    /// Begins at an offset that is the checkpoint, where the stream is in a database.
    pub(crate) fn new(offset: u64, db: u32, is_migrated: bool) -> Self {
        Self {
            checkpointed: offset,
            reached: VecDeque::new(),
            dbs: VecDeque::from([(offset, db, is_migrated)]),
        }
    }

    /// From this offset on the stream is in that database; all databases that are not migrated are alike.
    pub(crate) fn record_db(&mut self, offset: u64, db: u32, is_migrated: bool) {
        if self.dbs.back().is_some_and(|last| last.1 != db && (last.2 || is_migrated)) {
            self.dbs.push_back((offset, db, is_migrated));
        }
    }

    /// The database in which the stream is at an offset that may become the checkpoint.
    pub(crate) fn db_at(&self, offset: u64) -> u32 {
        self.dbs.iter().rev().find(|(from, ..)| *from <= offset).map_or(0, |(_, db, _)| *db)
    }

    /// Sets the checkpoint, whatever was reached before.
    pub(crate) fn set_checkpointed(&mut self, offset: u64) {
        self.checkpointed = offset;
        self.reached.clear();
    }

    /// All slots are at `low` now; the next checkpoint, when there is a new one.
    pub(crate) fn due(&mut self, low: u64, now: Instant) -> Option<u64> {
        self.reached.push_back((now, low));
        let mut due = None;
        while let Some((at, offset)) = self.reached.front().copied() {
            if now.saturating_duration_since(at) < CHECKPOINT_DELAY {
                break;
            }
            self.reached.pop_front();
            due = Some(offset);
        }
        let due = due.filter(|offset| *offset > self.checkpointed)?;
        self.checkpointed = due;
        while self.dbs.get(1).is_some_and(|(from, ..)| *from <= due) {
            self.dbs.pop_front();
        }
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_watermark_lags_behind_and_keeps_its_database() {
        let (mut watermarks, began) = (Watermarks::new(10, 0, true), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        assert_eq!(watermarks.due(20, at(0)), None);
        watermarks.record_db(25, 3, false);
        watermarks.record_db(30, 4, false);
        assert_eq!(watermarks.due(40, at(500)), None);
        assert_eq!(watermarks.due(50, at(2000)), Some(20));
        assert_eq!((watermarks.db_at(20), watermarks.db_at(25), watermarks.db_at(50)), (0, 3, 3));
        assert_eq!(watermarks.due(50, at(2400)), None);
        assert_eq!(watermarks.due(50, at(2500)), Some(40));
        assert_eq!((watermarks.db_at(40), watermarks.dbs.len()), (3, 1));
        assert_eq!(watermarks.due(50, at(9000)), Some(50));
        assert_eq!(watermarks.due(50, at(19_000)), None, "it is marked");
        watermarks.due(60, at(20_000));
        watermarks.set_checkpointed(70);
        assert_eq!(watermarks.due(70, at(23_000)), None, "nothing before it is marked any more");
    }
}
