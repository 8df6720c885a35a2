//! Pure: where to split a range of keys that are not listed yet.
//!
//! From the keys seen so far it learns which characters occur at which position, reads a key as a number in
//! that mixed radix, and so finds keys that lie a given fraction of the way between two others. It needs no
//! delimiter and no depth, and adapts with every page. A position that has shown little borrows from its kin:
//! the other characters of its word (a hash, a counter), and its like in the other words of the key (`d0/d5/…`).

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use model::key::{Key, Order};

/// Characters of a key that the model looks at.
const MAX_POSITIONS: usize = 96;
/// Characters of a key that are interpolated as one number.
const MAX_DIGITS: usize = 7;

/// Shapes told apart; keys of further shapes are learned together.
const MAX_SHAPES: usize = 32;
/// Pages after which what was not seen is taken for unlikely.
const MIN_PAGES: u32 = 8;
/// Weight of a digit not seen by then.
const UNSEEN_WEIGHT: f64 = 0.04;

/// What is known of the keys under one prefix, by the shape of the keys: their separators.
#[derive(Clone, Debug)]
pub(crate) struct KeyDistribution {
    order: Order,
    shapes: HashMap<String, ShapeDistribution>,
    other_shapes: ShapeDistribution,
}

/// What is known of keys of one shape.
#[derive(Clone, Debug)]
pub(crate) struct ShapeDistribution {
    order: Order,
    pages: u32,
    /// The longest key seen, as an example of how they are built.
    example: Vec<char>,
    seen_chars: Vec<BTreeSet<char>>,
    /// Behind which digit an empty probe found nothing.
    rejected: Vec<Option<char>>,
    alphabets: Vec<Alphabet>,
    digits: Alphabet,
}

/// Characters to expect at one position, in order, each with where its share of the keys ends, in 0..1.
#[derive(Clone, Debug, Default)]
struct Alphabet {
    letters: Vec<(char, f64)>,
}

impl Alphabet {
    /// From letters in order, with weights.
    fn new(weighted: impl Iterator<Item = (char, f64)>) -> Self {
        let mut sum = 0.0;
        let mut letters: Vec<(char, f64)> = weighted
            .map(|(c, weight)| {
                sum += weight;
                (c, sum)
            })
            .collect();
        for (_, end) in &mut letters {
            *end /= sum;
        }
        Self { letters }
    }

    /// Where the share of the letter at `index` begins and ends.
    fn share(&self, index: usize) -> Range<f64> {
        let end = |i: usize| self.letters.get(i).map_or(1.0, |(_, end)| *end);
        index.checked_sub(1).map_or(0.0, end)..end(index)
    }
}

impl KeyDistribution {
    /// Nothing known yet.
    pub(crate) fn new(order: Order) -> Self {
        Self { order, shapes: HashMap::new(), other_shapes: ShapeDistribution::new(order) }
    }

    /// Learns from some keys of one page.
    pub(crate) fn observe<'k>(&mut self, keys: impl Iterator<Item = &'k Key>) {
        let mut by_shape: HashMap<String, Vec<Vec<char>>> = HashMap::new();
        for key in keys {
            let key: Vec<char> = key.as_str().unwrap_or_default().chars().take(MAX_POSITIONS).collect();
            by_shape.entry(shape(&key)).or_default().push(key);
        }
        for (shape, keys) in by_shape {
            let room = self.shapes.len() < MAX_SHAPES;
            let form = match self.shapes.entry(shape) {
                Occupied(known) => known.into_mut(),
                Vacant(new) if room => new.insert(ShapeDistribution::new(self.order)),
                Vacant(_) => &mut self.other_shapes,
            };
            form.observe(keys);
        }
    }

    /// Nothing lay between `guess` and the end of the range that is now at `at`.
    pub(crate) fn reject(&mut self, guess: &Key, at: &Key) {
        let key: Vec<char> = at.as_str().unwrap_or_default().chars().take(MAX_POSITIONS).collect();
        if let Some(form) = self.shapes.get_mut(&shape(&key)) {
            form.reject(guess, at);
        }
    }

    /// What is known of keys like this one.
    pub(crate) fn for_key(&self, key: &Key) -> &ShapeDistribution {
        let key: Vec<char> = key.as_str().unwrap_or_default().chars().take(MAX_POSITIONS).collect();
        self.shapes.get(&shape(&key)).unwrap_or(&self.other_shapes)
    }
}

