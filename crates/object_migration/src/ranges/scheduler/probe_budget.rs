//! Pure: how much may be listed speculatively.
//!
//! A page that begins a range costs nothing: it would have been listed anyway. What it overlaps with other pages is listed
//! twice. The keys listed twice are bounded by those listed once: by [`EARLY_SHARE`] of the first [`EARLY_KEYS`], by
//! [`LATE_SHARE`] of those that follow. How much of a page a probe wastes is learned from the probes before. Where a page would be too much,
//! the first key behind a guess is asked for: that wastes nothing but a request. Their number is bounded by that of the pages.

use crate::listing::lister::PAGE_KEYS;

/// The first keys of a bucket: little is known of it.
const EARLY_KEYS: f64 = 20_000.0;
/// Keys that may be listed twice, as a share of the first keys.
const EARLY_SHARE: f64 = 0.6;
/// The same of all others.
const LATE_SHARE: f64 = 0.15;
/// Probes that are assumed to have wasted a quarter of a page each before the first one is answered.
const ASSUMED_PROBES: f64 = 4.0;
/// No probe is assumed to waste less, keys.
const LEAST_WASTE: f64 = 50.0;

/// Requests for one key that are allowed once a second page is known to exist; later one for each ten pages is added.
const EARLY_FIRST_KEYS: u64 = 16;

/// Keys that were listed once, and keys that were listed for nothing.
#[derive(Debug, Default)]
pub(super) struct ProbeBudget {
    used: u64,
    wasted: u64,
    page_probes: u64,
    first_key_probes: u64,
}

impl ProbeBudget {
    /// Keys of a page that belong to the range that they were listed for.
    pub(super) fn use_keys(&mut self, keys: usize) {
        self.used += keys as u64;
    }

    /// Keys of a page that belong to another range.
    pub(super) fn waste_keys(&mut self, keys: usize) {
        self.wasted += keys as u64;
    }

    /// A probe for a page was answered.
    pub(super) fn count_page_probe(&mut self) {
        self.page_probes += 1;
    }

    /// Probes for the first key behind a guess were sent.
    pub(super) fn count_first_keys(&mut self, sent: usize) {
        self.first_key_probes += sent as u64;
    }

    /// How many probes for a first key may be started.
    pub(super) fn first_key_room(&self) -> usize {
        let pages = self.used / u64::from(PAGE_KEYS);
        let allowed = if pages == 0 { 0 } else { EARLY_FIRST_KEYS + pages / 10 };
        allowed.saturating_sub(self.first_key_probes) as usize
    }

    /// How many probes for a page may be started in addition to those `in_flight`.
    pub(super) fn page_room(&self, in_flight: usize) -> usize {
        let (used, wasted) = (self.used as f64, self.wasted as f64);
        let allowed = used.min(EARLY_KEYS) * EARLY_SHARE + (used - EARLY_KEYS).max(0.0) * LATE_SHARE;
        let assumed = ASSUMED_PROBES * f64::from(PAGE_KEYS) / 4.0;
        let expected = ((wasted + assumed) / (self.page_probes as f64 + ASSUMED_PROBES)).max(LEAST_WASTE);
        ((allowed - wasted) / expected - in_flight as f64).max(0.0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_probed_before_the_first_page() {
        assert_eq!(ProbeBudget::default().page_room(0), 0);
    }

    #[test]
    fn probes_that_waste_nothing_are_soon_unbounded() {
        let mut budget = ProbeBudget::default();
        budget.use_keys(1000);
        assert_eq!((budget.page_room(0), budget.page_room(2)), (2, 0));
        for _ in 0..16 {
            budget.use_keys(1000);
            budget.count_page_probe();
        }
        assert!(budget.page_room(0) >= 64);
    }

    #[test]
    fn wasted_keys_stay_below_the_keys_that_were_used() {
        let mut budget = ProbeBudget::default();
        for _ in 0..300 {
            budget.use_keys(1000);
            for _ in 0..budget.page_room(0) {
                budget.waste_keys(1000);
                budget.count_page_probe();
            }
            let share = budget.wasted as f64 / budget.used as f64;
            assert!(share <= if budget.used < 20_000 { 3.0 } else { 0.8 }, "{budget:?}");
        }
        assert!(budget.wasted < budget.used / 4, "{budget:?}");
    }
}
