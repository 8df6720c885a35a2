//! Pure: the order in which keys settle, against the order in which they were listed.
//!
//! The cursor is the last key of the settled front; keys settled behind an unsettled one are "ahead". Both
//! together are what a checkpoint stores, so out-of-order completion costs nothing on resume.
//!
//! A walk without an order cannot begin after a key. Its cursor is the position of the page that holds the first
//! unsettled key, and everything settled from that page on is "ahead".

use std::collections::{HashSet, VecDeque};

use model::key::Key;
use storage::Position;

/// Keys in flight at most; also the bound on keys ahead.
pub(crate) const WINDOW_KEYS: usize = 2048;
/// Bytes of keys that are settled ahead of the cursor.
const WINDOW_BYTES: usize = 512 << 10;

#[derive(Debug)]
pub(crate) struct Window {
    slots: VecDeque<(Key, bool)>,
    first_slot: u64,
    bytes: usize,
    cursor: Key,
    /// Settled before an interruption, not yet listed again.
    settled_before: HashSet<Key>,
    /// Keys seen since the window was opened on a resumed range.
    keys_seen: usize,
    /// The pages that hold unsettled keys, of a walk without an order.
    pages: Option<Pages>,
}

/// Pages by where they were asked for, with the slot of each one's first key.
#[derive(Debug)]
struct Pages {
    begun: VecDeque<(Position, u64)>,
    /// Keys from the first page on that the front has passed.
    passed: VecDeque<Key>,
}

/// A position as it stands in the ledger's cursor.
fn to_cursor(position: &Position) -> Key {
    match position {
        Position::Start => Key::default(),
        Position::After(key) => Key::new([b"k", key.as_bytes()].concat()),
        Position::Token(token) => Key::new([b"t", token.as_bytes()].concat()),
    }
}

/// The position that a cursor of a walk without an order stands for; none when it is not one.
pub(crate) fn position_of(cursor: &Key) -> Option<Position> {
    match cursor.as_bytes().split_first() {
        None => Some(Position::Start),
        Some((b'k', key)) => Some(Position::After(Key::new(key))),
        Some((b't', token)) => Some(Position::Token(std::str::from_utf8(token).ok()?.into())),
        Some(_) => None,
    }
}

impl Window {
    pub(crate) fn new(cursor: Key, ahead: Vec<Key>) -> Self {
        let before = ahead.into_iter().collect();
        Self {
            slots: VecDeque::new(),
            first_slot: 0,
            bytes: 0,
            cursor,
            settled_before: before,
            keys_seen: 0,
            pages: None,
        }
    }

    /// For a walk without an order.
    pub(crate) fn unordered(cursor: Key, ahead: Vec<Key>) -> Self {
        let pages = Some(Pages { begun: VecDeque::new(), passed: VecDeque::new() });
        Self { pages, ..Self::new(cursor, ahead) }
    }

    /// The keys that follow are of the page that was asked for at `from`.
    pub(crate) fn begin_page(&mut self, from: Position) {
        let slot = self.first_slot + self.slots.len() as u64;
        if let Some(pages) = &mut self.pages {
            pages.begun.push_back((from, slot));
        }
        self.drop_passed_pages();
    }

