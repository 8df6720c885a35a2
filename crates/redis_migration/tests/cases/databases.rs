//! Numbered databases: those that the target lacks, and users that may not select them.

use super::*;

const WIDE: [&str; 2] = ["--databases", "64"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_01_database_missing_at_the_target_changes_no_other() {
    let source = Redis::start("REDIS_7_0", &[&WIDE[..], &["--notify-keyspace-events", "KA"]].concat());
    let target = Redis::start("REDIS_7_0", &[]);
    run(&source, &["SET a right", "SELECT 40", "SET a WRONG", "HSET h f v", "SET ttl x EX 1000"]);
    let failed = refused(migration(&source, &target, Until::CaughtUp).run().await);
    assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{failed}");
    let failed = refused(scan(&source, &target).run().await);
    assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{failed}");
    let failed = refused(import(vec![dump(&source)], &target).await);
    assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{failed}");
    // A typing error in a mapping.
    let mut wrong = migration(&source, &target, Until::CaughtUp);
    wrong.options.route.db_map = [(0, 20)].into();
    assert_eq!(refused(wrong.run().await).op, "databases");
    assert_eq!(target.run("DBSIZE"), Reply::Int(0), "nothing was written");
    // Mapped, everything is copied.
    let mut mapped = migration(&source, &target, Until::CaughtUp);
    mapped.options.route.db_map = [(40, 3)].into();
    assert!(mapped.run().await.unwrap().done);
    assert_eq!(get(&target, "a").as_deref(), Some("right"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_01_red_26_database_first_used_in_the_stream_changes_no_other() {
    for lines in [
        &["SELECT 40", "SET acct 0"][..],
        &["MULTI", "SELECT 40", "SET acct 0", "INCR n", "EXEC"],
        &["MOVE acct 40"],
        &["COPY acct acct DB 40"],
        &["SWAPDB 0 40"],
    ] {
        let (source, target) = (Redis::start("REDIS_7_0", &WIDE), Redis::start("REDIS_7_0", &[]));
        run(&source, &["SET acct 100"]);
        let following = Following::start(migration(&source, &target, Until::Stopped));
        following.streams().await;
        run(&source, lines);
        let failed = refused(following.ended().await);
        assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{lines:?}: {failed}");
        assert_eq!(get(&target, "acct").as_deref(), Some("100"), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_01_red_15_user_without_select_writes_no_other_database() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    run(&target, &["ACL SETUSER mover on >pw ~* &* +@all -select"]);
    run(&source, &["SET a right", "SELECT 1", "SET a WRONG"]);
    let mut at = node(&target);
    (at.user, at.password) = ("mover".into(), "pw".into());
    let failed = refused(migration_at(node(&source), at.clone(), Until::CaughtUp).run().await);
    assert_eq!((failed.kind, failed.op), (Kind::Forbidden, "databases"), "{failed}");
    assert_eq!(target.run("DBSIZE"), Reply::Int(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_03_keys_only_at_the_target_are_extra_in_every_database() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &WIDE));
    let extra = async |depth, map: &[(u32, u32)]| {
        let db_map = map.iter().copied().collect();
        let route = redis_migration::route::Route { db_map, ..Default::default() };
        compare(&node(&source), &node(&target), &route, depth).await.unwrap().extra
    };
    run(&target, &["SET x 1"]);
    for depth in [Depth::Full, Depth::Sample] {
        assert_eq!(extra(depth, &[]).await, 1, "the source is empty");
    }
    run(&source, &["SET x 1"]);
    run(&target, &["SELECT 9", "SET y 1", "SELECT 5", "SET z 1", "SELECT 40", "SET far 1"]);
    assert_eq!(extra(Depth::Full, &[]).await, 3);
    // Database 1 becomes 5.
    assert_eq!(extra(Depth::Full, &[(1, 5), (5, 1)]).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_15_user_limited_to_database_0_sends_no_select() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    for redis in [&source, &target] {
        run(redis, &["ACL SETUSER zero on >pw ~* &* +@all -select"]);
    }
    run(&source, &["SET a 1", "RPUSH l 1 2", "SET dies v PX 900000"]);
    let by = |redis: &Redis| {
        let mut at = node(redis);
        (at.user, at.password) = ("zero".into(), "pw".into());
        at
    };
    let following = Following::start(migration_at(by(&source), by(&target), Until::Stopped));
    following.streams().await;
    run(&source, &["INCR a", "SET dies w PX 900000", "MULTI", "INCR a", "INCR b", "EXEC"]);
    following.wait_caught_up(&source).await;
    following.stop().await;
    run(&source, &["INCR a"]);
    let done = migration_at(by(&source), by(&target), Until::CaughtUp).run().await.unwrap();
    assert!(done.done && done.full_syncs == 0, "{done:?}");
    same(&source, &target).await;
}
