use model::group::GroupKind;
use model::migration::{MigrationKind, MigrationSpec, Phase};
use model::parent::Parent;
use model::spec::TaskSpec;
use model::task::Priority;
use seal::KeyFile;

use super::*;
use crate::{NewMigration, NewTask};

fn spec() -> TaskSpec {
    let spec = r#"{"face":"v2","selection":{"kind":"prefix","entries":[""]},"source":{"region":"r"},"target":{"region":"r"}}"#;
    serde_json::from_str(spec).unwrap()
}

fn task(id: i64) -> NewTask {
    NewTask {
        id,
        project: "p".into(),
        name: format!("t{id}"),
        spec: spec(),
        secrets: format!("secret {id}"),
        priority: Priority::Medium,
        parent: Parent::parse("", ""),
        now: id,
    }
}

/// A store with `tasks` tasks and one row in each other table.
async fn filled(dir: &Path, tasks: i64) -> Store {
    let store = Store::embedded(dir).await.unwrap();
    let mut tx = store.write().await.unwrap();
    for id in 0..tasks {
        tx.insert_task(task(id)).await.unwrap();
    }
    tx.insert_group("g", "p", GroupKind::Prefix, &spec(), "secret g", 1).await.unwrap();
    tx.insert_sync("s", "p", &spec(), "secret s", 1).await.unwrap();
    let migration = NewMigration {
        id: "m".into(),
        project: "p".into(),
        name: String::new(),
        description: String::new(),
        kind: MigrationKind::Online,
        spec: MigrationSpec::default(),
        secrets: "secret m".into(),
        phase: Phase::Loading,
        job: "j".into(),
        now: 1,
    };
    tx.insert_migration(migration).await.unwrap();
    tx.commit().await.unwrap();
    store
}

async fn all_open(store: &Store, tasks: i64) {
    let mut tx = store.read().await.unwrap();
    for id in 0..tasks {
        assert_eq!(tx.task_secrets(id).await.unwrap(), Some(format!("secret {id}")));
    }
    assert_eq!(tx.group_secrets("g").await.unwrap().as_deref(), Some("secret g"));
    assert_eq!(tx.sync_secrets("s").await.unwrap(), "secret s");
    assert_eq!(tx.migration_secrets("m").await.unwrap().as_deref(), Some("secret m"));
}

fn rows(dir: &Path) -> (Vec<(String, u64)>, u64) {
    let keys = KeyFile::lock(dir).unwrap().keyring().unwrap();
    let found = sealed_rows(dir, &keys).unwrap();
    (found.by_key, found.unknown)
}

fn counts(of: &[(&str, u64)]) -> Vec<(String, u64)> {
    of.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

/// The thread that held the database may take a moment to release it.
async fn reopened(dir: &Path) -> Store {
    for _ in 0..500 {
        match Store::embedded(dir).await {
            Err(f) if f.kind == Kind::Conflict => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await
            }
            done => return done.unwrap(),
        }
    }
    panic!("the store is still open")
}

#[tokio::test]
async fn sec_f17_every_table_is_sealed_with_the_new_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), 250).await;
    assert_eq!(store.reseal().await.unwrap(), None, "there is one key only");
    assert!(!store.reload_keys().unwrap());
    let file = KeyFile::lock(dir.path()).unwrap();
    file.add().unwrap();
    assert!(store.reload_keys().unwrap());
    assert_eq!(proof_key(dir.path()).unwrap().as_deref(), Some("k1"));
    let done = store.reseal().await.unwrap();
    assert_eq!(done, Some(Resealed { key: "k2".into(), rows: 253, unreadable: 0 }));
    assert_eq!(store.reseal().await.unwrap(), None);
    assert_eq!(proof_key(dir.path()).unwrap().as_deref(), Some("k2"));
    all_open(&store, 250).await;
    assert_eq!(file.retain(|_| false).unwrap(), ["k1"]);
    drop(file);
    assert!(store.reload_keys().unwrap());
    all_open(&store, 250).await;
    assert_eq!(rows(dir.path()), (counts(&[("k2", 254)]), 0));
    drop(store);
    let store = reopened(dir.path()).await;
    all_open(&store, 250).await;
    assert_eq!(store.reseal().await.unwrap(), None);
}

