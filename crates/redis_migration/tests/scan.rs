//! Sources that let nobody follow them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis_migration::session::scan::ScanMigration;
use redis_migration::{Options, Until};
use redis_proto::resp::Reply;
use testkit::redis::{Cluster, Redis};
use tokio_util::sync::CancellationToken;

use crate::fill::fill;
use crate::support::{migration, node, same};

fn scan(source: &Redis, target: &Redis, until: Until) -> ScanMigration {
    let like = migration(source, target, until);
    let options = Options { until, ..like.options.clone() };
    ScanMigration {
        source: node(source),
        target: node(target),
        options,
        clock: flow_control::clock::system(),
        progress: Arc::default(),
        stop: CancellationToken::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_copies_all_keys_and_follows_changes() {
    for (from, to) in [("REDIS_6_2", "VALKEY_9_1"), ("VALKEY_9_1", "REDIS_7_0"), ("REDIS_7_0", "REDIS_7_0")] {
        let (source, target) = (Redis::start(from, &[]), Redis::start(to, &[]));
        fill(&source, 5);
        if from == "VALKEY_9_1" {
            // Fields that expire have no place in 7.0.
            for db in [0, 1, 15] {
                let mut client = source.connect();
                client.run(&format!("SELECT {db}"));
                client.run("DEL hash:large hash:small");
            }
        }
        let refused = scan(&source, &target, Until::CaughtUp).run().await.unwrap_err();
        assert!(refused.message.contains("notify-keyspace-events"), "{refused}");
        source.run("CONFIG SET notify-keyspace-events KA");
        let one = scan(&source, &target, Until::Stopped);
        let (progress, stop) = (one.progress.clone(), one.stop.clone());
        let task = tokio::spawn(async move { one.run().await });
        while progress.phase.load(Ordering::Relaxed) != 2 {
            assert!(!task.is_finished());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        for line in [
            "SET new 1",
            "RENAME number renamed",
            "MOVE negative 5",
            "DEL list:small",
            "EXPIRE empty 1000",
            "SET dies v PX 50",
            "INCR new",
            "LPUSH list:large x",
            "COPY new copied",
        ] {
            assert!(!matches!(source.run(line), Reply::Error(_)), "{line}");
        }
        let began = std::time::Instant::now();
        while target.run("GET copied").text() != Some(b"2") || target.run("EXISTS dies").number() == Some(1) {
            assert!(began.elapsed().as_secs() < 20, "changes do not arrive");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        stop.cancel();
        task.await.unwrap().unwrap();
        same(&source, &target).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_copies_a_cluster_without_replication_access() {
    let (source, target) = (Cluster::start("REDIS_7_0", 3, false, &[]), Redis::start("REDIS_7_0", &[]));
    for (i, server) in source.servers.iter().enumerate() {
        server.run("ACL SETUSER default -psync -sync");
        for n in 0..2000 {
            let key = format!("k{n}");
            if usize::from(redis_proto::command::slot(key.as_bytes())) * 3 / 16_384 == i {
                server.run(&format!("SET {key} {n}"));
            }
        }
    }
    let mut one = scan(&source.servers[0], &target, Until::Full);
    one.source = redis_migration::Node::parse(&source.url()).unwrap();
    let summary = one.run().await.unwrap();
    let held: i64 = source.servers.iter().filter_map(|s| s.run("DBSIZE").number()).sum();
    assert!(summary.done && held > 1990, "{held} {summary:?}");
    assert_eq!(target.run("DBSIZE").number(), Some(held));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_ends_when_notifications_are_switched_off() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    source.run("CONFIG SET notify-keyspace-events KA");
    let one = scan(&source, &target, Until::Stopped);
    let progress = one.progress.clone();
    let task = tokio::spawn(async move { one.run().await });
    while progress.phase.load(Ordering::Relaxed) != 2 {
        assert!(!task.is_finished());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    source.run("CONFIG SET notify-keyspace-events Kx");
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), task).await.unwrap();
    let ended = ended.unwrap().unwrap_err();
    assert!(ended.message.contains("keyspace notifications are off"), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_in_the_direction_of_a_running_migration_is_rejected_as_a_loop() {
    let (a, b) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    b.run("CONFIG SET notify-keyspace-events KA");
    let there = crate::support::Following::start(migration(&a, &b, Until::Stopped));
    there.streams().await;
    let back = scan(&b, &a, Until::Stopped).run().await.unwrap_err();
    assert_eq!(back.op, "loop", "{back}");
    there.stop().await;
}
