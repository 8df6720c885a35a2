//! Pure: which keys may have expired early at the target.
//!
//! A key with a short TTL that the source renews again and again expires at a target that lags, and the command that renews it
//! finds no key. So while the target lags, the keys of each change are checked before it, in the same transaction
//! (`stream/check_expiry.lua`). A key that is missing, or will be soon, is suspect; when the target has caught up, it is read
//! again at the source (`stream::key_repair`).
//!
//! Decision: ADR 0014, `docs/adr/0014-re-read-keys-expired-early-at-target.md`.

use std::collections::{HashMap, HashSet};

use redis_proto::command;

use crate::checkpoint::suspects::{KeyRef, swapped_db};
use crate::operation::ExpiryCheck;
use crate::stream::command_filter::db_arguments;

/// A TTL shorter than this is not left to the target's clock, milliseconds.
const SHORT_TTL_MS: i64 = 600_000;
/// A key is not checked again within this time, milliseconds.
const RECHECK_MS: i64 = 60_000;
/// Checked keys that are remembered.
const CHECKED_MAX: usize = 200_000;
/// Retyped keys that are remembered.
const RETYPED_MAX: usize = 500_000;
/// Arguments of a change that a script can make.
const SCRIPT_ARGUMENTS_MAX: usize = 4000;
/// Suspects that are remembered here, where the target runs no scripts.
const LOCAL_SUSPECTS_MAX: usize = 1_000_000;

/// Whether changes are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// The target has caught up and no key is suspect.
    #[default]
    CaughtUp,
    /// The target lags: every change is checked.
    Lagging,
    /// It has caught up; suspect keys wait to be read at the source. Every change that was checked is applied when the target
    /// has applied this offset.
    Repairing(u64),
}

/// How a change is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    /// As it is.
    Pass,
    /// After a check of its keys.
    CheckFirst(ExpiryCheck<'a>),
    /// After its keys were listed as suspect.
    Suspect(SuspectList),
    /// By the script that checks its keys.
    Wrap(ExpiryCheck<'a>),
    /// Not at all: it may fail, and no script tolerates that. Its keys are suspect ([`ExpiryGuard::suspect_all`]).
    Refetch,
}

/// Keys for the list of suspects at the target; none where suspects are kept here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SuspectList {
    /// The keys, as the source calls them.
    pub(crate) key_refs: Vec<KeyRef>,
    /// They are read again even when the source says that they never expire.
    pub(crate) always_refetch: bool,
}

/// A change that depends on its keys.
struct Change {
    single_key: bool,
    persists: bool,
    /// It fails when its key is missing or has another type.
    fails: bool,
    sets_expiry: bool,
}

/// Decides which changes of a stream are checked.
#[derive(Debug, Default)]
pub(crate) struct ExpiryGuard {
    phase: Phase,
    /// The target has a list of suspects; else they are kept here.
    lists_at_target: bool,
    /// The target runs scripts; else every key that is touched is suspect.
    can_run_scripts: bool,
    suspects: HashMap<KeyRef, bool>,
    /// Suspects that found no room.
    forgotten: u64,
    checked: HashSet<KeyRef>,
    /// Keys that may be of another type than at the source: a change that would have replaced them may not have been made.
    retyped: HashSet<KeyRef>,
    since_ms: i64,
    /// Keys that changed again after they were read at the source.
    changed_again: HashSet<KeyRef>,
    /// Where the stream was when a key was last suspected.
    last_offset: u64,
}

impl ExpiryGuard {
    /// Suspects are listed at the target where it can keep a list, and keys are checked by scripts where it runs any.
    pub(crate) fn start(&mut self, lists_at_target: bool, can_run_scripts: bool) {
        (self.lists_at_target, self.can_run_scripts) = (lists_at_target, can_run_scripts);
        self.set_lagging();
    }

    /// Keys that an earlier run left suspect: they may be of another type than at the source.
    pub(crate) fn recall_retyped(&mut self, key_refs: impl Iterator<Item = KeyRef>) {
        let room = RETYPED_MAX.saturating_sub(self.retyped.len());
        self.retyped.extend(key_refs.take(room));
    }

    /// A key was read again and written as the source has it, with its expiry: the target's clock counts again.
    pub(crate) fn set_repaired(&mut self, key_ref: &KeyRef) {
        self.checked.remove(key_ref);
    }

    /// The target lags.
    pub(crate) fn set_lagging(&mut self) {
        self.phase = Phase::Lagging;
        self.changed_again.clear();
    }

    /// It has caught up, when the stream is here.
    pub(crate) fn set_caught_up(&mut self, offset: u64) {
        (self.phase, self.last_offset) = (Phase::Repairing(offset), offset);
        self.checked = HashSet::new();
    }

    /// No key is suspect any more; answers how many suspects found no room.
    pub(crate) fn finish(&mut self) -> u64 {
        (self.phase, self.changed_again, self.retyped) = (Phase::CaughtUp, HashSet::new(), HashSet::new());
        std::mem::take(&mut self.forgotten)
    }

