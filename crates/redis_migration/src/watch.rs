//! Pure: which keys the target's own clock may have taken too early.
//!
//! A key with a short life, renewed at the source again and again, dies at the target when that is behind, and what renews it
//! finds nothing. So while the target is behind, each change is preceded by a look at its keys, within the same transaction
//! (`watch.lua`). What is missing there, or would be missing soon, is doubted; when nothing is behind any more, the
//! source is asked for those keys ([`crate::mend`]).

use std::collections::{HashMap, HashSet};

use redis_proto::command;

/// The script that looks.
pub(crate) const SCRIPT: &[u8] = include_bytes!("watch.lua");
/// The script that follows databases which change places.
const SWAP: &[u8] = include_bytes!("swap.lua");
/// A life shorter than this is not left to the target's clock, milliseconds.
const NEAR_MS: i64 = 600_000;
/// A key that was looked at is not looked at again for so long, milliseconds; and so many are remembered.
const SEEN_MS: i64 = 60_000;
const SEEN_MAX: usize = 200_000;
/// Suspects that are remembered, and words of a change that a script can make.
const SUSPECTS_MAX: usize = 500_000;
const WORDS_MAX: usize = 4000;
/// Doubts that are remembered where no script can.
const DOUBTS_MAX: usize = 1_000_000;

/// A database of the source, and a key there.
pub type Place = (u32, Vec<u8>);

/// Whether changes are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing is behind, nothing is doubted.
    #[default]
    Level,
    /// The target is behind: every change is watched.
    Behind,
    /// It has caught up; what is doubted waits for the source's word. Everything that was watched is applied when the target
    /// is here.
    Doubtful(u64),
}

/// How a change is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// As it is.
    None,
    /// Behind the look with these words.
    Before(Vec<Vec<u8>>),
    /// Behind these words, if there are any, which doubt its keys in any case; they are for the target's database 0.
    Doubted(Vec<Vec<u8>>),
    /// By the look itself, with these words.
    Within(Vec<Vec<u8>>),
}

/// Watches the changes of a stream.
#[derive(Debug, Default)]
pub struct Watch {
    phase: Phase,
    /// The target's list; none: nothing is noted there, and what is doubted stands here.
    list: Option<Vec<u8>>,
    /// The target runs scripts; else what is touched is doubted unseen.
    scripts: bool,
    doubts: HashMap<Place, bool>,
    /// Doubts that found no room.
    beyond: u64,
    seen: HashSet<Place>,
    /// Keys that may be of another type than at the source: a change that would have replaced them may not have been made.
    suspects: HashSet<Place>,
    since_ms: i64,
    /// Keys of which more was heard while the source was asked.
    anew: HashSet<Place>,
    /// Where the stream was when something was doubted last.
    last: u64,
}

impl Watch {
    /// What is doubted is listed there, where anything can be noted, and looked at by scripts, where the target runs any.
    pub(crate) fn begin(&mut self, list: Option<Vec<u8>>, scripts: bool) {
        (self.list, self.scripts) = (list, scripts);
        self.behind();
    }

    /// The target is behind.
    pub(crate) fn behind(&mut self) {
        self.phase = Phase::Behind;
        self.anew.clear();
    }

    /// It has caught up, when the stream is here.
    pub(crate) fn caught_up(&mut self, offset: u64) {
        (self.phase, self.last) = (Phase::Doubtful(offset), offset);
        self.seen = HashSet::new();
    }

    /// Nothing is doubted any more; answers how many doubts found no room.
    pub(crate) fn level(&mut self) -> u64 {
        (self.phase, self.anew, self.suspects) = (Phase::Level, HashSet::new(), HashSet::new());
        std::mem::take(&mut self.beyond)
    }

    /// Every change is looked at.
    pub(crate) fn is_behind(&self) -> bool {
        self.phase == Phase::Behind
    }

    /// What is doubted can be read when the target has applied so much.
    pub(crate) fn is_readable(&self, applied: u64) -> bool {
        matches!(self.phase, Phase::Doubtful(since) if applied >= since)
    }

    /// Something may be doubted.
    pub(crate) fn is_on(&self) -> bool {
        self.phase != Phase::Level
    }

    /// The target lists what it doubts there.
    pub(crate) fn list(&self) -> Option<&[u8]> {
        self.list.as_deref()
    }

    /// What is doubted and stands in no list; true with a key: whatever the source says of its expiry.
    pub(crate) fn take(&mut self) -> Vec<(Place, bool)> {
        self.doubts.drain().collect()
    }

