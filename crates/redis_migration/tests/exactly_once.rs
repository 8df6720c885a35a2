//! Nothing is lost and nothing is done twice, whatever breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis_migration::Until;
use redis_migration::checkpoint::keys::KeyNames;
use redis_proto::resp::Reply;
use testkit::redis::Redis;

use crate::support::{Following, migration, same};

/// Counters, lists and streams that grow until told to stop; answers how many rounds were done.
fn writer(port: u16, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut to = testkit::redis::Connection::to(port);
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut out = Vec::new();
            let (db, n) = ((rounds % 3).to_string(), rounds.to_string());
            for args in [
                &[b"SELECT".as_slice(), db.as_bytes()][..],
                &[b"INCR", b"counter"],
                &[b"MULTI"],
                &[b"LPUSH", b"list", n.as_bytes()],
                &[b"INCRBY", b"sum", n.as_bytes()],
                &[b"EXEC"],
                &[b"XADD", b"stream", b"*", b"n", n.as_bytes()],
            ] {
                redis_proto::resp::command(&mut out, args);
            }
            for reply in to.many(&out, 7) {
                assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
            }
            rounds += 1;
        }
        rounds
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_is_applied_once_through_stops_and_cut_connections() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = writer(source.port, stop.clone());
    let (mut fulls, mut partials) = (0, 0);
    for round in 0..8 {
        let following = Following::start(migration(&source, &target, Until::Stopped));
        following.streams().await;
        let seen = following.progress.commands.load(Ordering::Relaxed);
        following.until(|p| p.commands.load(Ordering::Relaxed) > seen + 500).await;
        if round % 2 == 0 {
            // The source hangs up; the migration goes on by itself.
            source.run("CLIENT KILL TYPE replica");
            following.until(|p| p.phase.load(Ordering::Relaxed) != 2).await;
            following.streams().await;
        }
        if round % 3 == 1 {
            // So does the target.
            target.run("CLIENT KILL TYPE normal SKIPME yes");
            following.until(|p| p.phase.load(Ordering::Relaxed) != 2).await;
            following.streams().await;
        }
        let summary = following.stop().await;
        fulls += summary.full_syncs;
        partials += summary.partial_syncs;
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = writer.join().unwrap();
    let last = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert!(last.done);
    assert_eq!((fulls, last.full_syncs), (1, 0), "one snapshot in all");
    assert!(partials >= 7 && rounds > 100, "{partials} {rounds}");
    same(&source, &target).await;
    let mut total = 0;
    for db in 0..3 {
        let mut client = target.connect();
        client.run(&format!("SELECT {db}"));
        let value =
            client.run("GET counter").text().and_then(|t| std::str::from_utf8(t).ok()?.parse::<u64>().ok());
        total += value.unwrap();
        assert_eq!(client.run("LLEN list").number(), client.run("XLEN stream").number());
    }
    assert_eq!(total, rounds);
}

/// A migration that ends without a word: what its transactions say at the target is all that is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_migration_loses_and_repeats_nothing() {
    let (source, target) = (Redis::start("VALKEY_9_1", &[]), Redis::start("VALKEY_9_1", &[]));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = writer(source.port, stop.clone());
    let mut random = fastrand::Rng::with_seed(5);
    for round in 0..8 {
        let one = migration(&source, &target, Until::Stopped);
        let progress = one.progress.clone();
        let task = tokio::spawn(async move { one.run().await });
        while round == 0 && progress.phase.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(random.u64(20..250))).await;
        task.abort();
        let _ = task.await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let last = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert_eq!((last.full_syncs, last.partial_syncs), (0, 1));
    same(&source, &target).await;
}

/// The target stands still under writes: the source keeps nothing back for us, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_target_keeps_source_output_buffers_small() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let following = Following::start(migration(&source, &target, Until::Stopped));
    following.streams().await;
    target.freeze(true);
    let mut to = source.connect();
    let value = vec![b'v'; 1000];
    for i in 0..100_000u32 {
        let mut out = Vec::new();
        redis_proto::resp::command(&mut out, &[b"SET", format!("k{i}").as_bytes(), &value]);
        to.many(&out, 1);
        if i % 10_000 == 9_999 {
            let clients = source.run("CLIENT LIST TYPE replica");
            let text = String::from_utf8_lossy(clients.text().unwrap()).into_owned();
            let held =
                text.split(' ').find_map(|w| w.strip_prefix("omem=")).and_then(|n| n.parse::<u64>().ok());
            assert!(held.unwrap() < 64 << 20, "{text}");
        }
    }
    target.freeze(false);
    let bytes = following.progress.stream_bytes.load(Ordering::Relaxed);
    following.wait_caught_up(&source).await;
    following.stop().await;
    assert!(bytes < 1 << 30);
    same(&source, &target).await;
}

