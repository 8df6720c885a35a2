//! What idle lanes ask the source, so that ranges can be split: the first-level folders, pages behind guesses.

use model::key::{Key, Order};
use model::selection::Scope;
use storage::Page;

use super::{Extent, Field, Reach};
use crate::lister::PAGE;
use crate::sketch::Form;

/// What the idle lanes ask while the first page of a prefix is on its way: nothing is known yet, but keys begin
/// with digits, letters, or the beginnings of scripts.
const FIRST: [char; 13] =
    ['1', '4', '8', 'A', 'a', 'd', 'h', 'p', '\u{80}', '\u{400}', '\u{3040}', '\u{4e00}', '\u{7000}'];

/// The first-level folders below a prefix, in the source's order.
#[derive(Debug, Default)]
pub(super) struct Landmarks {
    folders: Vec<Key>,
    /// Nothing lies behind this, when all folders and keys of the level fitted in one page.
    end: Option<Key>,
}

impl Landmarks {
    pub(super) fn of(page: Page, order: Order) -> Self {
        let mut folders: Vec<Key> = page.folders.into_iter().map(Key::from).collect();
        folders.sort_by(|a, b| order.compare(a.as_bytes(), b.as_bytes()));
        let complete = page.next.is_none();
        let behind = folders.last().map(|f| Key::from(format!("{f}{}", char::MAX)));
        let keys = page.entries.into_iter().map(|e| e.key);
        let last = keys.chain(behind).max_by(|a, b| order.compare(a.as_bytes(), b.as_bytes()));
        Self { folders, end: last.filter(|_| complete) }
    }
}

/// What an idle lane asks the source.
pub(super) enum Question {
    /// The first-level folders.
    Folders,
    /// A page behind a key.
    Page(Key),
}

/// A stretch of a range between its position, questions under way, and its end.
struct Stretch {
    keys: f64,
    scope: Scope,
    /// A key of the range, which tells how its keys are built.
    like: Key,
    lo: Key,
    hi: Option<Key>,
    /// How far it is filled is unknown: it ends where a fruitless question was asked, and looks far too large.
    open: bool,
}

impl Field {
    /// What to ask on `free` lanes: the folders of a new scope, then pages at good guesses.
    pub(super) fn questions(&self, free: usize) -> Vec<(Scope, Question)> {
        let mut out = Vec::new();
        let scopes: Vec<Scope> =
            self.extents().iter().filter(|e| e.is_listed()).map(|e| e.scope.clone()).collect();
        for scope in scopes.into_iter().filter(|s| matches!(s, Scope::Prefix(_))) {
            let mut landmarks = self.landmarks();
            if out.len() < free && !landmarks.contains_key(&scope) {
                landmarks.insert(scope.clone(), None);
                out.push((scope.clone(), Question::Folders));
                let first = FIRST.map(|c| (scope.clone(), Key::from(format!("{}{c}", scope.prefix()))));
                for (scope, guess) in first.into_iter().take(free - out.len()) {
                    self.asked().push((scope.clone(), guess.clone()));
                    out.push((scope, Question::Page(guess)));
                }
            }
        }
        for (scope, guess) in self.guesses(free.saturating_sub(out.len())) {
            self.asked().push((scope.clone(), guess.clone()));
            out.push((scope, Question::Page(guess)));
        }
        out
    }

