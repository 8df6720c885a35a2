//! Names that data directories of earlier versions hold: identifiers may change, these may not.

#![allow(clippy::unwrap_used, reason = "a test")]

use model::error::{Kind, Side};
use model::migration::CutoverState;
use model::spec::TaskSpec;

fn stored(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap_or_default().to_owned()
}

#[test]
fn renamed_variants_are_stored_under_their_first_names() {
    assert_eq!(stored(Kind::DeletesTooMuch), "deletes_most");
    assert_eq!(stored(Kind::OutOfOrderListing), "disorder");
    assert_eq!(stored(Kind::InvalidKey), "key_refused");
    assert_eq!(stored(Side::Local), "here");
    for (state, name) in [
        (CutoverState::InProgress, "exchanging"),
        (CutoverState::Committed, "decided"),
        (CutoverState::Done, "exchanged"),
        (CutoverState::Failed, "exchange_failed"),
        (CutoverState::RollingBack, "returning"),
        (CutoverState::RolledBack, "returned"),
        (CutoverState::RollbackFailed, "return_failed"),
    ] {
        assert_eq!(stored(state), name);
        assert_eq!(serde_json::from_value::<CutoverState>(name.into()).unwrap(), state);
    }
}

#[test]
fn stored_task_of_an_earlier_version_is_read_and_written_unchanged() {
    let text = serde_json::json!({
        "face": "v2", "selection": {"kind": "prefix", "entries": ["a/"]}, "source": {"region": "r"},
        "target": {"region": "r"}, "beyond": {"versions": true, "sweep_minutes": 7}
    });
    let spec: TaskSpec = serde_json::from_value(text).unwrap();
    assert!(spec.extensions.versions);
    assert_eq!(spec.extensions.full_scan_interval_minutes, 7);
    let again = serde_json::to_value(&spec).unwrap();
    assert_eq!(again["face"], "v2");
    assert_eq!(again["beyond"]["sweep_minutes"], 7);
}
