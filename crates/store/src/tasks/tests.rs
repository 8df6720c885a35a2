use super::*;
use crate::Store;
use model::count::Tally;

#[tokio::test]
async fn sec_f18_task_page_reads_only_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::embedded(dir.path()).await.unwrap();
    let mut tx = store.write().await.unwrap();
    let spec = r#"{"face":"v2","selection":{"kind":"prefix","entries":[""]},"source":{"region":"r"},"target":{"region":"r"}}"#;
    for id in 0..300i64 {
        let project = if id % 3 == 0 { "other" } else { "mine" };
        let sql = "INSERT INTO tasks (id, project, name, spec, priority, desired, observed, created_at, queued_at) \
                       VALUES ($1, $2, $3, $4, 1, 'run', 'succeeded', $1, $1)";
        tx.tx.execute(sql, args![id, project, format!("task%{id}"), spec]).await.unwrap();
        let sql = "INSERT INTO ranges (task_id, id, pass, scope, cursor, ahead, copied, copied_bytes) \
                       VALUES ($1, $2, 'copy', '', $3, $3, 2, 10)";
        for range in 0..2i64 {
            tx.tx.execute(sql, args![id, range, Vec::<u8>::new()]).await.unwrap();
        }
    }
    let filter = TaskFilter { project: "mine".into(), ..TaskFilter::default() };
    let (page, total) = tx.list_tasks(&filter, 10, 5).await.unwrap();
    assert_eq!(total, 200);
    assert_eq!(page.iter().map(|t| t.id).collect::<Vec<_>>(), [284, 283, 281, 280, 278]);
    assert!(page.iter().all(|t| t.counters.copied == Tally { objects: 4, bytes: 20 }));
    let named = TaskFilter { name_part: "%29".into(), ..filter };
    assert_eq!(tx.list_tasks(&named, 0, 50).await.unwrap().1, 8, "29 and 290 to 299, two thirds of them");
    // Nothing is looked through from end to end but what a subquery has chosen.
    let is_inner = |step: &str| matches!(step, "SCAN c" | "SCAN s");
    for sql in [list_sql(), count_sql()] {
        let plan: &'static str = Box::leak(format!("EXPLAIN QUERY PLAN {sql}").into_boxed_str());
        let rows = tx.tx.query(plan, args!["mine", "", "%%", "", 5u64, 0u64]).await.unwrap();
        let steps: Vec<String> = rows.iter().map(|r| r.text(3).unwrap().to_owned()).collect();
        assert!(
            !steps.is_empty() && steps.iter().all(|s| !s.starts_with("SCAN") || is_inner(s)),
            "{steps:?}"
        );
        assert!(steps.iter().any(|s| s.contains("COVERING INDEX tasks_by_project")), "{steps:?}");
    }
}

#[tokio::test]
async fn resume_goes_on_with_the_run_and_its_failures() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::Store::embedded(dir.path()).await.unwrap();
    let mut tx = store.write().await.unwrap();
    let spec = r#"{"face":"v2","selection":{"kind":"prefix","entries":[""]},"source":{"region":"r"},"target":{"region":"r"}}"#;
    let task = NewTask {
        id: 1,
        project: "p".into(),
        name: "t".into(),
        spec: serde_json::from_str(spec).unwrap(),
        secrets: "{}".into(),
        priority: Priority::Medium,
        parent: Parent::None,
        now: 10,
    };
    tx.insert_task(task).await.unwrap();
    let began = async |tx: &mut StoreTx| tx.task(1).await.unwrap().unwrap().run_began_at;
    assert_eq!(began(&mut tx).await, 10);
    tx.mark_started(1, 20).await.unwrap();
    tx.reset_task(1, true, true, 30).await.unwrap();
    assert_eq!(began(&mut tx).await, 10, "a resume is of the same run");
    tx.reset_task(1, true, false, 40).await.unwrap();
    assert_eq!(began(&mut tx).await, 40, "a start from the beginning is another run");
}

