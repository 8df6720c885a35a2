//! What must be true of each key in the end.

use std::collections::BTreeSet;
use std::time::Instant;

use model::error::Kind;
use model::key::Key;
use model::policy::Overwrite;
use model::task::Visible;
use testkit::model::{EtagKind, ModelFault, headers_len};

use crate::scenario::Scenario;
use crate::service::Outcome;

/// What may exceed a limit, bytes: an object that a killed run had on its way.
const BURST_BYTES: f64 = 4096.0;

/// The first thing that is not as it must be.
pub(crate) fn judge(scenario: &Scenario, done: &Outcome) -> Option<String> {
    if done.stuck {
        return Some("a run did not end".into());
    }
    if let Some(wrong) = &done.over_limit {
        return Some(wrong.clone());
    }
    if scenario.source.ends_at.is_some() && done.state != Some(Visible::Succeeded) {
        return nothing_else_touched(scenario, done);
    }
    match (&done.state, &done.error) {
        (Some(Visible::Succeeded), None) => {}
        (Some(Visible::Failed), None) if done.counters.failed.objects > 0 => {}
        (Some(Visible::Failed), Some(error))
            if error.kind == Kind::DeletesTooMuch && scenario.spec.extensions.delete => {}
        other => return Some(format!("it ended as {other:?}")),
    }
    let selected = || scenario.at_source.keys().filter(|key| scenario.selected(key));
    for key in selected() {
        if let Some(wrong) = one(scenario, done, key) {
            return Some(format!("key `{key}`: {wrong}"));
        }
    }
    let missing = scenario.missing();
    if let Some(key) = missing.iter().find(|key| !done.failures.contains_key(key)) {
        return Some(format!("`{key}` is named by the list and missing, and nobody says so"));
    }
    let listed = selected().filter(|key| scenario.listed(key)).count() + missing.len();
    counters(scenario, done, listed as u64)
        .or_else(|| deletions(scenario, done))
        .or_else(|| (done.uploads > 0).then(|| format!("{} uploads are left open", done.uploads)))
        .or_else(|| nothing_to_do_again(scenario, done))
}

fn one(scenario: &Scenario, done: &Outcome, key: &Key) -> Option<String> {
    let (source, target) = (&scenario.source, &scenario.target);
    let (now, there) = (done.source.get(key), done.target.get(key));
    let given = &scenario.at_source[key];
    let before = scenario.at_target.get(key);
    let failed = done.failures.get(key);
    let stays = there.map(|o| &o.bytes[..]) == before.map(|o| &o.bytes[..]);
    if source.unlisted.contains(key) {
        // It is in neither listing, so no key of its name may change.
        return (!stays).then(|| "it is not listed, and was touched at the target".into());
    }
    let broken = source.broken.iter().chain(&target.broken).any(|(k, _)| k == key);
    let broken = broken || target.locked.contains(key);
    let broken = broken || headers_len(&scenario.headers(key)) > target.headers_max;
    if (broken || source.hidden.contains(key)) && !(source.vanishing.contains(key) && now.is_none()) {
        // It is rejected, or skipped by the rule.
        return match (failed, stays, before) {
            (Some(_), true, _) => None,
            (None, true, Some(_)) => None,
            (_, false, _) => Some("something was written though it cannot be".into()),
            (None, true, None) => Some("it is neither there nor named".into()),
        };
    }
    if let Some(failure) = failed {
        // Two wrong answers in a row are a reason.
        let wrong = matches!(failure.kind, Kind::Mismatch | Kind::Corrupt)
            && source.faults.iter().any(|(_, f)| matches!(f, ModelFault::Short | ModelFault::Changed));
        return (!source.changing.contains(key) && !source.vanishing.contains(key) && !wrong)
            .then(|| format!("it has failed without a reason: {:?} {}", failure.kind, failure.message));
    }
    let equals = |bytes: &[u8]| there.is_some_and(|o| o.bytes == bytes);
    let skipped = before.is_some() && stays && may_be_skipped(scenario, key);
    if source.vanishing.contains(key) && now.is_none() {
        let removed = scenario.spec.extensions.delete && there.is_none();
        return (!(equals(&given.bytes) || stays || removed))
            .then(|| "it is neither as it was here nor as it was there".into());
    }
    if there.is_some_and(|o| o.written && o.headers != scenario.headers(key)) {
        return Some(format!("its headers are {:?}", there.map(|o| &o.headers)));
    }
    let is_now = now.is_some_and(|o| equals(&o.bytes));
    let was = source.changing.contains(key) && equals(&given.bytes);
    (!(is_now || was || skipped)).then(|| match there {
        Some(there) => format!("{} bytes stand there, which are not those of the source", there.bytes.len()),
        None => "it is lost".into(),
    })
}

