//! List requests that idle I/O threads send to the source, so that ranges can be split: the first-level folders, pages behind guesses.

use model::key::Key;
use model::selection::Scope;

use super::list_probe::{ListProbe, TopFolders};
use super::{ActiveRange, RangeScheduler, RangeState};
use crate::listing::lister::PAGE_KEYS;
use crate::ranges::key_distribution::ShapeDistribution;

/// A gap of a range between its position, probes in flight, and its end.
struct Gap {
    keys: f64,
    scope: Scope,
    /// A key of the range, which tells how its keys are built.
    sample: Key,
    lo: Key,
    hi: Option<Key>,
    /// How far it is filled is unknown: it ends where an empty probe was made, and looks far too large.
    end_unknown: bool,
}

/// Shares the free I/O threads out: each goes where most keys are left per I/O thread, down to about a page.
fn share_out(gaps: &[Gap], free: usize) -> Vec<usize> {
    let mut shares = vec![0usize; gaps.len()];
    for _ in 0..free {
        let per_probe = |j: usize| gaps[j].keys / (shares[j] as f64 + 2.0);
        let Some(best) = (0..gaps.len()).max_by(|&a, &b| per_probe(a).total_cmp(&per_probe(b))) else {
            break;
        };
        // An I/O thread that has one page left would not be done sooner.
        if gaps[best].keys / (shares[best] as f64 + 1.0) < f64::from(PAGE_KEYS) {
            break;
        }
        shares[best] += 1;
    }
    shares
}

impl RangeScheduler {
    /// What to ask on `free` I/O threads, beside the probes `in_flight`: the folders of a scope that has some, then pages at
    /// good guesses, or only their first keys where more pages may not be listed speculatively.
    pub(super) fn next_probes(&self, free: usize, in_flight: usize) -> Vec<(Scope, ListProbe)> {
        let mut out = Vec::new();
        for scope in self.scopes_with_folders() {
            let mut top_folders = self.top_folders();
            if out.len() < free && !top_folders.contains_key(&scope) {
                top_folders.insert(scope.clone(), None);
                out.push((scope, ListProbe::Folders));
            }
        }
        let (pages, first_keys) = {
            let budget = self.probe_budget();
            (budget.page_room(in_flight + out.len()), budget.first_key_room())
        };
        let room = free.saturating_sub(out.len()).min(pages + first_keys);
        let candidates = self.probe_candidates(room);
        self.probe_budget().count_first_keys(candidates.len().saturating_sub(pages));
        for (i, (scope, guess)) in candidates.into_iter().enumerate() {
            self.probes_in_flight().push((scope.clone(), guess.clone()));
            out.push((scope, if i < pages { ListProbe::Page(guess) } else { ListProbe::FirstKey(guess) }));
        }
        out
    }

    /// Prefixes whose keys have a slash behind the prefix, as far as they are listed.
    fn scopes_with_folders(&self) -> Vec<Scope> {
        let has_folders = |range: &ActiveRange| {
            let position = range.state().position.clone();
            let prefix = range.scope.prefix().len();
            position.as_bytes().get(prefix..).is_some_and(|rest| rest.contains(&b'/'))
        };
        let listed = |range: &ActiveRange| range.is_listed() && matches!(range.scope, Scope::Prefix(_));
        self.active().iter().filter(|r| listed(r) && has_folders(r)).map(|r| r.scope.clone()).collect()
    }

    /// Known folders of a range without a known end, and the subtrees around its position.
    fn boundary_candidates(
        &self,
        r: &mut RangeState,
        known: Option<&TopFolders>,
        distribution: &ShapeDistribution,
        base: usize,
        mut room: usize,
    ) -> Vec<Key> {
        r.boundaries_probed = true;
        if r.end_bound.is_none() {
            r.end_bound = known.and_then(|l| l.end.clone());
        }
        let ahead: Vec<&Key> = known.map_or(vec![], |l| {
            l.folders.iter().filter(|f| self.is_between(f, &r.position, r.end_bound.as_ref())).collect()
        });
        // As many as half of the I/O threads, about a page apart, and always the last.
        let passed = known.map_or(0, |l| l.folders.len() - ahead.len());
        let step = ahead.len().div_ceil(room.div_ceil(2).max(1)).max(passed).max(1);
        let picked: Vec<Key> = ahead.iter().rev().step_by(step).map(|&f| f.clone()).collect();
        room -= picked.len().min(room);
        let end = picked.last().or(r.end_bound.as_ref());
        let mut boundaries = distribution.subtree_boundaries(base, &r.position, r.common_len, room);
        boundaries.retain(|k| self.is_between(k, &r.position, end));
        picked.into_iter().chain(boundaries).collect()
    }