    /// Something was heard of a key since the source was asked: its doubt stands.
    pub(crate) fn is_anew(&mut self, place: &Place) -> bool {
        self.anew.remove(place)
    }

    /// Everything that was doubted is applied when the target is here.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Doubts keys of a change that is not made, at an offset of the stream; answers the words that do it at the target.
    pub(crate) fn doubt_all(&mut self, name: &[u8], args: &[&[u8]], from: u32, offset: u64) -> Vec<Vec<u8>> {
        let keys = command::keys(args).unwrap_or_default();
        let mut places: Vec<Place> = keys.iter().map(|(_, key)| (from, key.to_vec())).collect();
        places.extend(beside(name, args));
        if self.phase == Phase::Level {
            self.phase = Phase::Doubtful(offset);
        }
        self.last = offset;
        self.anew.extend(places.iter().cloned());
        self.suspect(&places);
        self.listed(places, true)
    }

    fn suspect(&mut self, places: &[Place]) {
        if self.suspects.len() < SUSPECTS_MAX {
            self.suspects.extend(places.iter().cloned());
        }
    }

    /// Doubts keys, whatever is found there: the words that do it at the target, none where it is noted here.
    fn listed(&mut self, places: Vec<Place>, stands: bool) -> Vec<Vec<u8>> {
        let Some(list) = self.list.clone() else {
            places.into_iter().for_each(|place| self.doubt(place, stands));
            return vec![];
        };
        let weight: &[u8] = if stands { b"1" } else { b"0" };
        let mut words = vec![b"ZADD".to_vec(), list];
        if !stands {
            words.push(b"NX".to_vec());
        }
        words.extend(places.iter().flat_map(|(db, key)| [weight.to_vec(), member(*db, key)]));
        words
    }

    /// What is to be done about a change, whose keys are in a database of the source, called so at the target; `told`: the
    /// same in the target's numbers.
    pub(crate) fn look(
        &mut self,
        name: &[u8],
        args: &[&[u8]],
        told: &[&[u8]],
        (from, to): (u32, u32),
        now_ms: i64,
    ) -> Look {
        if self.phase == Phase::Level {
            return Look::None;
        }
        let Some(keys) = command::keys(args).filter(|keys| !keys.is_empty()) else { return Look::None };
        let mut places: Vec<Place> = keys.iter().map(|(_, key)| (from, key.to_vec())).collect();
        if self.phase == Phase::Behind && counts_from_now(name, args) {
            // The source's now was another one: only it can say when that ends.
            self.forget_seen(&places);
            return Look::Doubted(self.listed(places, true));
        }
        if writes_whole(name, args) {
            self.forget_seen(&places);
            for place in &places {
                self.suspects.remove(place);
            }
            return Look::None;
        }
        places.extend(beside(name, args));
        let (alone, lasts) = (places.len() == 1, name == b"PERSIST");
        // A script cannot be called by another.
        let suspect = args.len() <= WORDS_MAX
            && !is_script(name)
            && places.iter().any(|place| self.suspects.contains(place));
        let fails = suspect || fails_on_nothing(name);
        if !alone {
            self.suspect(&places);
        }
        if self.phase != Phase::Behind {
            if lasts {
                self.anew.extend(places.iter().cloned());
            }
            if alone && !fails {
                return Look::None;
            }
        }
        if now_ms - self.since_ms >= SEEN_MS || self.seen.len() >= SEEN_MAX {
            (self.since_ms, self.seen) = (now_ms, HashSet::new());
        }
        let settled = alone && !fails && !lasts && !sets_expiry(name);
        if !settled {
            self.forget_seen(&places);
        } else if !self.seen.insert(places[0].clone()) {
            return Look::None;
        }
        let stands = !alone || lasts;
        let Some(list) = self.list.as_ref().filter(|_| self.scripts) else {
            return Look::Doubted(self.listed(places, stands));
        };
        let near = if self.phase == Phase::Behind { NEAR_MS } else { 0 };
        let weight = u8::from(stands);
        let number = |n: &dyn ToString| n.to_string().into_bytes();
        let mut words = vec![b"EVAL".to_vec(), SCRIPT.to_vec(), number(&(keys.len() + 1)), list.clone()];
        words.extend(keys.iter().map(|(_, key)| key.to_vec()));
        words.extend([number(&to), number(&near), number(&weight), number(&places.len())]);
        words.extend(places.iter().map(|(db, key)| member(*db, key)));
        if !fails {
            return Look::Before(words);
        }
        words.extend(told.iter().map(|word| word.to_vec()));
        Look::Within(words)
    }

