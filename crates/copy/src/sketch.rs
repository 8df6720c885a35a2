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
    seen: Vec<BTreeSet<char>>,
}

impl Sketch {
    /// Nothing known yet.
    pub fn new(order: Order) -> Self {
        Self { order, seen: Vec::new() }
    }

    /// Learns from a key.
    pub fn observe(&mut self, key: &Key) {
        for (i, c) in key.as_str().unwrap_or_default().chars().take(POSITIONS).enumerate() {
            if self.seen.len() <= i {
                self.seen.push(BTreeSet::new());
            }
            self.seen[i].insert(c);
        }
    }

    fn rank(&self, c: char) -> u32 {
        if self.order == Order::Segments && c == '/' { 0 } else { c as u32 + 1 }
    }

    /// Characters to expect at a position, in order: those seen, and the rest of their kind.
    fn alphabet(&self, at: usize) -> Vec<char> {
        let none = BTreeSet::new();
        let seen = self.seen.get(at).unwrap_or(&none);
        let mut all: BTreeSet<char> = seen.clone();
        let any = |range: std::ops::RangeInclusive<char>| seen.iter().any(|c| range.contains(c));
        if seen.is_empty() || any('0'..='9') {
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
        for (from, to, step) in [(0x80, 0x7ff, 8), (0x800, 0xfff, 16), (0x3000, 0x9fff, 0x80), (0xac00, 0xd7a3, 0x80), (0x1_f300, 0x1_faff, 16)] {
            if seen.iter().any(|&c| (from..=to).contains(&(c as u32))) {
                all.extend((from..=to).step_by(step).filter_map(char::from_u32));
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
            let radix = alphabet.len() as f64 + 1.0;
            // Digit 0 is "the key ends here".
            let digit = alphabet.partition_point(|&a| self.rank(a) < self.rank(c)) as f64 + 1.0;
            scale /= radix;
            value += digit.min(radix - 1.0) * scale;
        }
        value
    }

    /// The key that lies `fraction` of the way, below the given beginning.
    fn unfraction(&self, beginning: &[char], fraction: f64) -> String {
        let mut text: String = beginning.iter().collect();
        let mut rest = fraction;
        for i in 0..DIGITS {
            let alphabet = self.alphabet(beginning.len() + i);
            rest *= alphabet.len() as f64 + 1.0;
            let digit = rest.floor();
            rest -= digit;
            if digit < 1.0 {
                break;
            }
            match alphabet.get(digit as usize - 1) {
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

    /// Keys just behind each subtree that holds `at`, outermost first: whatever stands behind one of them is
    /// what lies beside that subtree. Finds the width of an unknown space in one round of questions.
    pub fn ladder(&self, base: usize, at: &Key, common: usize, n: usize) -> Vec<Key> {
        let at = chars(at);
        let depths: Vec<usize> = (base..common.min(at.len())).collect();
        let step = depths.len().div_ceil(n.max(1)).max(1);
        depths
            .into_iter()
            .rev()
            .step_by(step)
            .map(|i| {
                let mut text: String = at[..=i].iter().collect();
                text.push(char::MAX);
                Key::from(text)
            })
            .collect()
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
        keys.iter().for_each(|k| s.observe(&Key::from(*k)));
        s
    }

    #[test]
    fn hashes_are_cut_evenly() {
        let s = sketch(&["0a1f", "9bcd", "f00d"]);
        let cuts = s.between(0, &Key::from("0000"), None, 3);
        let firsts: Vec<char> = cuts.iter().filter_map(|k| k.as_str()?.chars().next()).collect();
        assert_eq!(firsts, ['3', '7', 'b']);
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
        assert_eq!(rungs.len(), 4);
        assert!(rungs.windows(2).all(|w| w[0] < w[1]), "deepest first, each within the next: {rungs:?}");
    }
}