/// The separators of a key, in order.
fn shape(key: &[char]) -> String {
    key.iter().filter(|c| !c.is_alphanumeric()).take(16).collect()
}

impl ShapeDistribution {
    fn new(order: Order) -> Self {
        let digits = Alphabet::new(('0'..='9').map(|c| (c, 1.0)));
        Self {
            order,
            pages: 0,
            example: Vec::new(),
            seen_chars: Vec::new(),
            rejected: Vec::new(),
            alphabets: Vec::new(),
            digits,
        }
    }

    fn observe(&mut self, keys: Vec<Vec<char>>) {
        self.pages += 1;
        let mut changed = self.pages == MIN_PAGES;
        for key in keys {
            for (i, &c) in key.iter().enumerate() {
                if self.seen_chars.len() <= i {
                    self.seen_chars.push(BTreeSet::new());
                }
                changed |= self.seen_chars[i].insert(c);
            }
            if key.len() > self.example.len() {
                self.example = key;
            }
        }
        if changed {
            self.rebuild_alphabets();
        }
    }

    fn rebuild_alphabets(&mut self) {
        let words = self.example_words();
        self.alphabets = (0..self.seen_chars.len()).map(|i| self.expected_alphabet(i, &words)).collect();
    }

    /// Nothing lay between `guess` and the end of the range that is now at `at`.
    fn reject(&mut self, guess: &Key, at: &Key) {
        let (guess, at) = (chars(guess), chars(at));
        let i = guess.iter().zip(&at).take_while(|(a, b)| a == b).count();
        let (Some(&c), Some(seen)) = (guess.get(i), self.seen_chars.get(i)) else { return };
        if c.is_ascii_digit() && !seen.contains(&c) {
            self.rejected.resize(self.rejected.len().max(i + 1), None);
            self.rejected[i] = Some(self.rejected[i].map_or(c, |d| d.min(c)));
            self.rebuild_alphabets();
        }
    }

    /// The words of the example: runs of letters and digits.
    fn example_words(&self) -> Vec<Range<usize>> {
        let mut words: Vec<Range<usize>> = Vec::new();
        for (i, _) in self.example.iter().enumerate().filter(|(_, c)| c.is_alphanumeric()) {
            match words.last_mut() {
                Some(word) if word.end == i => word.end += 1,
                _ => words.push(i..i + 1),
            }
        }
        words
    }

    fn rank(&self, c: char) -> u32 {
        if self.order == Order::Segments && c == '/' { 0 } else { c as u32 + 1 }
    }

    fn alphabet(&self, at: usize) -> &Alphabet {
        self.alphabets.get(at).unwrap_or(&self.digits)
    }

    /// Characters to expect at a position: those seen, those of its like and, at first, those of its whole word
    /// and all digits.
    fn expected_alphabet(&self, at: usize, words: &[Range<usize>]) -> Alphabet {
        let seen = &self.seen_chars[at];
        let mut all = seen.clone();
        if let Some(word) = words.iter().find(|w| w.contains(&at)) {
            let like = words.iter().filter(|w| w.len() == word.len()).map(|w| w.start + (at - word.start));
            let own = word.clone().filter(|_| self.pages < MIN_PAGES);
            for kin in like.chain(own).filter_map(|i| self.seen_chars.get(i)) {
                let letters = |set: &BTreeSet<char>| set.iter().all(|c| c.is_alphabetic());
                if kin.is_superset(seen) || (kin.len() > 1 && letters(kin) && letters(seen)) {
                    all.extend(kin);
                }
            }
        }
        let digits = seen.iter().any(char::is_ascii_digit).then_some('0'..='9').into_iter().flatten();
        let unlikely = if self.pages < MIN_PAGES { 1.0 } else { UNSEEN_WEIGHT };
        let denied = self.rejected.get(at).copied().flatten();
        let weight = |c: char| match denied {
            _ if seen.contains(&c) => 1.0,
            Some(d) if c >= d => UNSEEN_WEIGHT / 4.0,
            _ if all.contains(&c) => 1.0,
            _ => unlikely,
        };
        let expected: BTreeSet<char> = all.iter().copied().chain(digits).collect();
        let mut weighted: Vec<(char, f64)> = expected.into_iter().map(|c| (c, weight(c))).collect();
        weighted.sort_by_key(|&(c, _)| self.rank(c));
        Alphabet::new(weighted.into_iter())
    }