    /// Forgets pages of which every key is settled.
    fn drop_passed_pages(&mut self) {
        let Some(pages) = &mut self.pages else { return };
        while pages.begun.len() > 1 && pages.begun[1].1 <= self.first_slot {
            let keys = pages.begun[1].1 - pages.begun[0].1;
            pages.passed.drain(..usize::try_from(keys).unwrap_or(usize::MAX).min(pages.passed.len()));
            pages.begun.pop_front();
        }
        if let Some((from, _)) = pages.begun.front() {
            self.cursor = to_cursor(from);
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < WINDOW_KEYS && self.bytes < WINDOW_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes a listed key; its slot in the window, or none when it was settled before the interruption.
    pub(crate) fn admit(&mut self, key: Key) -> Option<u64> {
        self.keys_seen += 1;
        let known = !self.settled_before.is_empty() && self.settled_before.remove(&key);
        self.bytes += key.as_bytes().len();
        self.slots.push_back((key, known));
        let slot = self.first_slot + self.slots.len() as u64 - 1;
        if known {
            self.advance();
            return None;
        }
        Some(slot)
    }

    /// True while keys may come that were in flight when the range was interrupted.
    pub(crate) fn may_hold_interrupted(&self) -> bool {
        self.keys_seen <= WINDOW_KEYS
    }

    pub(crate) fn complete(&mut self, slot: u64) {
        if let Some(slot) = usize::try_from(slot - self.first_slot).ok().and_then(|i| self.slots.get_mut(i)) {
            slot.1 = true;
        }
        self.advance();
    }

    fn advance(&mut self) {
        while self.slots.front().is_some_and(|(_, settled)| *settled) {
            if let Some((key, _)) = self.slots.pop_front() {
                self.first_slot += 1;
                self.bytes -= key.as_bytes().len();
                match &mut self.pages {
                    Some(pages) => pages.passed.push_back(key),
                    None => self.cursor = key,
                }
            }
        }
        self.drop_passed_pages();
    }

    pub(crate) fn cursor(&self) -> &Key {
        &self.cursor
    }

    /// Keys after the cursor that are settled.
    pub(crate) fn ahead(&self) -> Vec<Key> {
        let settled = self.slots.iter().filter(|(_, s)| *s).map(|(k, _)| k);
        let passed = self.pages.iter().flat_map(|p| &p.passed);
        passed.chain(settled).chain(&self.settled_before).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_follows_only_finished_keys() {
        let mut w = Window::new(Key::from(""), vec![]);
        let places: Vec<u64> = ["a", "b", "c"].iter().map(|k| w.admit(Key::from(*k)).unwrap()).collect();
        w.complete(places[2]);
        assert_eq!((w.cursor().as_str(), w.ahead()), (Some(""), vec![Key::from("c")]));
        w.complete(places[0]);
        assert_eq!(w.cursor().as_str(), Some("a"));
        w.complete(places[1]);
        assert_eq!((w.cursor().as_str(), w.ahead().len()), (Some("c"), 0));
        assert!(w.is_empty());
    }

    #[test]
    fn obj_04_unordered_window_cut_anywhere_resumes_with_every_key_once() {
        let mut random = fastrand::Rng::with_seed(12);
        for _ in 0..500 {
            let mut keys: Vec<Key> = (0..60).map(|i| Key::from(format!("k{i:02}"))).collect();
            random.shuffle(&mut keys);
            let pages: Vec<&[Key]> = keys.chunks(7).collect();
            let token = |i: usize| match i {
                0 => Position::Start,
                i => Position::Token(i.to_string().into()),
            };
            let mut done: HashSet<Key> = HashSet::new();
            let (mut cursor, mut ahead) = (Key::default(), vec![]);
            while done.len() < keys.len() {
                let from = match position_of(&cursor).unwrap() {
                    Position::Token(token) => token.parse().unwrap(),
                    _ => 0usize,
                };
                let mut w = Window::unordered(cursor.clone(), ahead.clone());
                let mut open = Vec::new();
                for (i, page) in pages.iter().enumerate().skip(from).take(random.usize(1..4)) {
                    w.begin_page(token(i));
                    open.extend(page.iter().filter_map(|k| Some((k.clone(), w.admit(k.clone())?))));
                }
                random.shuffle(&mut open);
                let cut = random.usize(0..=open.len());
                for (key, slot) in open.into_iter().take(cut) {
                    assert!(done.insert(key), "a key was settled twice");
                    w.complete(slot);
                }
                (cursor, ahead) = (w.cursor().clone(), w.ahead());
                assert!(ahead.len() <= 7 * 4);
            }
        }
    }

    /// Whatever the order of settling and wherever it is cut, resuming sees each key exactly once.
    #[test]
    fn window_cut_anywhere_resumes_with_every_key_once() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..500 {
            let keys: Vec<Key> = (0..40).map(|i| Key::from(format!("k{i:02}"))).collect();
            let mut done = vec![0; keys.len()];
            let (mut cursor, mut ahead) = (Key::default(), vec![]);
            while done.contains(&0) {
                let mut w = Window::new(cursor.clone(), ahead.clone());
                let mut open: Vec<(usize, u64)> = Vec::new();
                for (i, key) in keys.iter().enumerate().filter(|(_, k)| **k > cursor) {
                    open.extend(w.admit(key.clone()).map(|slot| (i, slot)));
                }
                random.shuffle(&mut open);
                let cut = random.usize(1..=open.len().max(1));
                for (i, slot) in open.into_iter().take(cut) {
                    done[i] += 1;
                    w.complete(slot);
                }
                (cursor, ahead) = (w.cursor().clone(), w.ahead());
            }
            assert!(done.iter().all(|n| *n == 1), "{done:?}");
        }
    }
}
