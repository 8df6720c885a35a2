//! Pure: a source entry, what stands at the target, and the rule, give an action (OMS §4.5).

use model::count::Proof;
use model::policy::Overwrite;
use storage::Entry;

/// What to do with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Transfer it.
    Copy,
    /// Leave it, and say why.
    Skip(&'static str),
    /// This very task wrote it before it was interrupted: count it as copied with this proof.
    Adopt(Proof),
    /// The ETags of the listings contradict each other, and only the objects' own answers tell whether both are
    /// digests: ask, then decide again.
    Head,
}

/// Where what is known of the two objects comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntrySource {
    /// From listings, which do not tell whether an ETag is a digest.
    Listing,
    /// From each object's own answer.
    Head,
}

/// The rules of one task that decide about single keys.
#[derive(Clone, Copy, Debug)]
pub struct OverwriteRule {
    /// When to replace.
    pub overwrite: Overwrite,
    /// Only objects modified after this, milliseconds; 0: all.
    pub since_ms: i64,
    /// Target objects written at or after this instant, by the target's clock, may be this task's own.
    pub own_since_ms: i64,
    /// Equal length is proof enough (a check of `size` or `none`).
    pub size_proves: bool,
    /// Both sides keep the modification time that they are given: equal objects have equal times.
    pub mtime_kept: bool,
    /// How far the clock that dates the target's objects is ahead of the source's, milliseconds.
    pub ahead_ms: i64,
}

/// Clocks that differ by less are taken to be equal: dates are told in whole seconds, and answers take their time.
const SKEW_MIN_MS: i64 = 5_000;

/// How far one clock is ahead of another, by their differences to that of this process, milliseconds; 0 where that is not sure.
pub fn ahead_ms(target_skew_ms: i64, source_skew_ms: i64) -> i64 {
    let ahead = target_skew_ms.saturating_sub(source_skew_ms);
    if ahead.saturating_abs() < SKEW_MIN_MS { 0 } else { ahead }
}

impl OverwriteRule {
    /// Decides. `resumed` is true for the few keys whose outcome an interruption may have swallowed.
    pub fn decide(
        &self,
        source: &Entry,
        target: Option<&Entry>,
        resumed: bool,
        known: EntrySource,
    ) -> Action {
        if self.is_too_old(source) {
            return Action::Skip("not modified since");
        }
        let Some(target) = target else { return Action::Copy };
        // Stores tell times in whole seconds at worst.
        let written_by_task =
            resumed && source.size == target.size && target.written_ms + 999 >= self.own_since_ms;
        let proved = source.etag.proves(&target.etag);
        match proved {
            Some(true) if written_by_task => return Action::Adopt(Proof::Etag),
            None if written_by_task && self.size_proves => return Action::Adopt(Proof::Size),
            // The result of an interrupted write is unknown: the key is written again, whatever the mode.
            None if written_by_task => return Action::Copy,
            _ => {}
        }
        match self.overwrite {
            Overwrite::Always => Action::Copy,
            Overwrite::Never => Action::Skip("exists"),
            _ if source.size != target.size => Action::Copy,
            Overwrite::Newer => self.newer(source, target, proved, known),
            Overwrite::Checksum | Overwrite::Crc64 if proved == Some(true) => Action::Skip("same checksum"),
            Overwrite::Checksum | Overwrite::Crc64
                if proved == Some(false) && known == EntrySource::Listing =>
            {
                Action::Head
            }
            // What cannot be compared is not skipped.
            Overwrite::Checksum => Action::Copy,
            // Where either side has no checksum, size and time decide (OMS §4.5).
            Overwrite::Crc64 => self.newer(source, target, proved, known),
        }
    }

    /// True for an object that is too old to be copied, whatever stands at the target.
    pub fn is_too_old(&self, source: &Entry) -> bool {
        self.since_ms > 0 && source.modified_ms <= self.since_ms
    }

    /// The rule of size and time, for objects of equal length.
    fn newer(&self, source: &Entry, target: &Entry, proved: Option<bool>, known: EntrySource) -> Action {
        // A clock that is ahead makes the target's copy look younger than a later change at the source.
        if source.modified_ms > target.modified_ms.saturating_sub(self.ahead_ms) {
            return Action::Copy;
        }
        match proved {
            Some(false) if known == EntrySource::Listing => Action::Head,
            // An update of equal length, brought when the target's copy was younger than it.
            Some(false) => Action::Copy,
            None if self.mtime_kept && source.modified_ms != target.modified_ms => Action::Copy,
            // The source tells no time: nothing says that it has not changed.
            None if !self.mtime_kept && source.modified_ms == 0 => Action::Copy,
            _ => Action::Skip("same size and not newer"),
        }
    }

