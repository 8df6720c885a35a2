//! A defect in the middle of a task fails that task, visibly, and the dispatcher goes on with others.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flow_control::backoff::Backoff;
use model::error::{Error, Kind, Result, Side};
use model::policy::{Check, MetadataRule, Overwrite, StoragePolicy};
use model::selection::Selection;
use model::spec::{ApiVersion, Extensions, Location, TaskSpec};
use model::task::{Priority, Visible};
use runtime::engine::EngineConfig;
use runtime::{Engine, OpenedStore, StoreResolver};
use store::{NewTask, Store, TaskRow};
use tokio_util::sync::CancellationToken;

fn spec() -> TaskSpec {
    TaskSpec {
        api_version: ApiVersion::Cli,
        selection: Selection::Prefix(vec![String::new()]),
        source: Location::default(),
        target: Location::default(),
        save_prefix: String::new(),
        description: String::new(),
        overwrite: Overwrite::Newer,
        check: Check::Digest,
        metadata: MetadataRule::All,
        storage: StoragePolicy::Standard,
        since_ms: 0,
        windows: vec![],
        record_failures: false,
        record_outcomes: false,
        requester_pays: false,
        kms: false,
        restore: false,
        cdn: None,
        notify: None,
        include: vec![],
        exclude: vec![],
        part_size: 0,
        concurrency: 0,
        bandwidth: 0,
        extensions: Extensions::default(),
        echo: serde_json::Map::new(),
    }
}

struct Broken;

#[async_trait]
impl StoreResolver for Broken {
    async fn open(&self, task: &TaskRow, _: &str, _: Side) -> Result<OpenedStore> {
        assert!(task.id != 1, "an assumption that does not hold");
        Err(Error::new(Kind::Invalid, "open", "there is no such place"))
    }
}

#[tokio::test]
async fn task_that_panics_fails_and_the_next_one_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock) = (Store::embedded(dir.path()).await.unwrap(), flow_control::clock::system());
    let engine = Engine::start(EngineConfig {
        store: store.clone(),
        clock: clock.clone(),
        resolver: Arc::new(Broken),
        data_dir: dir.path().to_owned(),
        memory: 64 << 20,
        running_tasks: 1,
        zone_minutes: 0,
        works: true,
        threads: 1,
        backoff: Backoff { attempts: 1, ..Backoff::default() },
    })
    .unwrap();
    let mut tx = store.write().await.unwrap();
    for id in [1, 2] {
        let task = NewTask {
            id,
            project: "p".into(),
            name: format!("t{id}"),
            spec: spec(),
            secrets: "{}".into(),
            priority: Priority::Medium,
            parent: model::parent::Parent::None,
            now: clock.now_ms(),
        };
        tx.insert_task(task).await.unwrap();
    }
    tx.commit().await.unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(engine.serve(stop.clone()));
    let mut changes = store.changes();
    let ended = async {
        loop {
            let mut tx = store.read().await.unwrap();
            let one = tx.task(1).await.unwrap().unwrap();
            let two = tx.task(2).await.unwrap().unwrap();
            drop(tx);
            if [&one, &two].iter().all(|t| t.state.visible() == Visible::Failed) {
                return (one, two);
            }
            let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
        }
    };
    let (one, two) = tokio::time::timeout(Duration::from_secs(30), ended).await.expect("both end");
    let said = one.error.unwrap().message;
    assert!(said.contains("an assumption that does not hold"), "{said}");
    assert!(two.error.unwrap().message.contains("no such place"));
    stop.cancel();
    serving.await.unwrap();
}
