//! Pure: where to cut a range of keys nobody has listed yet.
//!
//! From the keys seen so far it learns which characters occur at which position, reads a key as a number in
//! that mixed radix, and so finds keys that lie a given fraction of the way between two others. It needs no
//! delimiter and no depth, and adapts with every page.

use std::collections::BTreeSet;

use model::key::{Key, Order};

const POSITIONS: usize = 96;
const DIGITS: usize = 7;

/// What is known of the keys under one prefix.
#[derive(Clone, Debug)]
pub struct Sketch {
    order: Order,
    pages: u32,
    seen: Vec<BTreeSet<char>>,
    /// Characters to expect at each position, in order.
    alphabets: Vec<Vec<char>>,
    digits: Vec<char>,
}

/// Pages after which the characters seen are taken for all there are.
const ENOUGH: u32 = 8;
/// Where scripts begin: jumps to try while it is not known how far the keys reach.
const SCRIPTS: [char; 11] =
    ['0', 'A', 'a', 'n', '\u{80}', '\u{400}', '\u{3040}', '\u{4e00}', '\u{6500}', '\u{8000}', '\u{ac00}'];

impl Sketch {
    /// Nothing known yet.
    pub fn new(order: Order) -> Self {
        Self { order, pages: 0, seen: Vec::new(), alphabets: Vec::new(), digits: ('0'..='9').collect() }
    }

