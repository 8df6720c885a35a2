use store::NewMigration;

use super::*;
use redis_migration::Node;
use redis_migration::route::Route;
use std::collections::BTreeMap;
use store::MigrationRow;

async fn engine(dir: &std::path::Path) -> Arc<Engine> {
    let engine = crate::test_support::engine(dir).await;
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
    let mut tx = engine.store.write().await.unwrap();
    tx.insert_migration(made).await.unwrap();
    tx.commit().await.unwrap();
    engine
}

async fn claim(engine: &Arc<Engine>, owner: &str, now: i64) -> (i64, MigrationRow) {
    let mut tx = engine.store.write().await.unwrap();
    let fence = tx.claim_migration("m", owner, now, now + 10).await.unwrap().unwrap();
    let row = tx.migration("m").await.unwrap().unwrap();
    tx.commit().await.unwrap();
    (fence, row)
}

#[tokio::test]
async fn f4_worker_without_lease_writes_no_migration_state() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path()).await;
    let (fence, row) = claim(&engine, "one", 1).await;
    let running =
        RunningMigration { project: "p".into(), progress: Arc::default(), stop: CancellationToken::new() };
    let mut late = LeasedMigration {
        engine: &engine,
        id: "m",
        fence,
        running: &running,
        row,
        secrets: EndSecrets::default(),
        redirects: vec![],
        renewed: Instant::now(),
    };
    late.log(MessageCode::CaughtUp, &[]).await.unwrap();
    claim(&engine, "two", 12).await;
    let lost = |done: Result<()>| assert_eq!(done.unwrap_err().kind, Kind::LeaseLost);
    lost(late.log(MessageCode::CaughtUp, &[]).await);
    lost(late.apply(MigrationEvent::Finished).await);
    let mut last = rate_sample(&running.progress);
    lost(late.save_statistics(&mut last, 0).await.map(drop));
    // Neither end is touched by a cut-over that is another worker's now.
    lost(cutover::abort(&mut late, "it is too late").await);
    lost(cutover::finish(&mut late).await);
    lost(cutover::roll_back(&mut late).await);
    let mut tx = engine.store.read().await.unwrap();
    let row = tx.migration("m").await.unwrap().unwrap();
    assert_eq!((row.state.phase, row.error), (Phase::Loading, None));
    assert_eq!(tx.migration_logs("m", "", 0, 10).await.unwrap().1, 1);
}

#[test]
fn migration_identity_is_stable() {
    let (source, target) = (Node::parse("redis://a:1/3").unwrap(), Node::parse("rediss://b:2,c:3").unwrap());
    let route = Route { only_db: Some(3), db_map: BTreeMap::from([(3, 4)]), ..Route::default() };
    assert_eq!(names("id", &source, &target, &route).id, "id:a5700046");
    assert_eq!(names("id", &target, &source, &Route::default()).id, "id:323be3ba");
}