    /// Where to ask next: known folders and the subtrees around an unknown end first, then even cuts of the
    /// largest stretches.
    fn guesses(&self, free: usize) -> Vec<(Scope, Key)> {
        let mut out = Vec::new();
        if free == 0 {
            return out;
        }
        let sketches = self.sketches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let asked = self.asked();
        let landmarks = self.landmarks();
        let mut stretches: Vec<Stretch> = Vec::new();
        for extent in self.extents().iter() {
            let mut r = extent.reach();
            let Some(sketch) = sketches.get(&extent.scope).map(|s| s.of(&r.at)) else { continue };
            if r.over || !extent.is_listed() || matches!(extent.scope, Scope::Key(_)) {
                continue;
            }
            let base = extent.scope.prefix().chars().count();
            let known = landmarks.get(&extent.scope).map(Option::as_ref);
            if known.is_some_and(|k| k.is_none()) {
                continue;
            }
            if r.upto.is_none() && !r.laddered && out.len() < free {
                r.laddered = true;
                let known = known.flatten();
                if r.known_end.is_none() {
                    r.known_end = known.and_then(|l| l.end.clone());
                }
                let mut room = free - out.len();
                let ahead: Vec<&Key> = known.map_or(vec![], |l| {
                    l.folders.iter().filter(|f| self.inside(f, &r.at, r.known_end.as_ref())).collect()
                });
                // As many as half of the lanes, about a page apart, and always the last.
                let passed = known.map_or(0, |l| l.folders.len() - ahead.len());
                let step = ahead.len().div_ceil(room.div_ceil(2).max(1)).max(passed).max(1);
                let picked: Vec<Key> = ahead.iter().rev().step_by(step).map(|&f| f.clone()).collect();
                room -= picked.len().min(room);
                let end = picked.last().or(r.known_end.as_ref());
                let mut rungs = sketch.ladder(base, &r.at, r.common, room);
                rungs.retain(|k| self.inside(k, &r.at, end));
                out.extend(picked.into_iter().chain(rungs).map(|k| (extent.scope.clone(), k)));
            }
            let questions: Vec<&(Scope, Key)> = asked.iter().chain(&out).collect();
            self.stretches(extent, &r, sketch, base, &questions, &mut stretches);
        }
        // Shares the free lanes out: each goes where most keys are left per lane, down to about a page.
        let mut shares = vec![0usize; stretches.len()];
        for _ in out.len()..free {
            let per_lane = |j: usize| stretches[j].keys / (shares[j] as f64 + 2.0);
            let Some(best) = (0..stretches.len()).max_by(|&a, &b| per_lane(a).total_cmp(&per_lane(b))) else {
                break;
            };
            // A lane that has one page left would not be done sooner.
            if stretches[best].keys / (shares[best] as f64 + 1.0) < f64::from(PAGE) * 0.6 {
                break;
            }
            shares[best] += 1;
        }
        for (stretch, share) in stretches.iter().zip(shares).filter(|(_, share)| *share > 0) {
            let Some(sketch) = sketches.get(&stretch.scope).map(|s| s.of(&stretch.like)) else { continue };
            let base = stretch.scope.prefix().chars().count();
            let pages = stretch.keys / f64::from(PAGE);
            let cuts = match &stretch.hi {
                Some(hi) if stretch.open => {
                    sketch.halves(base, &stretch.lo, hi, share.min((pages.log2() - 2.0).max(1.0) as usize))
                }
                // The page that is on its way to the stretch's own runner is not asked for twice.
                hi => sketch.between(base, &stretch.lo, hi.as_ref(), share, (1.05 / pages).min(0.9)),
            };
            out.extend(cuts.into_iter().map(|k| (stretch.scope.clone(), k)));
        }
        out
    }

    /// True when `key` lies behind `at` and not behind `end`.
    fn inside(&self, key: &Key, at: &Key, end: Option<&Key>) -> bool {
        self.order.compare(key.as_bytes(), at.as_bytes()).is_gt() && self.order.within(key.as_bytes(), end)
    }

    /// The stretches of one range, with the keys expected in each.
    fn stretches(
        &self,
        extent: &Extent,
        r: &Reach,
        sketch: &Form,
        base: usize,
        asked: &[&(Scope, Key)],
        out: &mut Vec<Stretch>,
    ) {
        let hi = r.known_end.as_ref().or(r.upto.as_ref());
        let left = self.left(sketch, base, r);
        let mut cuts: Vec<&Key> = asked
            .iter()
            .filter(|(s, g)| *s == extent.scope && self.inside(g, &r.at, hi))
            .map(|(_, g)| g)
            .collect();
        cuts.sort_by(|a, b| self.order.compare(a.as_bytes(), b.as_bytes()));
        let ends = cuts.iter().copied().map(Some).chain([hi]);
        let starts = [&r.at].into_iter().chain(cuts.iter().copied());
        for (lo, end) in starts.zip(ends) {
            let share = |at: &Key| sketch.share_after(base, &r.at, at, hi);
            let part = share(lo) - end.filter(|e| hi != Some(*e)).map_or(0.0, share);
            out.push(Stretch {
                keys: left * part,
                scope: extent.scope.clone(),
                like: r.at.clone(),
                lo: lo.clone(),
                hi: end.cloned(),
                open: r.known_end.is_some() && left > 20.0 * (r.listed as f64 + f64::from(PAGE)),
            });
        }
    }

    /// Keys expected to be left in a range.
    pub(super) fn left(&self, sketch: &Form, base: usize, r: &Reach) -> f64 {
        let hi = r.known_end.as_ref().or(r.upto.as_ref());
        let share = sketch.share_after(base, &r.start, &r.at, hi);
        if r.listed == 0 {
            return r.expected;
        }
        if share >= 0.999_999 { f64::from(PAGE) * 1e6 } else { r.listed as f64 * share / (1.0 - share) }
    }
}
