//! The responses are parsed as the two formats define them.

use std::collections::HashMap;

use super::*;

fn numbers() -> Numbers {
    let task = |speed, objects| TaskNumbers { speed, objects };
    let stats = MigrationStats { lag_ms: 1_500, full_syncs: 2, target_keys: 7, ..MigrationStats::default() };
    Numbers {
        open_tasks: 3,
        speed: 15.0,
        objects: 42,
        open_migrations: 1,
        tasks: vec![("1".into(), task(5.0, 40)), ("2".into(), task(10.0, 2))],
        migrations: vec![("a\"b\\c".into(), stats)],
    }
}

/// A family as a scraper reads it.
#[derive(Debug, Default)]
struct Parsed {
    kind: String,
    help: String,
    /// Sample name and labels, with the value.
    samples: Vec<(String, f64)>,
}

/// Parses an exposition, and fails where it breaks a rule of the formats: each family once and in one piece, HELP and TYPE
/// before its samples, no sample of another name, no sample twice, `_total` for counters.
fn parse(text: &str) -> HashMap<String, Parsed> {
    let (mut families, mut current) = (HashMap::<String, Parsed>::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            let family = Parsed { help: help.to_owned(), ..Parsed::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} is declared twice");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            let family = families.get_mut(name).expect("HELP stands before TYPE");
            assert!(name == current && family.kind.is_empty() && family.samples.is_empty(), "{line}");
            kind.clone_into(&mut family.kind);
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().unwrap_or_default();
            let family = families.get_mut(&current).expect("a family before its samples");
            let is_counter = family.kind == "counter";
            let bare = if is_counter {
                name.strip_suffix("_total").expect("a counter ends in _total")
            } else {
                name
            };
            assert!([bare, name].contains(&current.as_str()), "`{line}` stands in {current}");
            assert!(!family.samples.iter().any(|(have, _)| have == series), "`{series}` stands twice");
            family.samples.push((series.to_owned(), value.parse().expect("a number")));
        }
    }
    assert!(families.values().all(|f| !f.help.is_empty() && !f.kind.is_empty()), "{families:?}");
    families
}

#[test]
fn prometheus_text_declares_each_family_before_its_samples() {
    let (kind, text) = exposition(numbers(), false);
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let families = parse(&text);
    assert_eq!(families.len(), FAMILIES.len());
    assert_eq!(families["whimbrel_open_tasks"].samples, [("whimbrel_open_tasks".to_owned(), 3.0)]);
    // The older format names the family of a counter like its samples.
    let objects = &families["whimbrel_task_objects_total"];
    assert_eq!(objects.kind, "counter");
    assert_eq!(
        objects.samples,
        [
            ("whimbrel_task_objects_total{task=\"1\"}".to_owned(), 40.0),
            ("whimbrel_task_objects_total{task=\"2\"}".to_owned(), 2.0)
        ]
    );
    let lag = &families["whimbrel_migration_lag_seconds"].samples;
    assert_eq!(lag, &[("whimbrel_migration_lag_seconds{migration=\"a\\\"b\\\\c\"}".to_owned(), 1.5)]);
}

#[test]
fn openmetrics_ends_with_eof_and_names_counters_without_total() {
    let (kind, text) = exposition(numbers(), true);
    assert!(kind.starts_with(OPENMETRICS), "{kind}");
    let families = parse(text.strip_suffix("# EOF\n").expect("# EOF at the end"));
    let syncs = &families["whimbrel_migration_full_syncs"];
    assert_eq!(syncs.kind, "counter");
    assert!(syncs.samples[0].0.starts_with("whimbrel_migration_full_syncs_total{"), "{syncs:?}");
    assert_eq!(families.len(), FAMILIES.len());
}

#[test]
fn metrics_without_tasks_are_complete() {
    let families = parse(&exposition(Numbers::default(), false).1);
    assert_eq!(families.len(), FAMILIES.len());
}

#[test]
fn openmetrics_is_sent_to_clients_that_accept_it() {
    let accepts = |value: &'static str| {
        accepts_openmetrics(&HeaderMap::from_iter([(header::ACCEPT, http::HeaderValue::from_static(value))]))
    };
    assert!(accepts("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"));
    assert!(!accepts("text/plain;version=0.0.4") && !accepts_openmetrics(&HeaderMap::new()));
}

#[test]
fn metrics_page_is_up_to_date() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/generated/metrics.md");
    let have = std::fs::read_to_string(file).unwrap_or_default();
    assert!(page() == have, "docs/generated/metrics.md is out of date; run `cargo x gen`");
}