    /// Keys to probe next: known folders and the subtrees around an unknown end first, then even cuts of the
    /// largest gaps.
    fn probe_candidates(&self, free: usize) -> Vec<(Scope, Key)> {
        let mut out = Vec::new();
        if free == 0 {
            return out;
        }
        let distributions = self.distributions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let asked = self.probes_in_flight();
        let top_folders = self.top_folders();
        let mut gaps: Vec<Gap> = Vec::new();
        for range in self.active().iter() {
            let mut r = range.state();
            let Some(distribution) = distributions.get(&range.scope).map(|s| s.for_key(&r.position)) else {
                continue;
            };
            if r.finished || !range.is_listed() || matches!(range.scope, Scope::Key(_)) {
                continue;
            }
            let base = range.scope.prefix().chars().count();
            let known = top_folders.get(&range.scope).map(Option::as_ref);
            let folders_asked = known.is_some_and(|known| known.is_none());
            if r.upto.is_none() && !r.boundaries_probed && !folders_asked && out.len() < free {
                let room = free - out.len();
                let keys = self.boundary_candidates(&mut r, known.flatten(), distribution, base, room);
                out.extend(keys.into_iter().map(|k| (range.scope.clone(), k)));
            }
            let probed: Vec<&(Scope, Key)> = asked.iter().chain(&out).collect();
            self.collect_gaps(range, &r, distribution, base, &probed, &mut gaps);
        }
        let shares = share_out(&gaps, free.saturating_sub(out.len()));
        for (gap, share) in gaps.iter().zip(shares).filter(|(_, share)| *share > 0) {
            let Some(distribution) = distributions.get(&gap.scope).map(|s| s.for_key(&gap.sample)) else {
                continue;
            };
            let base = gap.scope.prefix().chars().count();
            let pages = gap.keys / f64::from(PAGE_KEYS);
            let cuts = match &gap.hi {
                Some(hi) if gap.end_unknown => distribution.halving_points(
                    base,
                    &gap.lo,
                    hi,
                    share.min((pages.log2() - 2.0).max(1.0) as usize),
                ),
                // The page that is on its way to the gap's own runner is not asked for twice.
                hi => distribution.split_points(base, &gap.lo, hi.as_ref(), share, (1.05 / pages).min(0.9)),
            };
            out.extend(cuts.into_iter().map(|k| (gap.scope.clone(), k)));
        }
        out
    }

    /// True when `key` lies behind `at` and not behind `end`.
    fn is_between(&self, key: &Key, at: &Key, end: Option<&Key>) -> bool {
        self.order.compare(key.as_bytes(), at.as_bytes()).is_gt() && self.order.within(key.as_bytes(), end)
    }

    /// The gaps of one range, with the keys expected in each.
    fn collect_gaps(
        &self,
        range: &ActiveRange,
        r: &RangeState,
        distribution: &ShapeDistribution,
        base: usize,
        asked: &[&(Scope, Key)],
        out: &mut Vec<Gap>,
    ) {
        let hi = r.end_bound.as_ref().or(r.upto.as_ref());
        let left = self.expected_left(distribution, base, r);
        let mut cuts: Vec<&Key> = asked
            .iter()
            .filter(|(s, g)| *s == range.scope && self.is_between(g, &r.position, hi))
            .map(|(_, g)| g)
            .collect();
        cuts.sort_by(|a, b| self.order.compare(a.as_bytes(), b.as_bytes()));
        let ends = cuts.iter().copied().map(Some).chain([hi]);
        let starts = [&r.position].into_iter().chain(cuts.iter().copied());
        for (lo, end) in starts.zip(ends) {
            let share = |at: &Key| distribution.share_after(base, &r.position, at, hi);
            let part = share(lo) - end.filter(|e| hi != Some(*e)).map_or(0.0, share);
            out.push(Gap {
                keys: left * part,
                scope: range.scope.clone(),
                sample: r.position.clone(),
                lo: lo.clone(),
                hi: end.cloned(),
                end_unknown: r.end_bound.is_some() && left > 20.0 * (r.listed as f64 + f64::from(PAGE_KEYS)),
            });
        }
    }

    /// Keys expected to be left in a range.
    pub(super) fn expected_left(&self, distribution: &ShapeDistribution, base: usize, r: &RangeState) -> f64 {
        let hi = r.end_bound.as_ref().or(r.upto.as_ref());
        let share = distribution.share_after(base, &r.start, &r.position, hi);
        if r.listed == 0 {
            return r.expected;
        }
        if share >= 0.999_999 { f64::from(PAGE_KEYS) * 1e6 } else { r.listed as f64 * share / (1.0 - share) }
    }
}
