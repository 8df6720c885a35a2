//! Sessions: retries, idle connections, what is reported and removed at the end.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_04_idle_connections_cause_no_second_full_sync() {
    let slow = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "4", "--timeout", "1"];
    let source = Redis::start("REDIS_7_0", &slow);
    let target = Redis::start("REDIS_7_0", &["--timeout", "1"]);
    run(&source, &["SET a 1"]);
    let following = Following::start(migration(&source, &target, Until::Stopped));
    following.streams().await;
    let before = info(&target, "stats", "total_connections_received").unwrap();
    // Nothing is written for longer than the target waits.
    let idle = tokio::time::Instant::now();
    following.until(|_| idle.elapsed() > Duration::from_secs(4)).await;
    run(&source, &["INCR a"]);
    following.wait_caught_up(&source).await;
    let summary = following.stop().await;
    assert_eq!((summary.full_syncs, summary.partial_syncs), (1, 0), "{summary:?}");
    assert_eq!(get(&target, "a").as_deref(), Some("2"));
    // Those of the test itself: two.
    let made = info(&target, "stats", "total_connections_received").unwrap() - before;
    assert!(made <= 4, "{made} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_07_temporary_errors_are_retried() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    run(&source, &["SET a 1"]);
    let following = Following::start(migration(&source, &target, Until::Stopped));
    following.streams().await;
    let used = info(&target, "memory", "used_memory").unwrap();
    for (refuse, allow) in [
        ("CONFIG SET min-replicas-to-write 1".to_owned(), "CONFIG SET min-replicas-to-write 0"),
        (format!("CONFIG SET maxmemory {}", used / 2), "CONFIG SET maxmemory 0"),
    ] {
        target.run(&refuse);
        for i in 0..20 {
            run(&source, &[&format!("SET big{i} {}", "x".repeat(1000)), "INCR n"]);
        }
        // It is refused at least once, and the migration is still there.
        following.until(|p| p.phase.load(std::sync::atomic::Ordering::Relaxed) != 2).await;
        target.run(allow);
        following.streams().await;
        following.wait_caught_up(&source).await;
    }
    let summary = following.stop().await;
    assert_eq!(summary.full_syncs, 1, "{summary:?}");
    same(&source, &target).await;
    assert_eq!(get(&target, "n").as_deref(), Some("40"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_22_migration_keys_can_be_removed() {
    use redis_migration::checkpoint::cleanup::clean;
    let (source, cluster) = (Redis::start("REDIS_7_0", &[]), Cluster::start("REDIS_7_0", 3, false, &[]));
    for i in 0..50 {
        source.run(&format!("SET k{i} {i}"));
    }
    let target = node(&cluster.servers[0]);
    let left = |cluster: &Cluster| -> usize {
        cluster.servers.iter().map(|s| s.run("KEYS whimbrel:*").array().unwrap().len()).sum()
    };
    let following = Following::start(migration(&source, &cluster.servers[0], Until::Stopped));
    following.streams().await;
    for i in 0..50 {
        source.run(&format!("INCR k{i}"));
    }
    following.wait_caught_up(&source).await;
    let busy = clean(&target, false).await.unwrap_err();
    assert_eq!((busy.kind, busy.op), (Kind::Conflict, "clean"));
    following.stop().await;
    let before = left(&cluster);
    assert!(before > 0);
    assert_eq!(clean(&target, false).await.unwrap(), before as u64);
    assert_eq!(left(&cluster), 0);
    same(&source, &cluster.servers[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_21_rejected_value_reports_what_was_written() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    for i in 0..2000 {
        source.run(&format!("SET k{i} v"));
    }
    // The target may take everything but one type.
    source.run("ZADD ranked 1 a");
    run(&target, &["ACL SETUSER some on nopass ~* &* +@all -restore -zadd -rpush"]);
    let mut at = node(&target);
    (at.user, at.password) = ("some".into(), "any".into());
    let failure = refused(migration_at(node(&source), at, Until::CaughtUp).run().await);
    assert!(
        failure.message.contains("ranked") || failure.message.contains("keys of the snapshot"),
        "{failure}"
    );
    assert!(target.run("DBSIZE").number().unwrap_or(0) > 0, "{failure}");
}
