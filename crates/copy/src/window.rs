//! Pure: the order in which keys settle, against the order in which they were listed.
//!
//! The cursor is the last key of the settled front; keys settled behind an unsettled one are "ahead". Both
//! together are what a checkpoint stores, so out-of-order completion costs nothing on resume.

use std::collections::{HashSet, VecDeque};

use model::key::Key;

/// Keys in flight at most; also the bound on keys ahead.
pub(crate) const SLOTS: usize = 2048;
const BYTES: usize = 512 << 10;

#[derive(Debug)]
pub(crate) struct Window {
    slots: VecDeque<(Key, bool)>,
    first: u64,
    bytes: usize,
    cursor: Key,
    /// Settled before an interruption, not yet met again.
    before: HashSet<Key>,
    /// Keys seen since the window was opened on a resumed range.
    seen: usize,
}

impl Window {
    pub(crate) fn new(cursor: Key, ahead: Vec<Key>) -> Self {
        let before = ahead.into_iter().collect();
        Self { slots: VecDeque::new(), first: 0, bytes: 0, cursor, before, seen: 0 }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < SLOTS && self.bytes < BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes a listed key; its place in the order, or none when it was settled before the interruption.
    pub(crate) fn take(&mut self, key: Key) -> Option<u64> {
        self.seen += 1;
        let known = !self.before.is_empty() && self.before.remove(&key);
        self.bytes += key.as_bytes().len();
        self.slots.push_back((key, known));
        let place = self.first + self.slots.len() as u64 - 1;
        if known {
            self.advance();
            return None;
        }
        Some(place)
    }

    /// True while keys may come that were in flight when the range was interrupted.
    pub(crate) fn in_doubt(&self) -> bool {
        self.seen <= SLOTS
    }

    pub(crate) fn settle(&mut self, place: u64) {
        if let Some(slot) = usize::try_from(place - self.first).ok().and_then(|i| self.slots.get_mut(i)) {
            slot.1 = true;
        }
        self.advance();
    }

    fn advance(&mut self) {
        while self.slots.front().is_some_and(|(_, settled)| *settled) {
            if let Some((key, _)) = self.slots.pop_front() {
                self.first += 1;
                self.bytes -= key.as_bytes().len();
                self.cursor = key;
            }
        }
    }

    pub(crate) fn cursor(&self) -> &Key {
        &self.cursor
    }

    /// Keys after the cursor that are settled.
    pub(crate) fn ahead(&self) -> Vec<Key> {
        let settled = self.slots.iter().filter(|(_, s)| *s).map(|(k, _)| k);
        settled.chain(&self.before).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_follows_the_settled_front_only() {
        let mut w = Window::new(Key::from(""), vec![]);
        let places: Vec<u64> = ["a", "b", "c"].iter().map(|k| w.take(Key::from(*k)).unwrap()).collect();
        w.settle(places[2]);
        assert_eq!((w.cursor().as_str(), w.ahead()), (Some(""), vec![Key::from("c")]));
        w.settle(places[0]);
        assert_eq!(w.cursor().as_str(), Some("a"));
        w.settle(places[1]);
        assert_eq!((w.cursor().as_str(), w.ahead().len()), (Some("c"), 0));
        assert!(w.is_empty());
    }

    /// Whatever the order of settling and wherever it is cut, resuming sees each key exactly once.
    #[test]
    fn any_cut_resumes_with_every_key_once() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..500 {
            let keys: Vec<Key> = (0..40).map(|i| Key::from(format!("k{i:02}"))).collect();
            let mut done = vec![0; keys.len()];
            let (mut cursor, mut ahead) = (Key::default(), vec![]);
            while done.contains(&0) {
                let mut w = Window::new(cursor.clone(), ahead.clone());
                let mut open: Vec<(usize, u64)> = Vec::new();
                for (i, key) in keys.iter().enumerate().filter(|(_, k)| **k > cursor) {
                    open.extend(w.take(key.clone()).map(|place| (i, place)));
                }
                random.shuffle(&mut open);
                let cut = random.usize(1..=open.len().max(1));
                for (i, place) in open.into_iter().take(cut) {
                    done[i] += 1;
                    w.settle(place);
                }
                (cursor, ahead) = (w.cursor().clone(), w.ahead());
            }
            assert!(done.iter().all(|n| *n == 1), "{done:?}");
        }
    }
}