    /// True when the decision needs to know what stands at the target.
    pub fn needs_target(&self) -> bool {
        self.overwrite != Overwrite::Always
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::key::Key;
    use storage::Etag;

    fn entry(size: u64, at: i64, etag: &str) -> Entry {
        let etag = Etag::parse(etag);
        Entry { key: Key::from("k"), size, modified_ms: at, written_ms: at, etag, class: None }
    }

    const RULE: OverwriteRule = OverwriteRule {
        overwrite: Overwrite::Newer,
        since_ms: 0,
        own_since_ms: i64::MAX,
        size_proves: false,
        mtime_kept: false,
        ahead_ms: 0,
    };
    const A: &str = "d41d8cd98f00b204e9800998ecf8427e";
    const B: &str = "25f9e794323b453885f5181f1b624d0b";

    #[test]
    fn overwrite_modes_match_the_table() {
        use Overwrite::*;
        let rule = |overwrite| OverwriteRule { overwrite, ..RULE };
        let copies =
            |o, s: &Entry, t: &Entry| rule(o).decide(s, Some(t), false, EntrySource::Head) == Action::Copy;
        let old = entry(5, 10_000, A);
        for (mode, same, newer, resized, rewritten) in [
            (Never, false, false, false, false),
            (Newer, false, true, true, true),
            (Checksum, false, false, true, true),
            (Crc64, false, false, true, true),
            (Always, true, true, true, true),
        ] {
            assert_eq!(copies(mode, &entry(5, 10_000, A), &old), same, "{mode:?} same");
            assert_eq!(copies(mode, &entry(5, 20_000, A), &old), newer, "{mode:?} newer");
            assert_eq!(copies(mode, &entry(6, 10_000, A), &old), resized, "{mode:?} resized");
            assert_eq!(copies(mode, &entry(5, 10_000, B), &old), rewritten, "{mode:?} rewritten");
            assert_eq!(
                rule(mode).decide(&old, None, false, EntrySource::Listing),
                Action::Copy,
                "{mode:?} absent"
            );
        }
    }

    #[test]
    fn wrong_clock_makes_no_object_newer_or_older() {
        let decide = |ahead_ms, source_at, target_at| {
            let rule = OverwriteRule { ahead_ms, ..RULE };
            let (source, target) = (entry(5, source_at, "x"), entry(5, target_at, "y"));
            rule.decide(&source, Some(&target), false, EntrySource::Head)
        };
        // The target's copy is of 400 s by our clock, and the source was written again at 700 s.
        assert_eq!(decide(600_000, 700_000, 1_000_000), Action::Copy);
        assert!(matches!(decide(0, 700_000, 1_000_000), Action::Skip(_)));
        // The target's copy is of 800 s, and its clock is 600 s behind.
        assert!(matches!(decide(-600_000, 700_000, 200_000), Action::Skip(_)));
        // What the clocks of two answers differ by is no skew.
        assert_eq!([ahead_ms(900, -900), ahead_ms(600_000, 0), ahead_ms(0, 600_000)], [0, 600_000, -600_000]);
    }

    #[test]
    fn object_older_than_since_is_skipped_even_when_missing() {
        let rule = OverwriteRule { overwrite: Overwrite::Always, since_ms: 10_000, ..RULE };
        assert!(matches!(
            rule.decide(&entry(1, 10_000, A), None, false, EntrySource::Listing),
            Action::Skip(_)
        ));
        assert_eq!(rule.decide(&entry(1, 10_001, A), None, false, EntrySource::Listing), Action::Copy);
    }

    #[test]
    fn resumed_key_is_adopted_only_if_this_task_wrote_it() {
        let rule = OverwriteRule { own_since_ms: 50_000, ..RULE };
        let decide = |rule: &OverwriteRule, s: &Entry, t: &Entry, resumed| {
            rule.decide(s, Some(t), resumed, EntrySource::Listing)
        };
        let (s, own, foreign) = (entry(1, 10_000, A), entry(1, 60_000, A), entry(1, 20_000, A));
        assert_eq!(decide(&rule, &s, &own, true), Action::Adopt(Proof::Etag));
        assert!(matches!(decide(&rule, &s, &own, false), Action::Skip(_)));
        assert!(matches!(decide(&rule, &s, &foreign, true), Action::Skip(_)));
        // Without a common digest, only a check of size takes an interrupted write for done.
        let own = entry(1, 60_000, "opaque");
        assert_eq!(decide(&rule, &s, &own, true), Action::Copy);
        let weak = OverwriteRule { size_proves: true, ..rule };
        assert_eq!(decide(&weak, &s, &own, true), Action::Adopt(Proof::Size));
    }

    #[test]
    fn obj_06_equal_size_with_other_digest_etags_differs() {
        let (source, target) = (entry(5, 10_000, A), entry(5, 60_000, B));
        assert_eq!(RULE.decide(&source, Some(&target), false, EntrySource::Listing), Action::Head);
        assert_eq!(RULE.decide(&source, Some(&target), false, EntrySource::Head), Action::Copy);
        let encrypted = Entry { etag: target.etag.clone().opaque(), ..target };
        assert!(matches!(RULE.decide(&source, Some(&encrypted), false, EntrySource::Head), Action::Skip(_)));
    }

    #[test]
    fn obj_06_directories_differ_by_any_change_of_time() {
        let rule = OverwriteRule { mtime_kept: true, ..RULE };
        let file = |at| entry(5, at, "inode");
        assert_eq!(rule.decide(&file(-5_000), Some(&file(0)), false, EntrySource::Listing), Action::Copy);
        assert!(matches!(
            rule.decide(&file(-5_000), Some(&file(-5_000)), false, EntrySource::Listing),
            Action::Skip(_)
        ));
        assert!(matches!(
            RULE.decide(&file(-5_000), Some(&file(0)), false, EntrySource::Listing),
            Action::Skip(_)
        ));
    }

    #[test]
    fn c3_size_and_time_decide_without_checksums() {
        let rule = OverwriteRule { overwrite: Overwrite::Crc64, ..RULE };
        let (old, new) = (entry(5, 10_000, "x"), entry(5, 60_000, "y"));
        assert!(matches!(rule.decide(&old, Some(&new), false, EntrySource::Head), Action::Skip(_)));
        assert_eq!(rule.decide(&new, Some(&old), false, EntrySource::Head), Action::Copy);
    }
}
