use super::*;
use model::count::Counters;

#[test]
fn extra_object_round_trips_through_the_ledger() {
    let one = ExtraObject { key: Key::new(*b"a\0\xff"), size: 1 << 40 };
    assert_eq!(ExtraObject::from_ledger(&one.to_ledger()), Some(one));
    assert_eq!(ExtraObject::from_ledger(&Key::from("short")), None);
}

#[test]
fn scope_without_source_keys_is_not_pruned() {
    let row = |id, prefix: &str, objects| RangeRow {
        id,
        pass: Pass::Copy,
        scope: Scope::Prefix(prefix.into()),
        upto: None,
        cursor: Key::default(),
        ahead: vec![],
        done: true,
        counters: Counters { skipped: Tally { objects, bytes: 0 }, ..Counters::default() },
        fence: 1,
    };
    let copied = [row(1, "photos/", 1), row(2, "photo/", 0)];
    assert!(copied_anything(&copied, &Scope::Prefix("photos/".into())));
    assert!(!copied_anything(&copied, &Scope::Prefix("photo/".into())));
    assert!(!copied_anything(&[], &Scope::Prefix(String::new())));
    assert!(copied_anything(&[row(-1, "", 3)], &Scope::Prefix("photo/".into())));
}