    /// How far `key` lies between the ends of the key space below its first `from` characters, in 0..1.
    fn fraction(&self, key: &[char], from: usize) -> f64 {
        let (mut value, mut scale) = (0.0, 1.0);
        for (i, &c) in key.iter().enumerate().skip(from).take(MAX_DIGITS) {
            let letters = &self.alphabet(i).letters;
            let index = letters.partition_point(|&(a, _)| self.rank(a) < self.rank(c));
            let share = self.alphabet(i).share(index);
            value += share.start * scale;
            // A character that is not expected, or lies behind all expected ones, has no share of its own.
            match letters.get(index) {
                Some(&(a, _)) if a == c => scale *= share.end - share.start,
                _ => break,
            }
        }
        value
    }

    /// The key that lies `fraction` of the way, below the given beginning.
    fn key_at_fraction(&self, beginning: &[char], fraction: f64) -> String {
        let mut text: String = beginning.iter().collect();
        let mut rest = fraction;
        for i in 0..MAX_DIGITS {
            let alphabet = self.alphabet(beginning.len() + i);
            let last = alphabet.letters.len().saturating_sub(1);
            let index = alphabet.letters.partition_point(|&(_, end)| end <= rest).min(last);
            let Some(&(c, _)) = alphabet.letters.get(index) else { break };
            text.push(c);
            let share = alphabet.share(index);
            rest = ((rest - share.start) / (share.end - share.start)).clamp(0.0, 1.0);
        }
        text
    }

    /// Share of `lo..hi` that lies after `at`; no `hi` means the end of what begins with `base` characters.
    pub(crate) fn share_after(&self, base: usize, lo: &Key, at: &Key, hi: Option<&Key>) -> f64 {
        let (lo, at, hi) = (chars(lo), chars(at), hi.map(chars));
        let from = self.common_len(base, &lo, hi.as_deref());
        let (a, b) = (self.fraction(&lo, from), hi.map_or(1.0, |h| self.fraction(&h, from)));
        if b <= a { 0.0 } else { ((b - self.fraction(&at, from)) / (b - a)).clamp(0.0, 1.0) }
    }

    fn common_len(&self, base: usize, lo: &[char], hi: Option<&[char]>) -> usize {
        match hi {
            Some(hi) => lo.iter().zip(hi).take_while(|(a, b)| a == b).count(),
            None => base.min(lo.len()),
        }
    }

