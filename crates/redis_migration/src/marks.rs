//! Pure: which position of the stream is noted for all slots of a cluster together.
//!
//! Each slot has a mark of its own, in the transactions that change it; the common one says where to begin. A replica that
//! takes the place of a master of the target may lack what that did last, and its marks lack it too: so the common mark stays
//! behind by [`BEHIND`], and what a slot has already is passed over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far the common mark stays behind: longer than replicas usually do.
const BEHIND: Duration = Duration::from_secs(2);

/// Positions that may be marked.
#[derive(Debug)]
pub(crate) struct Marks {
    /// What is marked.
    marked: u64,
    /// Up to where all slots were, and when.
    reached: VecDeque<(Instant, u64)>,
    /// Offsets from which on the stream is in a database.
    dbs: VecDeque<(u64, u32, bool)>,
}

impl Marks {
    /// Begins at an offset that is marked, where the stream is in a database.
    pub(crate) fn new(offset: u64, db: u32, travels: bool) -> Self {
        Self { marked: offset, reached: VecDeque::new(), dbs: VecDeque::from([(offset, db, travels)]) }
    }

    /// From this offset on the stream is in that database; all databases that do not travel are alike.
    pub(crate) fn at(&mut self, offset: u64, db: u32, travels: bool) {
        if self.dbs.back().is_some_and(|last| last.1 != db && (last.2 || travels)) {
            self.dbs.push_back((offset, db, travels));
        }
    }

    /// The database in which the stream is at an offset that may be marked.
    pub(crate) fn db_at(&self, offset: u64) -> u32 {
        self.dbs.iter().rev().find(|(from, ..)| *from <= offset).map_or(0, |(_, db, _)| *db)
    }

    /// This offset is marked, whatever was reached before.
    pub(crate) fn is_marked(&mut self, offset: u64) {
        self.marked = offset;
        self.reached.clear();
    }

    /// All slots are at `low` now; the offset to be marked, when there is a new one.
    pub(crate) fn due(&mut self, low: u64, now: Instant) -> Option<u64> {
        self.reached.push_back((now, low));
        let mut due = None;
        while let Some((at, offset)) = self.reached.front().copied() {
            if now.saturating_duration_since(at) < BEHIND {
                break;
            }
            self.reached.pop_front();
            due = Some(offset);
        }
        let due = due.filter(|offset| *offset > self.marked)?;
        self.marked = due;
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
    fn the_common_mark_stays_behind_and_knows_its_database() {
        let (mut marks, began) = (Marks::new(10, 0, true), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        assert_eq!(marks.due(20, at(0)), None);
        marks.at(25, 3, false);
        marks.at(30, 4, false);
        assert_eq!(marks.due(40, at(500)), None);
        assert_eq!(marks.due(50, at(2000)), Some(20));
        assert_eq!((marks.db_at(20), marks.db_at(25), marks.db_at(50)), (0, 3, 3));
        assert_eq!(marks.due(50, at(2400)), None);
        assert_eq!(marks.due(50, at(2500)), Some(40));
        assert_eq!((marks.db_at(40), marks.dbs.len()), (3, 1));
        assert_eq!(marks.due(50, at(9000)), Some(50));
        assert_eq!(marks.due(50, at(19_000)), None, "it is marked");
        marks.due(60, at(20_000));
        marks.is_marked(70);
        assert_eq!(marks.due(70, at(23_000)), None, "nothing before it is marked any more");
    }
}