    /// Every change is checked.
    pub(crate) fn is_lagging(&self) -> bool {
        self.phase == Phase::Lagging
    }

    /// Suspects can be read when the target has applied so much.
    pub(crate) fn is_readable(&self, applied: u64) -> bool {
        matches!(self.phase, Phase::Repairing(since) if applied >= since)
    }

    /// A key may be suspect.
    pub(crate) fn is_active(&self) -> bool {
        self.phase != Phase::CaughtUp
    }

    /// Suspects are listed at the target.
    pub(crate) fn lists_at_target(&self) -> bool {
        self.lists_at_target
    }

    /// Suspects that stand in no list; true with a key: it is read again whatever the source says of its expiry.
    pub(crate) fn take_suspects(&mut self) -> Vec<(KeyRef, bool)> {
        self.suspects.drain().collect()
    }

    /// A key was changed since the source was asked: it stays suspect.
    pub(crate) fn take_changed_again(&mut self, key_ref: &KeyRef) -> bool {
        self.changed_again.remove(key_ref)
    }

    /// Every change that made a key suspect is applied when the target is here.
    pub(crate) fn last_offset(&self) -> u64 {
        self.last_offset
    }

    /// Suspects the keys of a change that is not made, at an offset of the stream; answers what is listed at the target.
    pub(crate) fn suspect_all(&mut self, name: &[u8], args: &[&[u8]], from: u32, offset: u64) -> SuspectList {
        let keys = command::keys(args).unwrap_or_default();
        let mut key_refs: Vec<KeyRef> = keys.iter().map(|(_, key)| (from, key.to_vec())).collect();
        key_refs.extend(other_db_key(name, args));
        if self.phase == Phase::CaughtUp {
            self.phase = Phase::Repairing(offset);
        }
        self.last_offset = offset;
        self.changed_again.extend(key_refs.iter().cloned());
        self.add_retyped(&key_refs);
        self.suspect(key_refs, true)
    }

    fn any_retyped(&self, key_refs: &[KeyRef]) -> bool {
        key_refs.iter().any(|key_ref| self.retyped.contains(key_ref))
    }

    fn add_retyped(&mut self, key_refs: &[KeyRef]) {
        if self.retyped.len() < RETYPED_MAX {
            self.retyped.extend(key_refs.iter().cloned());
        }
    }

    /// Suspects keys, whatever is found there; answers what is listed at the target.
    fn suspect(&mut self, key_refs: Vec<KeyRef>, always_refetch: bool) -> SuspectList {
        if self.lists_at_target {
            return SuspectList { key_refs, always_refetch };
        }
        key_refs.into_iter().for_each(|key_ref| self.add_suspect(key_ref, always_refetch));
        SuspectList::default()
    }

