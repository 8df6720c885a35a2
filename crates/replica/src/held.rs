//! Expiry that is held back. A key with a short life, renewed at the source again and again, would die at the target
//! before the stream brings the renewal, and what renews it would find nothing. While the target is behind, such a key
//! lives on there; it gets its expiry when the stream has passed the moment.

use std::collections::HashMap;

/// An expiry closer than this is held back while the target is behind, milliseconds.
pub const NEAR_MS: i64 = 600_000;
/// An expiry that is closer than this waits until the stream has passed it, milliseconds: once caught up, the stream is
/// never behind for so long.
pub const SOON_MS: i64 = 500;
/// Keys that are remembered; beyond that an expiry goes on as it is.
const KEYS_MAX: usize = 1_000_000;

/// A database of the target, and a key there.
pub type Place = (u32, Vec<u8>);

/// What is known of an expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It is this, milliseconds since the epoch.
    At(i64),
    /// Something has happened to the key since: the source is asked.
    Ask,
}

/// Keys whose expiry is held back.
#[derive(Debug, Default)]
pub struct Held {
    keys: HashMap<Place, Expiry>,
    /// Expiries that found no room and went on as they were.
    pub beyond: u64,
}

impl Held {
    /// Remembers a key; false when there is no room.
    pub fn hold(&mut self, db: u32, key: &[u8], at: i64) -> bool {
        if self.keys.len() >= KEYS_MAX {
            self.beyond += 1;
            return false;
        }
        self.keys.insert((db, key.to_vec()), Expiry::At(at));
        true
    }

    /// After an interruption: a key that stands in the target's list.
    pub fn remember(&mut self, db: u32, key: &[u8]) {
        self.keys.insert((db, key.to_vec()), Expiry::Ask);
    }

    /// A command is about these keys: when one of them is held, nothing is known of any any more.
    pub fn touched<'k>(&mut self, db: u32, keys: impl Iterator<Item = &'k [u8]> + Clone) {
        if self.keys.is_empty() {
            return;
        }
        let held = keys.clone().any(|key| self.keys.contains_key(&(db, key.to_vec())));
        if held {
            for key in keys {
                self.keys.insert((db, key.to_vec()), Expiry::Ask);
            }
        }
    }

    /// Everything is gone.
    pub fn flushed(&mut self, db: Option<u32>) {
        self.keys.retain(|(of, _), _| db.is_some_and(|db| db != *of));
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// All of them, with their expiry where it is known.
    pub fn all(&self) -> impl Iterator<Item = (&Place, Expiry)> {
        self.keys.iter().map(|(place, expiry)| (place, *expiry))
    }

    /// Takes out what may get its expiry now. `passed_ms`: everything that the source did until then is applied; later
    /// expiries wait unless they are further away than the stream can be behind.
    pub fn due(&mut self, passed_ms: i64, now_ms: i64) -> Vec<(Place, Expiry)> {
        let ready = |expiry: &Expiry| match expiry {
            Expiry::At(at) => *at <= passed_ms || *at > now_ms + SOON_MS,
            Expiry::Ask => true,
        };
        let places: Vec<Place> =
            self.keys.iter().filter(|(_, e)| ready(e)).map(|(place, _)| place.clone()).collect();
        places.into_iter().filter_map(|place| self.keys.remove_entry(&place)).collect()
    }

    /// Takes out everything: nothing follows any more.
    pub fn take_all(&mut self) -> Vec<(Place, Expiry)> {
        self.keys.drain().collect()
    }

    /// Puts one back that cannot be released yet.
    pub fn again(&mut self, place: Place, at: i64) {
        self.keys.insert(place, Expiry::At(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_waits_until_the_stream_has_passed_it() {
        let mut held = Held::default();
        held.hold(0, b"past", 1_000);
        held.hold(0, b"soon", 10_400);
        held.hold(0, b"late", 90_000);
        held.hold(0, b"renewed", 1_000);
        held.touched(0, [b"renewed".as_slice(), b"other"].into_iter());
        held.touched(1, [b"past".as_slice()].into_iter());
        let mut due = held.due(10_000, 10_000);
        due.sort_by(|a, b| a.0.cmp(&b.0));
        let names: Vec<(&[u8], Expiry)> = due.iter().map(|((_, k), e)| (k.as_slice(), *e)).collect();
        assert_eq!(
            names,
            [
                (b"late".as_slice(), Expiry::At(90_000)),
                (b"other", Expiry::Ask),
                (b"past", Expiry::At(1_000)),
                (b"renewed", Expiry::Ask)
            ]
        );
        assert_eq!(held.len(), 1);
        assert_eq!(held.due(10_400, 10_900).len(), 1);
    }
}