#[tokio::test]
async fn sec_f17_rotation_waits_for_earlier_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), 1).await;
    let mut early = store.write().await.unwrap();
    early.insert_task(task(1)).await.unwrap();
    // A read that began with the old ring.
    let mut reader = store.read().await.unwrap();
    KeyFile::lock(dir.path()).unwrap().add().unwrap();
    assert!(store.reload_keys().unwrap());
    let working = tokio::spawn({
        let store = store.clone();
        async move { store.reseal().await }
    });
    tokio::task::yield_now().await;
    early.commit().await.unwrap();
    let mut tx = store.write().await.unwrap();
    tx.set_secrets(0, "secret 0").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(reader.task_secrets(0).await.unwrap().as_deref(), Some("secret 0"));
    drop(reader);
    working.await.unwrap().unwrap().unwrap();
    assert_eq!(rows(dir.path()), (counts(&[("k2", 6), ("k1", 0)]), 0));
    all_open(&store, 2).await;
}

#[tokio::test]
async fn sec_f17_rotation_interrupted_at_any_step_continues() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), 3).await;
    // The key was added, and nothing was sealed with it.
    KeyFile::lock(dir.path()).unwrap().add().unwrap();
    drop(store);
    let store = reopened(dir.path()).await;
    all_open(&store, 3).await;
    // Some rows were sealed again.
    let mut tx = store.write().await.unwrap();
    tx.set_secrets(1, "secret 1").await.unwrap();
    tx.commit().await.unwrap();
    drop(store);
    let store = reopened(dir.path()).await;
    all_open(&store, 3).await;
    assert_eq!(rows(dir.path()), (counts(&[("k2", 1), ("k1", 6)]), 0));
    // All rows were sealed again, and the proof was not.
    assert_eq!(store.reseal_pass(&store.keys()).await.unwrap(), (5, 0));
    drop(store);
    let store = reopened(dir.path()).await;
    all_open(&store, 3).await;
    let done = store.reseal().await.unwrap();
    assert_eq!(done, Some(Resealed { key: "k2".into(), rows: 0, unreadable: 0 }));
    assert_eq!(rows(dir.path()), (counts(&[("k2", 7), ("k1", 0)]), 0));
}

#[tokio::test]
async fn sec_f17_key_ring_without_a_needed_key_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), 1).await;
    let path = dir.path().join(seal::FILE);
    let before = std::fs::read_to_string(&path).unwrap();
    // Another key of the same name.
    std::fs::write(&path, format!("k1 {}\n", "A".repeat(43))).unwrap();
    let refused = store.reload_keys().unwrap_err();
    assert!(refused.message.contains("key k1 is missing or different"), "{refused}");
    // The old key is removed before its rows are sealed again.
    std::fs::write(&path, &before).unwrap();
    KeyFile::lock(dir.path()).unwrap().add().unwrap();
    assert!(store.reload_keys().unwrap());
    KeyFile::lock(dir.path()).unwrap().retain(|_| false).unwrap();
    let refused = store.reload_keys().unwrap_err();
    assert!(refused.message.contains("key k1 is missing, but rows"), "{refused}");
    all_open(&store, 1).await;
}

#[tokio::test]
async fn sec_f17_damaged_row_does_not_stop_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), 2).await;
    let mut tx = store.write().await.unwrap();
    tx.tx.execute("UPDATE tasks SET secrets = 'v1:k9:AA:AA' WHERE id = 1", args![]).await.unwrap();
    tx.commit().await.unwrap();
    KeyFile::lock(dir.path()).unwrap().add().unwrap();
    assert!(store.reload_keys().unwrap());
    let done = store.reseal().await.unwrap();
    assert_eq!(done, Some(Resealed { key: "k2".into(), rows: 4, unreadable: 1 }));
    assert_eq!(rows(dir.path()), (counts(&[("k2", 5), ("k1", 0)]), 1));
}
