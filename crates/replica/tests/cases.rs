//! One test for each case that public bug reports of other tools led to; each carries the id of its case.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::failure::{Failure, Kind, Result};
use redis_proto::resp::Reply;
use replica::file::Import;
use replica::scan::Scan;
use replica::verify::{Depth, compare};
use replica::{Mover, Options, Summary, Until};
use testkit::redis::{Cluster, Redis};
use tokio_util::sync::CancellationToken;

use crate::support::{Following, mover, mover_at, node, same};

const WIDE: [&str; 2] = ["--databases", "64"];

/// Runs lines on one connection.
fn run(redis: &Redis, lines: &[&str]) {
    let mut client = redis.connect();
    for line in lines {
        let reply = client.run(line);
        assert!(!matches!(reply, Reply::Error(_)), "{line}: {reply:?}");
    }
}

fn get(redis: &Redis, key: &str) -> Option<String> {
    redis.run(&format!("GET {key}")).text().map(|t| String::from_utf8_lossy(t).into_owned())
}

fn info(redis: &Redis, section: &str, name: &str) -> Option<i64> {
    let text = redis.run(&format!("INFO {section}"));
    let text = String::from_utf8_lossy(text.text().unwrap()).into_owned();
    text.lines().find_map(|l| l.strip_prefix(&format!("{name}:"))?.trim().parse().ok())
}

fn scan(source: &Redis, target: &Redis) -> Scan {
    Scan {
        source: node(source),
        target: node(target),
        options: Options { until: Until::CaughtUp, ..mover(source, target, Until::Full).options.clone() },
        clock: pace::clock::system(),
        progress: Arc::default(),
        stop: CancellationToken::new(),
    }
}

/// Imports files.
pub(crate) async fn import(files: Vec<PathBuf>, target: &Redis) -> Result<Summary> {
    import_with(files, target, mover(target, target, Until::Full)).await
}

async fn import_with(files: Vec<PathBuf>, target: &Redis, like: Mover) -> Result<Summary> {
    let import = Import {
        files,
        target: node(target),
        options: like.options,
        clock: pace::clock::system(),
        progress: Arc::default(),
        stop: CancellationToken::new(),
    };
    import.run().await
}

/// A dump of a server.
fn dump(redis: &Redis) -> PathBuf {
    assert_eq!(redis.run("SAVE"), Reply::Simple("OK".into()));
    redis.dir().join("dump.rdb")
}