    /// Decides how a change is written, whose keys are in a database of the source; `args` as the source calls them.
    pub(crate) fn check<'a>(
        &mut self,
        name: &[u8],
        args: &[&'a [u8]],
        from: u32,
        now_ms: i64,
    ) -> Verdict<'a> {
        if self.phase == Phase::CaughtUp {
            return Verdict::Pass;
        }
        let Some(keys) = command::keys(args).filter(|keys| !keys.is_empty()) else { return Verdict::Pass };
        let mut key_refs: Vec<KeyRef> = keys.iter().map(|(_, key)| (from, key.to_vec())).collect();
        if self.phase == Phase::Lagging && has_relative_expiry(name, args) {
            // Relative to the source's clock when it was executed: only the source knows when that ends.
            self.forget_checked(&key_refs);
            return Verdict::Suspect(self.suspect(key_refs, true));
        }
        if overwrites_key(name, args) && !(depends_on_value(name, args) && self.any_retyped(&key_refs)) {
            self.forget_checked(&key_refs);
            for key_ref in &key_refs {
                self.retyped.remove(key_ref);
            }
            return Verdict::Pass;
        }
        key_refs.extend(other_db_key(name, args));
        let change = self.classify(name, args, &key_refs);
        if !self.needs_check(&change, &key_refs, now_ms) {
            return Verdict::Pass;
        }
        let always_refetch = !change.single_key || change.persists;
        if !self.lists_at_target || !self.can_run_scripts {
            return match change.fails && !is_of_module(name) {
                true => Verdict::Refetch,
                false => Verdict::Suspect(self.suspect(key_refs, always_refetch)),
            };
        }
        let near_ms = if self.phase == Phase::Lagging { SHORT_TTL_MS } else { 0 };
        let keys = keys.iter().map(|(_, key)| *key).collect();
        let check = ExpiryCheck { keys, key_refs, near_ms, always_refetch };
        if change.fails { Verdict::Wrap(check) } else { Verdict::CheckFirst(check) }
    }

    /// What a change that depends on its keys does to them.
    fn classify(&self, name: &[u8], args: &[&[u8]], key_refs: &[KeyRef]) -> Change {
        // A script cannot be called by another.
        let retyped = args.len() <= SCRIPT_ARGUMENTS_MAX && !is_script(name) && self.any_retyped(key_refs);
        Change {
            single_key: key_refs.len() == 1,
            persists: name == b"PERSIST",
            fails: retyped || fails_on_missing_key(name),
            sets_expiry: sets_expiry(name),
        }
    }

    /// Whether the keys of a change are checked now, and remembers that.
    fn needs_check(&mut self, change: &Change, key_refs: &[KeyRef], now_ms: i64) -> bool {
        if !change.single_key {
            self.add_retyped(key_refs);
        }
        if self.phase != Phase::Lagging {
            if change.persists {
                self.changed_again.extend(key_refs.iter().cloned());
            }
            if change.single_key && !change.fails {
                return false;
            }
        }
        if now_ms - self.since_ms >= RECHECK_MS || self.checked.len() >= CHECKED_MAX {
            (self.since_ms, self.checked) = (now_ms, HashSet::new());
        }
        if change.single_key && !change.fails && !change.persists && !change.sets_expiry {
            return self.checked.insert(key_refs[0].clone());
        }
        self.forget_checked(key_refs);
        true
    }

    /// Keys that must be checked again.
    fn forget_checked(&mut self, key_refs: &[KeyRef]) {
        for key_ref in key_refs {
            self.checked.remove(key_ref);
        }
    }

    /// Two databases of the source changed places, and suspects with them; true when the target's list must follow.
    pub(crate) fn swap_dbs(&mut self, pair: (u32, u32)) -> bool {
        // Little is lost with what was only remembered.
        (self.checked, self.changed_again) = (HashSet::new(), HashSet::new());
        let all = std::mem::take(&mut self.retyped);
        self.retyped = all.into_iter().map(|(db, key)| (swapped_db(db, pair), key)).collect();
        let all = std::mem::take(&mut self.suspects);
        self.suspects = all
            .into_iter()
            .map(|((db, key), always_refetch)| ((swapped_db(db, pair), key), always_refetch))
            .collect();
        self.lists_at_target && self.can_run_scripts && self.is_active()
    }

    fn add_suspect(&mut self, key_ref: KeyRef, always_refetch: bool) {
        if self.suspects.len() >= LOCAL_SUSPECTS_MAX && !self.suspects.contains_key(&key_ref) {
            self.forgotten += 1;
            return;
        }
        *self.suspects.entry(key_ref).or_default() |= always_refetch;
    }
}

/// The command replaces its keys, whatever they were.
pub(crate) fn overwrites_key(name: &[u8], args: &[&[u8]]) -> bool {
    match name {
        b"SET" => !args.iter().skip(3).any(|word| word.eq_ignore_ascii_case(b"KEEPTTL")),
        b"SETEX" | b"PSETEX" | b"SETNX" | b"MSET" | b"MSETNX" | b"GETSET" | b"DEL" | b"UNLINK"
        | b"GETDEL" | b"RESTORE" => true,
        _ => false,
    }
}

/// Of these, the command fails or does nothing when its key has another type, or is not missing.
fn depends_on_value(name: &[u8], args: &[&[u8]]) -> bool {
    match name {
        b"SETNX" | b"MSETNX" | b"GETSET" | b"GETDEL" => true,
        b"RESTORE" => !args.iter().skip(4).any(|word| word.eq_ignore_ascii_case(b"REPLACE")),
        _ => false,
    }
}

/// The command sets a relative expiry, as sources before 7.0 send it.
fn has_relative_expiry(name: &[u8], args: &[&[u8]]) -> bool {
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

/// The command changes the expiry of a key.
fn sets_expiry(name: &[u8]) -> bool {
    matches!(name, b"PEXPIREAT" | b"EXPIREAT" | b"GETEX")
}

/// The command fails when its key is missing or has another type; so do many commands of modules.
fn fails_on_missing_key(name: &[u8]) -> bool {
    matches!(name, b"RENAME" | b"RENAMENX" | b"LSET" | b"XGROUP" | b"XSETID" | b"XCLAIM" | b"XREADGROUP")
        || is_of_module(name)
}

/// The command belongs to a module.
fn is_of_module(name: &[u8]) -> bool {
    name.contains(&b'.')
}

fn is_script(name: &[u8]) -> bool {
    matches!(name, b"EVAL" | b"EVALSHA" | b"FCALL")
}

/// A key of another database that a command writes.
pub(crate) fn other_db_key(name: &[u8], args: &[&[u8]]) -> Option<KeyRef> {
    let key = match name {
        b"MOVE" => args.get(1)?,
        b"COPY" => args.get(2)?,
        _ => return None,
    };
    let db = args.get(*db_arguments(name, args).first()?)?;
    Some((std::str::from_utf8(db).ok()?.parse().ok()?, key.to_vec()))
}

#[cfg(test)]
mod tests;