    /// Up to `n` keys that divide what lies after `lo` and before `hi` evenly, leaving at least the share `least`
    /// before the first of them.
    pub(crate) fn split_points(
        &self,
        base: usize,
        lo: &Key,
        hi: Option<&Key>,
        n: usize,
        least: f64,
    ) -> Vec<Key> {
        let (lo_chars, hi_chars) = (chars(lo), hi.map(chars));
        let from = self.common_len(base, &lo_chars, hi_chars.as_deref());
        let a = self.fraction(&lo_chars, from);
        let b = hi_chars.map_or(1.0, |h| self.fraction(&h, from));
        let mut keys: Vec<Key> = Vec::new();
        let first = least.max(1.0 / (n as f64 + 1.0));
        for i in 0..n {
            let f = a + (b - a) * (first + (1.0 - first) * i as f64 / n as f64);
            let key = Key::from(self.key_at_fraction(&lo_chars[..from], f));
            let inside = self.order.compare(key.as_bytes(), lo.as_bytes()).is_gt()
                && hi.is_none_or(|h| self.order.compare(key.as_bytes(), h.as_bytes()).is_lt());
            if inside && keys.last() != Some(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// Up to `n` keys between `at` and `hi`, each half as far away as the one before, beginning half way: for a
    /// space that may be filled only a little way.
    pub(crate) fn halving_points(&self, base: usize, at: &Key, hi: &Key, n: usize) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        let mut far = hi.clone();
        while keys.len() < n {
            let Some(half) = self.split_points(base, at, Some(&far), 1, 0.0).pop() else { break };
            far = half.clone();
            keys.push(half);
        }
        keys
    }

    /// Where to probe while the last key is unknown: just behind each subtree that holds `at`, innermost
    /// first, so that what is next to one of them is found in one round; and half way between two of them.
    pub(crate) fn subtree_boundaries(&self, base: usize, at: &Key, common: usize, n: usize) -> Vec<Key> {
        let at_chars = chars(at);
        // Next to a digit or a folder: inside a word of letters a neighbour is less likely.
        let worth = |&i: &usize| {
            let (c, before) = (at_chars[i], i.checked_sub(1).map(|b| at_chars[b]));
            i == base
                || c.is_ascii_digit()
                || (!c.is_alphanumeric() && !before.is_some_and(|b| b.is_ascii_digit()))
        };
        let mut depths: Vec<usize> = (base..common.min(at_chars.len())).rev().filter(worth).collect();
        // Most of the innermost subtree has been seen: the rest of it is not worth a probe.
        if depths.len() > 1 && self.fraction(&at_chars, common) > 0.5 {
            depths.remove(0);
        }
        let step = depths.len().div_ceil(n.max(1)).max(1);
        let mut boundaries: Vec<Key> = Vec::new();
        for i in depths.into_iter().step_by(step) {
            let mut text: String = at_chars[..=i].iter().collect();
            text.push(char::MAX);
            boundaries.push(Key::from(text));
        }
        let mut between = Vec::new();
        for (lo, hi) in [at].into_iter().chain(&boundaries).zip(boundaries.iter().map(Some).chain([None])) {
            between.extend(self.split_points(base, lo, hi, 1, 0.0));
        }
        boundaries.extend(between);
        boundaries.truncate(n);
        boundaries
    }
}

fn chars(key: &Key) -> Vec<char> {
    key.as_str().unwrap_or_default().chars().collect()
}

/// Number of characters that all keys of a page share.
pub(crate) fn common_prefix_len(first: &Key, last: &Key) -> usize {
    chars(first).iter().zip(chars(last)).take_while(|(a, b)| **a == *b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(keys: &[&str]) -> KeyDistribution {
        let mut s = KeyDistribution::new(Order::Bytes);
        let keys: Vec<Key> = keys.iter().map(|k| Key::from(*k)).collect();
        s.observe(keys.iter());
        s
    }

    #[test]
    fn hash_keys_are_cut_evenly() {
        // A page of hashes that all begin with `0`: the word's other characters tell what may come first.
        let page: Vec<String> =
            (0..64u32).map(|i| format!("0{:03x}", i.wrapping_mul(2_654_435_761) % 4096)).collect();
        let s = distribution(&page.iter().map(String::as_str).collect::<Vec<_>>());
        let cuts = s.for_key(&Key::from("0a1f")).split_points(0, &Key::from("0000"), None, 3, 0.0);
        let firsts: Vec<char> = cuts.iter().filter_map(|k| k.as_str()?.chars().next()).collect();
        assert_eq!(firsts, ['4', '8', 'c']);
    }

    #[test]
    fn cut_points_lie_inside_the_range_and_ascend() {
        let s = distribution(&["日本/あ1", "logs/2024/01/05/x.gz", "a/b/c"]);
        for (lo, hi) in [("", "z"), ("logs/2024/01", "logs/2025"), ("a", "a0"), ("日", "月")] {
            let (lo, hi) = (Key::from(lo), Key::from(hi));
            for like in ["日本/あ1", "logs/2024/01/05/x.gz", "a/b/c", "-"] {
                let cuts = s.for_key(&Key::from(like)).split_points(0, &lo, Some(&hi), 15, 0.0);
                assert!(cuts.iter().all(|k| *k > lo && *k < hi), "{cuts:?}");
                assert!(cuts.windows(2).all(|w| w[0] < w[1]), "{cuts:?}");
            }
        }
    }

    #[test]
    fn subtree_boundaries_ascend_from_the_deepest() {
        let s = distribution(&["p/q/1"]);
        let boundaries = s.for_key(&Key::from("p/q/1")).subtree_boundaries(0, &Key::from("p/q/1"), 4, 8);
        assert!(boundaries.len() >= 3);
        assert!(
            boundaries[..3].windows(2).all(|w| w[0] < w[1]),
            "deepest first, each within the next: {boundaries:?}"
        );
    }
}
