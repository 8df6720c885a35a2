//! Targets that hold keys of others, before, during and after a migration.

use redis_migration::checkpoint::keys::KeyNames;
use redis_migration::session::scan::ScanMigration;
use redis_migration::{Migration, Until};
use redis_proto::resp::Reply;
use testkit::redis::{Cluster, Redis};

use crate::support::{Following, migration, migration_at, node, same};

fn text(redis: &Redis, db: u32, line: &str) -> Option<String> {
    let mut client = redis.connect();
    client.run(&format!("SELECT {db}"));
    client.run(line).text().map(|t| String::from_utf8_lossy(t).into_owned())
}

/// A target as a first full sync of database 0 leaves it that was interrupted.
fn interrupt_full_sync(target: &Redis) {
    let mut client = target.connect();
    let checkpoint = KeyNames::new("test").checkpoint;
    assert_eq!(client.call(&[b"SET", &checkpoint, b"full 0"]), Reply::Simple("OK".into()));
    for line in ["SET a:deleted-since 1", "SET a:1 old", "SET other 1", "SELECT 3", "SET a:precious 1"] {
        client.run(line);
    }
}

fn selected(source: &Redis, target: &Redis) -> Migration {
    let mut one = migration(source, target, Until::CaughtUp);
    one.options.route.include = vec!["a:*".into()];
    one
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_full_sync_deletes_selected_keys_only() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    source.run("SET a:1 new");
    interrupt_full_sync(&target);
    let done = selected(&source, &target).run().await.unwrap();
    assert!(
        done.notes.iter().any(|n| n.starts_with("1 selected keys") && n.contains("database 0")),
        "{done:?}"
    );
    assert_eq!(text(&target, 0, "GET a:1").as_deref(), Some("new"));
    assert!(done.notes.iter().any(|n| n.contains("were not in the full sync and remain")), "{done:?}");
    assert_eq!(text(&target, 0, "GET a:deleted-since").as_deref(), Some("1"), "it may be a client's");
    assert_eq!(text(&target, 0, "GET other").as_deref(), Some("1"), "the filter excludes it");
    assert_eq!(text(&target, 3, "GET a:precious").as_deref(), Some("1"), "the copy has not written there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_full_sync_of_a_target_without_other_keys_is_exact() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    source.run("SET a:1 new");
    interrupt_full_sync(&target);
    for (db, key) in [(0, "other"), (3, "a:precious")] {
        text(&target, db, &format!("GETDEL {key}"));
    }
    let done = selected(&source, &target).run().await.unwrap();
    assert!(done.notes.iter().any(|n| n.starts_with("2 selected keys")), "{done:?}");
    same(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_full_sync_beside_another_migration_deletes_nothing() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    source.run("SET a:1 new");
    interrupt_full_sync(&target);
    let lock: [&[u8]; 4] = [b"HSET", b"whimbrel:redis:claims", b"second", b"digest another-replid"];
    assert_eq!(target.connect().call(&lock).number(), Some(1));
    let done = selected(&source, &target).run().await.unwrap();
    assert!(
        done.notes.iter().any(|n| n.contains("migration `second` writes to this target too")),
        "{done:?}"
    );
    assert_eq!(text(&target, 0, "GET a:1").as_deref(), Some("new"));
    assert_eq!(text(&target, 0, "GET a:deleted-since").as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_target_ends_the_migration() {
    let source = Redis::start("REDIS_7_0", &[]);
    source.run("SET k 1");
    for (busy, is_cluster) in [(false, false), (true, false), (false, true)] {
        let (single, cluster) = match is_cluster {
            true => (None, Some(Cluster::start("REDIS_7_0", 3, false, &[]))),
            false => (Some(Redis::start("REDIS_7_0", &[])), None),
        };
        let servers: Vec<&Redis> =
            cluster.iter().flat_map(|c| c.servers.iter()).chain(single.as_ref()).collect();
        let following = Following::start(migration_at(node(&source), node(servers[0]), Until::Stopped));
        following.streams().await;
        source.run("INCR n");
        following.wait_caught_up(&source).await;
        servers.iter().for_each(|server| drop(server.run("FLUSHALL")));
        if busy {
            // The transaction comes before the next poll.
            source.run("INCR n");
        }
        let ended = following.ended().await.unwrap_err();
        assert!(ended.message.contains("checkpoint of this migration was deleted"), "{ended}");
        let again = migration_at(node(&source), node(servers[0]), Until::CaughtUp).run().await.unwrap();
        assert_eq!((again.full_syncs, again.full.keys), (1, 2), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_of_the_source_is_not_taken_for_one_of_the_target() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let following = Following::start(migration(&source, &target, Until::Stopped));
    following.streams().await;
    for line in
        ["SET a 1", "FLUSHALL", "SET b 1", "SWAPDB 0 1", "SET c 1", "SWAPDB 1 0", "FLUSHDB", "SET d 1"]
    {
        source.run(line);
        following.wait_caught_up(&source).await;
    }
    following.stop().await;
    same(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_and_replication_of_the_same_keys_end_each_other() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    source.run("CONFIG SET notify-keyspace-events KA");
    source.run("SET n 1");
    let scan = |until| {
        let like = migration(&source, &target, until);
        ScanMigration {
            source: like.source,
            target: like.target,
            options: like.options,
            clock: like.clock,
            progress: like.progress,
            stop: like.stop,
        }
    };
    assert!(migration(&source, &target, Until::CaughtUp).run().await.unwrap().done);
    source.run("INCR n");
    assert!(scan(Until::Full).run().await.unwrap().done);
    let again = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert_eq!(again.full_syncs, 1, "its checkpoint is older than the scan: {again:?}");
    assert_eq!(text(&target, 0, "GET n").as_deref(), Some("2"));
    let scanning = scan(Until::Stopped);
    let progress = scanning.progress.clone();
    let scanning = tokio::spawn(async move { scanning.run().await });
    while progress.phase.load(std::sync::atomic::Ordering::Relaxed) != 2 {
        assert!(!scanning.is_finished());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(migration(&source, &target, Until::CaughtUp).run().await.unwrap().done);
    let ended = scanning.await.unwrap().unwrap_err();
    assert!(ended.message.contains("has taken over"), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_that_evicts_keys_is_mentioned() {
    let source = Redis::start("REDIS_7_0", &[]);
    for (policy, said) in [("allkeys-lru", true), ("noeviction", false)] {
        let target = Redis::start("REDIS_7_0", &["--maxmemory", "100mb", "--maxmemory-policy", policy]);
        let done = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
        assert_eq!(done.notes.iter().any(|n| n.contains("maxmemory-policy allkeys-lru")), said, "{done:?}");
    }
}

/// 8.2 has values that 7.0 does not have; a run that resumes is not complete either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumed_migration_remembers_what_was_not_migrated() {
    let (source, target) = (Redis::start("REDIS_8_2", &[]), Redis::start("REDIS_7_0", &[]));
    source.run("HSET h f 1");
    source.run("HEXPIREAT h 4000000000 FIELDS 1 f");
    let first = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert_eq!(first.full.unsupported.len(), 1, "{first:?}");
    source.run("SET other 1");
    let again = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert_eq!((again.full_syncs, &again.full.unsupported), (0, &first.full.unsupported), "{again:?}");
    // A new full sync counts anew.
    source.run("DEL h");
    target.run(&format!("DEL {}", String::from_utf8_lossy(&KeyNames::new("test").checkpoint)));
    let full = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert!(full.full_syncs == 1 && full.full.unsupported.is_empty(), "{full:?}");
}