    /// Learns from some keys of one page.
    pub fn observe<'k>(&mut self, keys: impl Iterator<Item = &'k Key>) {
        self.pages += 1;
        let mut changed = BTreeSet::new();
        for key in keys {
            for (i, c) in key.as_str().unwrap_or_default().chars().take(POSITIONS).enumerate() {
                if self.seen.len() <= i {
                    self.seen.push(BTreeSet::new());
                    self.alphabets.push(Vec::new());
                }
                if self.seen[i].insert(c) {
                    changed.insert(i);
                }
            }
        }
        if self.pages == ENOUGH {
            changed = (0..self.seen.len()).collect();
        }
        for i in changed {
            self.alphabets[i] = self.expected(i);
        }
    }

    fn rank(&self, c: char) -> u32 {
        if self.order == Order::Segments && c == '/' { 0 } else { c as u32 + 1 }
    }

    fn alphabet(&self, at: usize) -> &[char] {
        self.alphabets.get(at).unwrap_or(&self.digits)
    }

    /// Characters to expect at a position: those seen and, at first, the rest of their kind.
    fn expected(&self, at: usize) -> Vec<char> {
        let seen = &self.seen[at];
        let mut all: BTreeSet<char> = seen.clone();
        if self.pages < ENOUGH {
            let any = |range: std::ops::RangeInclusive<char>| seen.iter().any(|c| range.contains(c));
            if any('0'..='9') {
                all.extend('0'..='9');
            }
            for (hex, rest) in [('a'..='f', 'g'..='z'), ('A'..='F', 'G'..='Z')] {
                if any(rest.clone()) {
                    all.extend(rest);
                    all.extend(hex);
                } else if any(hex.clone()) {
                    all.extend(hex);
                }
            }
            for (from, to, step) in [(0x80, 0xfff, 32), (0x3000, 0x9fff, 0x100), (0xac00, 0xd7a3, 0x100)] {
                if seen.iter().any(|&c| (from..=to).contains(&(c as u32))) {
                    all.extend((from..=to).step_by(step).filter_map(char::from_u32));
                }
            }
        }
        let mut all: Vec<char> = all.into_iter().collect();
        all.sort_by_key(|&c| self.rank(c));
        all
    }

    /// How far `key` lies between the ends of the key space below its first `from` characters, in 0..1.
    fn fraction(&self, key: &[char], from: usize) -> f64 {
        let (mut value, mut scale) = (0.0, 1.0);
        for (i, &c) in key.iter().enumerate().skip(from).take(DIGITS) {
            let alphabet = self.alphabet(i);
            let radix = alphabet.len().max(1) as f64;
            let digit = alphabet.partition_point(|&a| self.rank(a) < self.rank(c));
            scale /= radix;
            // A character behind all expected ones counts as the end of the space.
            value += digit as f64 * scale;
            if digit >= alphabet.len() {
                break;
            }
        }
        value
    }

    /// The key that lies `fraction` of the way, below the given beginning.
    fn unfraction(&self, beginning: &[char], fraction: f64) -> String {
        let mut text: String = beginning.iter().collect();
        let mut rest = fraction;
        for i in 0..DIGITS {
            let alphabet = self.alphabet(beginning.len() + i);
            rest *= alphabet.len().max(1) as f64;
            let digit = rest.floor();
            rest -= digit;
            match alphabet.get(digit as usize).or(alphabet.last()) {
                Some(&c) => text.push(c),
                None => break,
            }
        }
        text
    }

    /// Share of `lo..hi` that lies after `at`; no `hi` means the end of what begins with `base` characters.
    pub fn share_after(&self, base: usize, lo: &Key, at: &Key, hi: Option<&Key>) -> f64 {
        let (lo, at, hi) = (chars(lo), chars(at), hi.map(chars));
        let from = self.common(base, &lo, hi.as_deref());
        let (a, b) = (self.fraction(&lo, from), hi.map_or(1.0, |h| self.fraction(&h, from)));
        if b <= a { 0.0 } else { ((b - self.fraction(&at, from)) / (b - a)).clamp(0.0, 1.0) }
    }

    fn common(&self, base: usize, lo: &[char], hi: Option<&[char]>) -> usize {
        match hi {
            Some(hi) => lo.iter().zip(hi).take_while(|(a, b)| a == b).count(),
            None => base.min(lo.len()),
        }
    }

    /// Up to `n` keys that divide what lies after `lo` and before `hi` evenly.
    pub fn between(&self, base: usize, lo: &Key, hi: Option<&Key>, n: usize) -> Vec<Key> {
        let (lo_chars, hi_chars) = (chars(lo), hi.map(chars));
        let from = self.common(base, &lo_chars, hi_chars.as_deref());
        let a = self.fraction(&lo_chars, from);
        let b = hi_chars.map_or(1.0, |h| self.fraction(&h, from));
        let mut keys: Vec<Key> = Vec::new();
        for i in 1..=n {
            let f = a + (b - a) * i as f64 / (n as f64 + 1.0);
            let key = Key::from(self.unfraction(&lo_chars[..from], f));
            let inside = self.order.compare(key.as_bytes(), lo.as_bytes()).is_gt()
                && hi.is_none_or(|h| self.order.compare(key.as_bytes(), h.as_bytes()).is_lt());
            if inside && keys.last() != Some(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// Up to `n` keys behind `at`, each half as far away as the one before, beginning half way to the end: for
    /// a space that may be filled only a little way.
    pub fn halves(&self, base: usize, at: &Key, hi: Option<&Key>, n: usize) -> Vec<Key> {
        let (at_chars, hi_chars) = (chars(at), hi.map(chars));
        let from = self.common(base, &at_chars, hi_chars.as_deref());
        let a = self.fraction(&at_chars, from);
        let mut span = hi_chars.map_or(1.0, |h| self.fraction(&h, from)) - a;
        let mut keys = Vec::new();
        for _ in 0..n {
            span /= 2.0;
            let key = Key::from(self.unfraction(&at_chars[..from], a + span));
            if self.order.compare(key.as_bytes(), at.as_bytes()).is_gt() && keys.last() != Some(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// Keys just behind each subtree that holds `at`, outermost first: whatever stands behind one of them is
    /// what lies beside that subtree. Finds the width of an unknown space in one round of questions.
    pub fn ladder(&self, base: usize, at: &Key, common: usize, n: usize) -> Vec<Key> {
        let at = chars(at);
        let depths: Vec<usize> = (base..common.min(at.len())).collect();
        let step = depths.len().div_ceil(n.max(1)).max(1);
        let mut keys: Vec<Key> = Vec::new();
        for i in depths.into_iter().rev().step_by(step) {
            let mut text: String = at[..=i].iter().collect();
            text.push(char::MAX);
            keys.push(Key::from(text));
        }
        keys
    }

    /// Where other scripts begin behind `at`, below the first `base` characters.
    pub fn scripts(&self, base: usize, at: &Key) -> Vec<Key> {
        let at = chars(at);
        let beginning: String = at[..base.min(at.len())].iter().collect();
        let here = at.get(base).map_or(0, |&c| self.rank(c));
        let behind = SCRIPTS.into_iter().filter(|&c| self.rank(c) > here);
        behind.map(|c| Key::from(format!("{beginning}{c}"))).collect()
    }
}

fn chars(key: &Key) -> Vec<char> {
    key.as_str().unwrap_or_default().chars().collect()
}

/// Number of characters that all keys of a page share.
pub fn shared(first: &Key, last: &Key) -> usize {
    chars(first).iter().zip(chars(last)).take_while(|(a, b)| **a == *b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(keys: &[&str]) -> Sketch {
        let mut s = Sketch::new(Order::Bytes);
        let keys: Vec<Key> = keys.iter().map(|k| Key::from(*k)).collect();
        s.observe(keys.iter());
        s
    }

    #[test]
    fn hashes_are_cut_evenly() {
        let s = sketch(&["0a1f", "9bcd", "f00d"]);
        let cuts = s.between(0, &Key::from("0000"), None, 3);
        let firsts: Vec<char> = cuts.iter().filter_map(|k| k.as_str()?.chars().next()).collect();
        assert_eq!(firsts, ['4', '8', 'c']);
    }

    #[test]
    fn cuts_lie_inside_and_rise() {
        let s = sketch(&["日本/あ1", "logs/2024/01/05/x.gz", "a/b/c"]);
        for (lo, hi) in [("", "z"), ("logs/2024/01", "logs/2025"), ("a", "a0"), ("日", "月")] {
            let (lo, hi) = (Key::from(lo), Key::from(hi));
            let cuts = s.between(0, &lo, Some(&hi), 15);
            assert!(cuts.iter().all(|k| *k > lo && *k < hi), "{cuts:?}");
            assert!(cuts.windows(2).all(|w| w[0] < w[1]), "{cuts:?}");
        }
    }

    #[test]
    fn a_ladder_stands_behind_each_subtree() {
        let s = sketch(&["p/q/1"]);
        let rungs = s.ladder(0, &Key::from("p/q/1"), 4, 8);
        assert!(rungs.len() >= 4);
        assert!(rungs[..4].windows(2).all(|w| w[0] < w[1]), "deepest first, each within the next: {rungs:?}");
    }
}
