use super::*;
use crate::Store;

#[tokio::test]
async fn f4_lost_migration_lease_allows_no_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::embedded(dir.path()).await.unwrap();
    let mut tx = store.write().await.unwrap();
    let made = NewMigration {
        id: "m".into(),
        project: "p".into(),
        name: String::new(),
        description: String::new(),
        kind: MigrationKind::Online,
        spec: MigrationSpec::default(),
        secrets: "{}".into(),
        phase: Phase::Loading,
        job: "j".into(),
        now: 1,
    };
    tx.insert_migration(made).await.unwrap();
    let first = tx.claim_migration("m", "one", 1, 10).await.unwrap().unwrap();
    tx.hold_migration("m", first).await.unwrap();
    // The first worker is late, and another one claims the migration.
    let second = tx.claim_migration("m", "two", 11, 20).await.unwrap().unwrap();
    let lost = tx.hold_migration("m", first).await.unwrap_err();
    assert_eq!(lost.kind, Kind::LeaseLost);
    assert!(!tx.release_migration("m", first).await.unwrap());
    tx.hold_migration("m", second).await.unwrap();
    // A lease that was ended for a worker is not given back by it.
    tx.end_migration_leases().await.unwrap();
    assert_eq!(tx.hold_migration("m", second).await.unwrap_err().kind, Kind::LeaseLost);
    assert!(!tx.release_migration("m", second).await.unwrap());
}