/// A snapshot that broke off leaves nothing behind that the next one would not write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_full_sync_is_repeated() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    source.run("DEBUG POPULATE 100000 key 200");
    let one = migration(&source, &target, Until::CaughtUp);
    let task = tokio::spawn(async move { one.run().await });
    while target.run("DBSIZE").number().unwrap_or(0) < 1000 {
        assert!(!task.is_finished(), "the snapshot was over too soon");
        tokio::task::yield_now().await;
    }
    task.abort();
    let _ = task.await;
    for i in 0..50_000 {
        source.run(&format!("DEL key:{i}"));
    }
    let summary = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert_eq!(summary.full_syncs, 1);
    same(&source, &target).await;
}

/// Two runs of one migration at the same moment: the one that begins last holds the token, and nothing is made twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_concurrent_migrations_repeat_nothing() {
    for _ in 0..3 {
        let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
        let stop = Arc::new(AtomicBool::new(false));
        let writer = writer(source.port, stop.clone());
        let migrations: Vec<_> = (0..2).map(|_| migration(&source, &target, Until::Stopped)).collect();
        let ends: Vec<_> = migrations.iter().map(|m| m.stop.clone()).collect();
        let progress: Vec<_> = migrations.iter().map(|m| m.progress.clone()).collect();
        let mut tasks: Vec<_> =
            migrations.into_iter().map(|m| tokio::spawn(async move { m.run().await })).collect();
        while tasks.iter().all(|t| !t.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let over = tasks.iter().position(tokio::task::JoinHandle::is_finished).unwrap();
        let failure = tasks.remove(over).await.unwrap().unwrap_err();
        assert_eq!(failure.kind, model::error::Kind::Conflict, "{failure}");
        // The other migration goes on.
        let applied = &progress[1 - over].applied;
        let (seen, began) = (applied.load(Ordering::Relaxed), std::time::Instant::now());
        while applied.load(Ordering::Relaxed) == seen {
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", progress[1 - over]);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ends.iter().for_each(tokio_util::sync::CancellationToken::cancel);
        tasks.remove(0).await.unwrap().unwrap();
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        migration(&source, &target, Until::CaughtUp).run().await.unwrap();
        same(&source, &target).await;
    }
}

/// A target that somebody else has written to: what cannot be applied ends the migration, for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_rejected_by_the_target_ends_the_migration_for_good() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    source.run("SET a 1");
    migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    target.run("SET l text");
    source.run("LPUSH l x");
    for said in ["WRONGTYPE", "an earlier run failed"] {
        let failure = migration(&source, &target, Until::CaughtUp).run().await.unwrap_err();
        assert!(failure.message.contains(said), "{failure}");
    }
}

/// A server as its authors deliver it lets replicas wait, and sends signs of life meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_with_diskless_sync_delay_is_waited_for() {
    let delay = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "2"];
    let (source, target) = (Redis::start("REDIS_7_0", &delay), Redis::start("REDIS_7_0", &[]));
    source.run("SET a 1");
    assert!(migration(&source, &target, Until::CaughtUp).run().await.unwrap().done);
    same(&source, &target).await;
}

/// A server must not be copied onto itself, by whatever name, nor onto its own replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_and_target_on_one_server_are_rejected() {
    let (source, replica) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    replica.run(&format!("REPLICAOF 127.0.0.1 {}", source.port));
    while !String::from_utf8_lossy(replica.run("INFO replication").text().unwrap()).contains("link_status:up")
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let named = redis_migration::Node::parse(&format!("redis://localhost:{}", source.port)).unwrap();
    for from in [named, crate::support::node(&replica)] {
        let one = crate::support::migration_at(from, crate::support::node(&source), Until::CaughtUp);
        assert_eq!(one.run().await.unwrap_err().kind, model::error::Kind::Invalid);
    }
}

