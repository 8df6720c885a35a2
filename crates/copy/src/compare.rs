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
}

/// The rules of one task that decide about single keys.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// When to replace.
    pub overwrite: Overwrite,
    /// Only objects modified after this, milliseconds; 0: all.
    pub since_ms: i64,
    /// Target objects written at or after this instant, by the target's clock, may be this task's own.
    pub own_since_ms: i64,
    /// Equal length is proof enough (a check of `size` or `none`).
    pub size_proves: bool,
}

impl Rule {
    /// Decides. `resumed` is true for the few keys whose outcome an interruption may have swallowed.
    pub fn decide(&self, source: &Entry, target: Option<&Entry>, resumed: bool) -> Action {
        if self.since_ms > 0 && source.modified_ms <= self.since_ms {
            return Action::Skip("not modified since");
        }
        let Some(target) = target else { return Action::Copy };
        // Stores tell times in whole seconds at worst.
        let ours = resumed && source.size == target.size && target.written_ms + 999 >= self.own_since_ms;
        match source.etag.proves(&target.etag) {
            Some(true) if ours => return Action::Adopt(Proof::Etag),
            None if ours && self.size_proves => return Action::Adopt(Proof::Size),
            // Nobody can tell what an interrupted write left: it is written again, whatever the mode.
            None if ours => return Action::Copy,
            _ => {}
        }
        let newer = source.modified_ms > target.modified_ms;
        match self.overwrite {
            Overwrite::Always => Action::Copy,
            Overwrite::Never => Action::Skip("exists"),
            Overwrite::Newer if source.size != target.size || newer => Action::Copy,
            Overwrite::Newer => Action::Skip("same size and not newer"),
            Overwrite::Checksum => match source.etag.proves(&target.etag) {
                _ if source.size != target.size => Action::Copy,
                Some(true) => Action::Skip("same checksum"),
                Some(false) => Action::Copy,
                // What cannot be compared is not left alone.
                None => Action::Copy,
            },
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

    const A: &str = "d41d8cd98f00b204e9800998ecf8427e";
    const B: &str = "25f9e794323b453885f5181f1b624d0b";

    #[test]
    fn the_four_overwrite_modes() {
        use Overwrite::*;
        let rule = |overwrite| Rule { overwrite, since_ms: 0, own_since_ms: i64::MAX, size_proves: false };
        let copies = |o, s: &Entry, t: &Entry| rule(o).decide(s, Some(t), false) == Action::Copy;
        let old = entry(5, 10_000, A);
        for (mode, same, newer, resized, rewritten) in [
            (Never, false, false, false, false),
            (Newer, false, true, true, false),
            (Checksum, false, false, true, true),
            (Always, true, true, true, true),
        ] {
            assert_eq!(copies(mode, &entry(5, 10_000, A), &old), same, "{mode:?} same");
            assert_eq!(copies(mode, &entry(5, 20_000, A), &old), newer, "{mode:?} newer");
            assert_eq!(copies(mode, &entry(6, 10_000, A), &old), resized, "{mode:?} resized");
            assert_eq!(copies(mode, &entry(5, 10_000, B), &old), rewritten, "{mode:?} rewritten");
            assert_eq!(rule(mode).decide(&old, None, false), Action::Copy, "{mode:?} absent");
        }
    }

    #[test]
    fn older_than_since_is_skipped_even_when_absent() {
        let rule = Rule {
            overwrite: Overwrite::Always,
            since_ms: 10_000,
            own_since_ms: i64::MAX,
            size_proves: false,
        };
        assert!(matches!(rule.decide(&entry(1, 10_000, A), None, false), Action::Skip(_)));
        assert_eq!(rule.decide(&entry(1, 10_001, A), None, false), Action::Copy);
    }

    #[test]
    fn only_a_resumed_key_written_by_this_task_is_adopted() {
        let rule =
            Rule { overwrite: Overwrite::Newer, since_ms: 0, own_since_ms: 50_000, size_proves: false };
        let (s, ours, theirs) = (entry(1, 10_000, A), entry(1, 60_000, A), entry(1, 20_000, A));
        assert_eq!(rule.decide(&s, Some(&ours), true), Action::Adopt(Proof::Etag));
        assert!(matches!(rule.decide(&s, Some(&ours), false), Action::Skip(_)));
        assert!(matches!(rule.decide(&s, Some(&theirs), true), Action::Skip(_)));
        // Without a common digest, only a check of size takes an interrupted write for done.
        let ours = entry(1, 60_000, "opaque");
        assert_eq!(rule.decide(&s, Some(&ours), true), Action::Copy);
        let weak = Rule { size_proves: true, ..rule };
        assert_eq!(weak.decide(&s, Some(&ours), true), Action::Adopt(Proof::Size));
    }
}