fn refused(done: Result<Summary>) -> Failure {
    done.expect_err("it was refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_01_a_database_that_the_target_does_not_have_changes_no_other() {
    let source = Redis::start("REDIS_7_0", &[&WIDE[..], &["--notify-keyspace-events", "KA"]].concat());
    let target = Redis::start("REDIS_7_0", &[]);
    run(&source, &["SET a right", "SELECT 40", "SET a WRONG", "HSET h f v", "SET ttl x EX 1000"]);
    let failed = refused(mover(&source, &target, Until::CaughtUp).run().await);
    assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{failed}");
    let failed = refused(scan(&source, &target).run().await);
    assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{failed}");
    let failed = refused(import(vec![dump(&source)], &target).await);
    assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{failed}");
    // A typing error in a mapping.
    let mut wrong = mover(&source, &target, Until::CaughtUp);
    wrong.options.route.db_map = [(0, 20)].into();
    assert_eq!(refused(wrong.run().await).op, "databases");
    assert_eq!(target.run("DBSIZE"), Reply::Int(0), "nothing was written");
    // Mapped, everything is copied.
    let mut mapped = mover(&source, &target, Until::CaughtUp);
    mapped.options.route.db_map = [(40, 3)].into();
    assert!(mapped.run().await.unwrap().done);
    assert_eq!(get(&target, "a").as_deref(), Some("right"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_01_red_26_a_database_that_comes_late_changes_no_other() {
    for lines in [
        &["SELECT 40", "SET acct 0"][..],
        &["MULTI", "SELECT 40", "SET acct 0", "INCR n", "EXEC"],
        &["MOVE acct 40"],
        &["COPY acct acct DB 40"],
        &["SWAPDB 0 40"],
    ] {
        let (source, target) = (Redis::start("REDIS_7_0", &WIDE), Redis::start("REDIS_7_0", &[]));
        run(&source, &["SET acct 100"]);
        let following = Following::start(mover(&source, &target, Until::Stopped));
        following.streams().await;
        run(&source, lines);
        let failed = refused(following.ended().await);
        assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{lines:?}: {failed}");
        assert_eq!(get(&target, "acct").as_deref(), Some("100"), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_01_red_15_a_user_that_may_not_select_writes_into_no_other_database() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    run(&target, &["ACL SETUSER mover on >pw ~* &* +@all -select"]);
    run(&source, &["SET a right", "SELECT 1", "SET a WRONG"]);
    let mut at = node(&target);
    (at.user, at.password) = ("mover".into(), "pw".into());
    let failed = refused(mover_at(node(&source), at.clone(), Until::CaughtUp).run().await);
    assert_eq!((failed.kind, failed.op), (Kind::Forbidden, "databases"), "{failed}");
    assert_eq!(target.run("DBSIZE"), Reply::Int(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_25_messages_never_reach_the_target() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let following = Following::start(mover(&source, &target, Until::Stopped));
    following.streams().await;
    run(
        &source,
        &["PUBLISH __sentinel__:hello x", "SPUBLISH channel x", "MULTI", "PUBLISH a b", "INCR n", "EXEC"],
    );
    following.level(&source).await;
    following.stop().await;
    assert_eq!(get(&target, "n").as_deref(), Some("1"));
    let stats = target.run("INFO commandstats");
    let stats = String::from_utf8_lossy(stats.text().unwrap()).into_owned();
    assert!(!stats.contains("publish"), "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_02_a_cluster_is_looked_at_whole_whoever_names_it() {
    let source = Cluster::start("REDIS_7_0", 3, false, &[]);
    let target = Redis::start("REDIS_7_0", &[]);
    let mut held = 0;
    for i in 0..60 {
        let key = format!("k{i}");
        let server = usize::from(redis_proto::command::slot(key.as_bytes())) * 3 / 16384;
        if server != 0 {
            source.servers[server].run(&format!("SET {key} {i}"));
            held += 1;
        }
    }
    // The server that is named holds no key.
    let named = node(&source.servers[0]);
    let mut by_scan = scan(&source.servers[0], &target);
    by_scan.options.until = Until::Full;
    assert!(by_scan.run().await.unwrap().done);
    assert_eq!(target.run("DBSIZE"), Reply::Int(held));
    let route = Default::default();
    let compared = compare(&named, &node(&target), &route, Depth::Full).await.unwrap();
    assert!(compared.same() && i64::try_from(compared.keys).unwrap() == held, "{compared:?}");
    target.run("FLUSHALL");
    let compared = compare(&named, &node(&target), &route, Depth::Full).await.unwrap();
    assert_eq!(i64::try_from(compared.missing).unwrap(), held, "{compared:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_03_what_only_the_target_has_is_extra_in_every_database() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &WIDE));
    let extra = async |depth, map: &[(u32, u32)]| {
        let db_map = map.iter().copied().collect();
        let route = replica::route::Route { db_map, ..Default::default() };
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
async fn red_04_idle_connections_cost_no_snapshot() {
    let slow = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "4", "--timeout", "1"];
    let source = Redis::start("REDIS_7_0", &slow);
    let target = Redis::start("REDIS_7_0", &["--timeout", "1"]);
    run(&source, &["SET a 1"]);
    let following = Following::start(mover(&source, &target, Until::Stopped));
    following.streams().await;
    let before = info(&target, "stats", "total_connections_received").unwrap();
    // Nothing is written for longer than the target waits.
    let idle = tokio::time::Instant::now();
    following.until(|_| idle.elapsed() > Duration::from_secs(4)).await;
    run(&source, &["INCR a"]);
    following.level(&source).await;
    let summary = following.stop().await;
    assert_eq!((summary.full_syncs, summary.partial_syncs), (1, 0), "{summary:?}");
    assert_eq!(get(&target, "a").as_deref(), Some("2"));
    // Those of the test itself: two.
    let made = info(&target, "stats", "total_connections_received").unwrap() - before;
    assert!(made <= 4, "{made} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_07_what_passes_is_waited_out() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    run(&source, &["SET a 1"]);
    let following = Following::start(mover(&source, &target, Until::Stopped));
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
        // It is refused at least once, and the mover is still there.
        following.until(|p| p.phase.load(std::sync::atomic::Ordering::Relaxed) != 2).await;
        target.run(allow);
        following.streams().await;
        following.level(&source).await;
    }
    let summary = following.stop().await;
    assert_eq!(summary.full_syncs, 1, "{summary:?}");
    same(&source, &target).await;
    assert_eq!(get(&target, "n").as_deref(), Some("40"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_27_a_user_without_a_password_is_the_user_that_was_named() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    run(
        &source,
        &["SET a 1", "ACL SETUSER free on nopass ~* &* +@all", "ACL SETUSER weak on nopass ~* &* +ping"],
    );
    let named = |user: &str| {
        let mut at = node(&source);
        at.user = user.into();
        mover_at(at, node(&target), Until::CaughtUp)
    };
    assert_eq!(refused(named("weak").run().await).kind, Kind::Forbidden);
    assert!(named("free").run().await.unwrap().done);
}