/// Two names of one place are two migrations, but only one of them may go on from a position.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_name_of_a_server_repeats_nothing() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let named = |name: &str, until| {
        let mut one = migration(&source, &target, until);
        one.names = KeyNames::new(name);
        one
    };
    source.run("SET n 0");
    assert!(named("a", Until::CaughtUp).run().await.unwrap().done);
    source.run("INCRBY n 5");
    source.run("LPUSH l a");
    assert_eq!(named("b", Until::CaughtUp).run().await.unwrap().full_syncs, 1);
    source.run("INCR n");
    let again = named("a", Until::CaughtUp).run().await.unwrap();
    assert_eq!((again.full_syncs, again.partial_syncs), (1, 0), "its position is void: {again:?}");
    same(&source, &target).await;
    // The one that runs ends when the other begins, also while there is nothing to write.
    let idle = Following::start(named("a", Until::Stopped));
    idle.streams().await;
    assert!(named("b", Until::CaughtUp).run().await.unwrap().done);
    let ended = idle.ended().await.unwrap_err();
    assert!(ended.message.contains("taken over"), "{ended}");
    source.run("INCRBY n 7");
    assert_eq!(named("b", Until::CaughtUp).run().await.unwrap().partial_syncs, 1);
    same(&source, &target).await;
    // Another database of the target is another's.
    let mut other = named("c", Until::CaughtUp);
    other.options.route.db_map.insert(0, 9);
    other.options.route.only_db = Some(0);
    assert!(other.run().await.unwrap().done);
    assert_eq!(named("b", Until::CaughtUp).run().await.unwrap().partial_syncs, 1);
    // Some of the keys are not: both would apply the same changes.
    let mut some = named("d", Until::CaughtUp);
    some.options.route.include = vec!["l*".into()];
    assert!(some.run().await.unwrap().done);
    assert_eq!(named("b", Until::CaughtUp).run().await.unwrap().full_syncs, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_is_rejected_as_target() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    target.run(&format!("REPLICAOF 127.0.0.1 {}", Redis::start("REDIS_7_0", &[]).port));
    let refused = migration(&source, &target, Until::CaughtUp).run().await.unwrap_err();
    assert!(refused.message.contains("is a read-only replica"), "{refused}");
}

/// The rights that docs/redis.md lists are enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acl_rights_in_docs_are_sufficient() {
    let text = include_str!("../../../docs/redis.md");
    let rights = |end: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("ACL SETUSER {end} ")));
        line.unwrap().replace("PASSWORD", "secret")
    };
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    source.run(&format!("ACL SETUSER source {}", rights("source")));
    target.run(&format!("ACL SETUSER target {}", rights("target")));
    crate::fill::fill(&source, 3);
    source.run("HSET session a 1 b 2");
    source.run("PEXPIRE session 700");
    let by = |until| {
        let mut one = migration(&source, &target, until);
        (one.source.user, one.source.password) = ("source".into(), "secret".into());
        (one.target.user, one.target.password) = ("target".into(), "secret".into());
        one
    };
    let first = by(Until::CaughtUp).run().await.unwrap();
    assert!(first.done && first.notes.is_empty(), "{first:?}");
    source.run("PERSIST session");
    while target.run("EXISTS session").number() != Some(0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    source.run("HSET session a 9");
    source.run("FLUSHDB");
    source.run("FUNCTION DELETE lib");
    source.run("HSET session a 1");
    let second = by(Until::CaughtUp).run().await.unwrap();
    assert!(second.done && second.notes.is_empty() && second.partial_syncs == 1, "{second:?}");
    let (from, to) = (by(Until::Full).source, by(Until::Full).target);
    source.run(&format!("ACL SETUSER scanned {}", rights("scanned")));
    source.run("CONFIG SET notify-keyspace-events KA");
    source.run("SET looked at");
    let looking = by(Until::CaughtUp);
    let scan = redis_migration::session::scan::ScanMigration {
        source: redis_migration::Node { user: "scanned".into(), ..looking.source },
        target: looking.target,
        options: looking.options,
        clock: looking.clock,
        progress: looking.progress,
        stop: looking.stop,
    };
    assert!(scan.run().await.unwrap().done);
    let found = redis_migration::verify::compare(
        &from,
        &to,
        &Default::default(),
        redis_migration::verify::Depth::Full,
    )
    .await;
    assert!(found.unwrap().is_same());
}