#[tokio::test]
async fn h1_long_spec_is_read_for_its_task_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::Store::embedded(dir.path()).await.unwrap();
    let mut tx = store.write().await.unwrap();
    let spec = r#"{"face":"v2","selection":{"kind":"object","entries":[]},"source":{"region":"r"},"target":{"region":"r"}}"#;
    let mut spec: TaskSpec = serde_json::from_str(spec).unwrap();
    let keys: Vec<String> = (0..500).map(|i| format!("{i:04}{}", "k".repeat(1000))).collect();
    spec.selection = model::selection::Selection::Object(keys);
    let task = NewTask {
        id: 1,
        project: "p".into(),
        name: "t".into(),
        spec: spec.clone(),
        secrets: "{}".into(),
        priority: Priority::Medium,
        parent: Parent::None,
        now: 10,
    };
    tx.insert_task(task).await.unwrap();
    tx.insert_group("g", "p", model::group::GroupKind::Prefix, &spec, "{}", 10).await.unwrap();
    let filter = TaskFilter { project: "p".into(), ..TaskFilter::default() };
    let listed = tx.list_tasks(&filter, 0, 10).await.unwrap().0.remove(0);
    let bytes: usize = listed.spec.selection.entries().iter().map(String::len).sum();
    assert!(bytes > 0 && bytes <= crate::LISTED_KEYS_BYTES, "{bytes} bytes of keys are listed");
    let group = tx.list_groups("p", None, 0, 10).await.unwrap().0.remove(0);
    assert_eq!(group.spec.selection, listed.spec.selection);
    spec.windows = vec![model::policy::Window { start: 0, end: 9, max_bandwidth: 1 << 20 }];
    tx.set_spec(1, &spec).await.unwrap();
    tx.set_group_spec("g", &spec).await.unwrap();
    assert_eq!(tx.task(1).await.unwrap().unwrap().spec, spec);
    assert_eq!(tx.group_of("p", "g").await.unwrap().spec, spec);
    tx.delete_task(1).await.unwrap();
    tx.delete_group("g").await.unwrap();
    let left = tx.tx.query("SELECT COUNT(*) FROM long_specs", vec![]).await.unwrap();
    assert_eq!(left[0].int(0).unwrap(), 0);
}

#[tokio::test]
async fn pages_of_tasks_follow_each_other_and_counts_match() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::embedded(dir.path()).await.unwrap();
    let mut tx = store.write().await.unwrap();
    for id in 0..30i64 {
        let spec = format!(
            r#"{{"face":"v2","selection":{{"kind":"prefix","entries":[""]}},"source":{{"region":"r","bucket":"Photos{id}"}},"target":{{"region":"r","bucket":"to"}}}}"#
        );
        let observed = if id % 2 == 0 { "succeeded" } else { "running" };
        let desired = if id % 4 == 3 { "pause" } else { "run" };
        let sql = "INSERT INTO tasks (id, project, name, spec, priority, desired, observed, created_at, queued_at) \
                       VALUES ($1, 'mine', $2, $3, 1, $4, $5, $6, $6)";
        // Three tasks have the same instant.
        tx.tx
            .execute(sql, args![1000 + id, format!("task_{id}"), spec, desired, observed, id / 3])
            .await
            .unwrap();
    }
    let mut seen = Vec::new();
    let mut filter = TaskPageFilter { project: "mine".into(), ..TaskPageFilter::default() };
    loop {
        let page = tx.task_page(&filter, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.after = Some((last.created_at, last.id));
        seen.extend(page.iter().map(|t| t.id));
    }
    assert_eq!(seen, (1000..1030).rev().collect::<Vec<_>>(), "each once, newest first");
    let found = |text: &str, states: Vec<(Option<Desired>, Observed)>| TaskPageFilter {
        project: "mine".into(),
        text: text.into(),
        states,
        after: None,
    };
    for (text, states, want) in [
        ("TASK_2", vec![], 11),
        ("task%", vec![], 0),
        ("102", vec![], 10),
        ("photos1", vec![], 11),
        ("hotos1", vec![], 0),
        ("", vec![(Some(Desired::Run), Observed::Running)], 8),
        ("", vec![(None, Observed::Running)], 15),
    ] {
        let page = tx.task_page(&found(text, states), 50).await.unwrap();
        assert_eq!(page.len(), want, "{text}");
    }
    let counts = tx.task_counts("mine").await.unwrap();
    assert_eq!(counts.iter().map(|(_, n)| n).sum::<u64>(), 30);
    let pausing = Lifecycle { desired: Desired::Pause, observed: Observed::Running };
    assert!(counts.contains(&(pausing, 7)), "{counts:?}");
}