/// Whether the rule may leave a key alone that is not equal.
fn may_be_skipped(scenario: &Scenario, key: &Key) -> bool {
    let (Some(here), Some(there)) = (scenario.at_source.get(key), scenario.at_target.get(key)) else {
        return false;
    };
    let proves = |b: &testkit::model::Behaviour| b.etag == EtagKind::Md5 && b.listed_etags;
    match scenario.spec.overwrite {
        Overwrite::Never => true,
        Overwrite::Newer => {
            let known = proves(&scenario.source) && proves(&scenario.target);
            // By one clock: less than five seconds are no skew.
            let ahead = scenario.target.skew_ms - scenario.source.skew_ms;
            let ahead = if ahead.abs() < 5_000 { 0 } else { ahead };
            here.bytes.len() == there.bytes.len() && here.modified_ms <= there.modified_ms - ahead && !known
        }
        _ => false,
    }
}

/// Whether bytes came faster than a limit: since the beginning of a run never more than it has released. The windows all begin with
/// the run: what a busy machine delays comes later, and cannot make them wrong.
pub(crate) fn over_limit(rate: u64, began: Instant, arrived: &[(Instant, u64)]) -> Option<String> {
    if rate == 0 {
        return None;
    }
    let mut sum = 0;
    for (at, bytes) in arrived {
        sum += bytes;
        let passed = at.saturating_duration_since(began).as_secs_f64();
        let most = rate as f64 * passed + BURST_BYTES;
        if sum as f64 > most {
            let ms = passed * 1000.0;
            return Some(format!("{sum} bytes have arrived within {ms:.1} ms at a limit of {rate} bytes/s"));
        }
    }
    None
}

fn counters(scenario: &Scenario, done: &Outcome, selected: u64) -> Option<String> {
    let c = &done.counters;
    // Removals that failed are named among the failures, in addition to the outcome of the key at the source.
    let removals = done.failures.keys().filter(|key| !done.source.contains_key(key)).count() as u64;
    let settled = c.settled().objects - if scenario.spec.extensions.delete { removals } else { 0 };
    // What vanishes while listings are begun again is not listed again.
    let least = selected - scenario.source.vanishing.iter().filter(|k| scenario.selected(k)).count() as u64;
    if settled > selected || settled < least {
        return Some(format!("{settled} keys are counted of {selected}"));
    }
    let named = done.failures.len() as u64;
    (c.failed.objects != named).then(|| format!("{} failures are counted, {named} named", c.failed.objects))
}

/// What only the target has goes if, and only if, that was asked for and everything else is there.
fn deletions(scenario: &Scenario, done: &Outcome) -> Option<String> {
    let kept: BTreeSet<&Key> = scenario.at_source.keys().collect();
    if let Some(key) = done.removed.iter().find(|key| kept.contains(key) && done.source.contains_key(key)) {
        return Some(format!("`{key}` was removed, and the source has it"));
    }
    let extra = || scenario.at_target.keys().filter(|key| !kept.contains(key));
    for key in extra().filter(|key| !scenario.spec.extensions.delete || !scenario.selected(key)) {
        if done.target.get(key).map(|o| &o.bytes[..]) != Some(&scenario.at_target[key].bytes[..]) {
            return Some(format!("`{key}` does not belong to the task, and was changed"));
        }
    }
    let complete =
        scenario.spec.extensions.delete && done.counters.failed.objects == 0 && done.error.is_none();
    // A removal that fails is a failure too, and ends no other.
    let copies_failed = done.failures.keys().any(|key| done.source.contains_key(key));
    if copies_failed && !done.removed.is_empty() {
        return Some("something was removed though objects have failed".into());
    }
    let left = extra().filter(|key| scenario.selected(key) && done.target.contains_key(key)).count();
    let empty = !scenario.at_source.keys().any(|k| scenario.listed(k) && done.source.contains_key(k));
    let target = &scenario.target;
    let broken = |key: &Key| target.broken.iter().any(|(k, _)| k == key) || target.locked.contains(key);
    if let Some(key) = done.removed.iter().find(|key| target.locked.contains(key)) {
        return Some(format!("`{key}` is locked, and was removed"));
    }
    (complete && !empty && left > 0 && !extra().any(broken) && done.note.is_empty())
        .then(|| format!("{left} keys that the source does not have are left"))
}

/// The source was lost in the middle.
fn nothing_else_touched(scenario: &Scenario, done: &Outcome) -> Option<String> {
    if let Some(key) =
        done.removed.iter().find(|key| scenario.at_source.contains_key(key) && done.source.contains_key(key))
    {
        return Some(format!("`{key}` was removed after the source had vanished"));
    }
    let touched = scenario.at_target.iter().find(|(key, given)| {
        let there = done.target.get(*key).map(|o| &o.bytes[..]);
        let kept = there == Some(&given.bytes[..]);
        let copied = scenario.at_source.get(*key).is_some_and(|s| there == Some(&s.bytes[..]));
        let changed = scenario.source.changing.contains(key);
        let pruned = scenario.spec.extensions.delete && done.removed.contains(*key);
        !(kept || copied || changed || pruned)
    });
    touched.map(|(key, _)| format!("`{key}` is neither as it was nor as the source had it"))
}

fn nothing_to_do_again(scenario: &Scenario, done: &Outcome) -> Option<String> {
    let (again, _) = done.again.as_ref()?;
    let rule = matches!(scenario.spec.overwrite, Overwrite::Never | Overwrite::Newer);
    (rule && again.copied.objects > 0)
        .then(|| format!("a second run copied {} objects", again.copied.objects))
}