    /// Keys that are to be looked at again.
    fn forget_seen(&mut self, places: &[Place]) {
        for place in places {
            self.seen.remove(place);
        }
    }

    /// Two databases of the source change places, and what is doubted with them: the words that do it at the target.
    pub(crate) fn swap(&mut self, pair: (u32, u32)) -> Vec<Vec<u8>> {
        // Little is lost with what was only remembered.
        (self.seen, self.anew) = (HashSet::new(), HashSet::new());
        let all = std::mem::take(&mut self.suspects);
        self.suspects = all.into_iter().map(|(db, key)| (swapped(db, pair), key)).collect();
        let all = std::mem::take(&mut self.doubts);
        self.doubts = all.into_iter().map(|((db, key), stands)| ((swapped(db, pair), key), stands)).collect();
        let number = |n: u32| n.to_string().into_bytes();
        match self.list.clone().filter(|_| self.scripts && self.is_on()) {
            Some(list) => {
                vec![b"EVAL".to_vec(), SWAP.to_vec(), b"1".to_vec(), list, number(pair.0), number(pair.1)]
            }
            None => vec![],
        }
    }

    fn doubt(&mut self, place: Place, stands: bool) {
        if self.doubts.len() >= DOUBTS_MAX && !self.doubts.contains_key(&place) {
            self.beyond += 1;
            return;
        }
        *self.doubts.entry(place).or_default() |= stands;
    }
}

/// What was there before does not matter.
fn writes_whole(name: &[u8], args: &[&[u8]]) -> bool {
    match name {
        b"SET" => !args.iter().skip(3).any(|word| word.eq_ignore_ascii_case(b"KEEPTTL")),
        b"SETEX" | b"PSETEX" | b"SETNX" | b"MSET" | b"MSETNX" | b"GETSET" | b"DEL" | b"UNLINK"
        | b"GETDEL" | b"RESTORE" => true,
        _ => false,
    }
}

/// It says how long a key lives from now on, as sources before 7.0 do.
fn counts_from_now(name: &[u8], args: &[&[u8]]) -> bool {
    match name {
        b"EXPIRE" | b"PEXPIRE" | b"SETEX" | b"PSETEX" => true,
        b"RESTORE" => {
            let absolute = args.iter().skip(4).any(|word| word.eq_ignore_ascii_case(b"ABSTTL"));
            !absolute && args.get(2).is_some_and(|ttl| **ttl != *b"0")
        }
        b"SET" | b"GETEX" => args
            .iter()
            .skip(if name == b"SET" { 3 } else { 2 })
            .any(|word| word.eq_ignore_ascii_case(b"EX") || word.eq_ignore_ascii_case(b"PX")),
        _ => false,
    }
}

/// It gives a key another life.
fn sets_expiry(name: &[u8]) -> bool {
    matches!(name, b"PEXPIREAT" | b"EXPIREAT" | b"GETEX")
}

/// It answers with an error when its key is not there, or is not what it was; so do many commands of modules.
fn fails_on_nothing(name: &[u8]) -> bool {
    matches!(name, b"RENAME" | b"RENAMENX" | b"LSET" | b"XGROUP" | b"XSETID" | b"XCLAIM" | b"XREADGROUP")
        || name.contains(&b'.')
}

fn is_script(name: &[u8]) -> bool {
    matches!(name, b"EVAL" | b"EVALSHA" | b"FCALL")
}

/// Keys of other databases that a command reaches.
fn beside(name: &[u8], args: &[&[u8]]) -> Option<Place> {
    let number = |n: &[u8]| std::str::from_utf8(n).ok()?.parse().ok();
    match name {
        b"MOVE" => Some((number(args.get(2)?)?, args.get(1)?.to_vec())),
        b"COPY" => {
            let at = args.iter().skip(3).position(|word| word.eq_ignore_ascii_case(b"DB"))?;
            Some((number(args.get(at + 4)?)?, args.get(2)?.to_vec()))
        }
        _ => None,
    }
}

/// The number of a database after two have changed places.
pub(crate) fn swapped(db: u32, (a, b): (u32, u32)) -> u32 {
    match db {
        _ if db == a => b,
        _ if db == b => a,
        _ => db,
    }
}

/// A place as it stands in the target's list.
pub(crate) fn member(db: u32, key: &[u8]) -> Vec<u8> {
    [format!("{db}:").as_bytes(), key].concat()
}

/// The same, read back.
pub(crate) fn place(member: &[u8]) -> Option<(u32, &[u8])> {
    let at = member.iter().position(|b| *b == b':')?;
    Some((std::str::from_utf8(&member[..at]).ok()?.parse().ok()?, &member[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    /// What is looked at before a command, or by what it is done: the words behind the list.
    fn look(watch: &mut Watch, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let told = |words: Vec<Vec<u8>>| String::from_utf8_lossy(&words[4..].join(&b' ')).into_owned();
        match watch.look(args[0], &args, &args, (3, 5), NOW) {
            Look::None => String::new(),
            Look::Before(words) => format!("before {}", told(words)),
            Look::Within(words) => format!("within {}", told(words)),
            Look::Doubted(words) if words.is_empty() => String::new(),
            Look::Doubted(words) => format!("doubted {}", String::from_utf8_lossy(&words[2..].join(&b' '))),
        }
    }

    #[test]
    fn every_change_is_watched_while_the_target_is_behind() {
        let mut watch = Watch::default();
        assert_eq!(look(&mut watch, "INCR k"), "");
        watch.begin(Some(b"L".to_vec()), true);
        for (line, want) in [
            ("SET k 1 PXAT 5", ""),
            ("DEL k l", ""),
            ("INCR k", "before k 5 600000 0 1 3:k"),
            ("INCR k", ""),
            ("SET k 1 PXAT 5", ""),
            ("INCR k", "before k 5 600000 0 1 3:k"),
            ("PEXPIREAT k 7", "before k 5 600000 0 1 3:k"),
            ("HSET k a b", "before k 5 600000 0 1 3:k"),
            ("SET k 2 KEEPTTL", ""),
            ("SETEX k 5 v", "doubted 1 3:k"),
            ("INCR k", "before k 5 600000 0 1 3:k"),
            ("PERSIST k", "before k 5 600000 1 1 3:k"),
            ("SUNIONSTORE d a", "before d a 5 600000 1 2 3:d 3:a"),
            ("MOVE k 9", "before k 5 600000 1 2 3:k 9:k"),
            ("COPY k l DB 9", "within k l 5 600000 1 3 3:k 3:l 9:l COPY k l DB 9"),
            ("APPEND l x", "within l 5 600000 0 1 3:l APPEND l x"),
            ("SET l x", ""),
            ("APPEND l x", "before l 5 600000 0 1 3:l"),
            ("RENAME a b", "within a b 5 600000 1 2 3:a 3:b RENAME a b"),
            ("XGROUP CREATE s g 0", "within s 5 600000 0 1 3:s XGROUP CREATE s g 0"),
            ("PUBLISH a b", ""),
        ] {
            assert_eq!(look(&mut watch, line), want, "{line}");
        }
        watch.caught_up(7);
        for (line, want) in [
            ("INCR j", ""),
            ("INCR k", "within k 5 0 0 1 3:k INCR k"),
            ("PERSIST k", "within k 5 0 1 1 3:k PERSIST k"),
            ("SUNIONSTORE d a", "within d a 5 0 1 2 3:d 3:a SUNIONSTORE d a"),
            ("SUNIONSTORE e f", "before e f 5 0 1 2 3:e 3:f"),
            ("LSET l 0 x", "within l 5 0 0 1 3:l LSET l 0 x"),
        ] {
            assert_eq!(look(&mut watch, line), want, "{line}");
        }
        assert!(watch.is_anew(&(3, b"k".to_vec())) && !watch.is_anew(&(3, b"k".to_vec())));
        watch.level();
        assert_eq!(look(&mut watch, "RENAME a b"), "");
    }

    #[test]
    fn without_scripts_what_is_touched_is_doubted() {
        let mut watch = Watch::default();
        watch.begin(None, false);
        for line in ["INCR k", "SET l 1", "RENAME a b", "INCR a"] {
            assert_eq!(look(&mut watch, line), "");
        }
        let mut doubts = watch.take();
        doubts.sort();
        let place = |key: &str| (3, key.as_bytes().to_vec());
        assert_eq!(doubts, [(place("a"), true), (place("b"), true), (place("k"), false)]);
        let mut watch = Watch::default();
        watch.begin(Some(b"L".to_vec()), false);
        for (line, want) in
            [("INCR k", "doubted NX 0 3:k"), ("INCR k", ""), ("RENAME a b", "doubted 1 3:a 1 3:b")]
        {
            assert_eq!(look(&mut watch, line), want, "{line}");
        }
        assert_eq!(super::place(&member(3, b"a:b")), Some((3, b"a:b".as_slice())));
    }
}
