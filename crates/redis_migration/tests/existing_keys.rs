//! Keys that the target holds already: replaced, skipped, or a reason to fail, also by the stream and by append-only files.

use redis_migration::snapshot::restore::Conflict;
use redis_migration::{Migration, Until};
use redis_proto::resp::{Reply, command};
use testkit::redis::Redis;

use crate::cases::{import, import_with};
use crate::support::{Following, migration, same};

fn run(redis: &Redis, lines: &[&str]) {
    let mut client = redis.connect();
    for line in lines {
        let reply = client.run(line);
        assert!(!matches!(reply, Reply::Error(_)), "{line}: {reply:?}");
    }
}

/// What a key holds, as text.
fn held(redis: &Redis, key: &str) -> String {
    let mut client = redis.connect();
    let kind = client.run(&format!("TYPE {key}"));
    let reply = match kind {
        Reply::Simple(kind) if kind == "list" => client.run(&format!("LRANGE {key} 0 -1")),
        Reply::Simple(kind) if kind == "set" => client.run(&format!("SMEMBERS {key}")),
        _ => client.run(&format!("GET {key}")),
    };
    match reply.array() {
        Some(all) => {
            all.iter().filter_map(Reply::text).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ")
        }
        None => reply.text().map_or("-".into(), |t| String::from_utf8_lossy(t).into_owned()),
    }
}

fn with(source: &Redis, target: &Redis, conflict: Conflict, until: Until) -> Migration {
    let mut one = migration(source, target, until);
    one.options.conflict = conflict;
    one
}

/// The backlog does not hold what came since, and the source has deleted keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_after_a_forced_full_sync_do_not_meet_deleted_keys() {
    let source = Redis::start("REDIS_7_0", &["--repl-backlog-size", "16kb"]);
    let target = Redis::start("REDIS_7_0", &[]);
    run(&source, &["SET n 500", "RPUSH l old", "SADD s gone", "SET type string", "SET never 1"]);
    assert!(migration(&source, &target, Until::CaughtUp).run().await.unwrap().done);
    run(&source, &["DEL n l s type never"]);
    for _ in 0..40 {
        source.run(&format!("SET filler {}", "x".repeat(1000)));
    }
    let following = Following::start(migration(&source, &target, Until::Stopped));
    following.streams().await;
    run(&source, &["INCR n", "RPUSH l new"]);
    following.wait_caught_up(&source).await;
    let first = following.stop().await;
    assert!(
        first.full_syncs == 1 && first.notes.iter().any(|n| n.starts_with("5 selected keys")),
        "{first:?}"
    );
    // A later run knows them too, and those that were replaced are not deleted again.
    run(&source, &["INCR n", "SADD s new", "RPUSH type x"]);
    let second = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert!(second.partial_syncs == 1 && second.notes.iter().any(|n| n.starts_with("3 ")), "{second:?}");
    assert_eq!([held(&target, "n"), held(&target, "l")], ["2", "new"]);
    assert_eq!([held(&target, "s"), held(&target, "type")], ["new", "x"]);
    assert_eq!(held(&target, "never"), "1");
    run(&source, &["SET never 2"]);
    assert!(migration(&source, &target, Until::CaughtUp).run().await.unwrap().done);
    same(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_keys_are_kept_from_changes_of_the_stream() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    run(&source, &["SET n 5", "RPUSH l src", "SET mine src", "SET kept src"]);
    run(&target, &["SET n 100", "RPUSH l tgt", "SET kept tgt", "SET only tgt"]);
    let following = Following::start(with(&source, &target, Conflict::Skip, Until::Stopped));
    following.streams().await;
    run(
        &source,
        &["INCR n", "RPUSH l more", "SET kept new", "SET mine new", "APPEND only x", "DEL mine kept"],
    );
    following.wait_caught_up(&source).await;
    let first = following.stop().await;
    assert!(first.notes.iter().any(|n| n.starts_with("5 changes")), "{first:?}");
    run(&source, &["INCR n", "SET mine again", "MSET kept 1 other 2"]);
    let again = with(&source, &target, Conflict::Skip, Until::CaughtUp).run().await.unwrap();
    assert!(again.partial_syncs == 1, "{again:?}");
    let want =
        [("n", "100"), ("l", "tgt"), ("kept", "tgt"), ("only", "tgt"), ("mine", "again"), ("other", "2")];
    for (key, want) in want {
        assert_eq!(held(&target, key), want, "{key}");
    }
    let refused = Following::start(with(&source, &target, Conflict::Skip, Until::Stopped));
    refused.streams().await;
    source.run("FLUSHALL");
    let refused = refused.ended().await.unwrap_err();
    assert!(refused.message.contains("keys that existed at the target are kept"), "{refused}");
}

fn file(lines: &[&str]) -> tempfile::NamedTempFile {
    let mut bytes = Vec::new();
    for line in lines {
        command(&mut bytes, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_import_of_commands_changes_nothing() {
    let file = file(&["SELECT 0", "INCR n", "INCR n", "RPUSH l a", "RPUSH l b", "SET s 1", "SADD t x"]);
    let target = Redis::start("REDIS_7_0", &[]);
    run(&target, &["RPUSH l foreign", "SET other 1"]);
    for _ in 0..2 {
        assert!(import(vec![file.path().to_owned()], &target).await.unwrap().done);
        let found = ["n", "l", "s", "t", "other"].map(|key| held(&target, key));
        assert_eq!(found, ["2", "a b", "1", "x", "1"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn existing_keys_are_kept_from_commands_of_a_file() {
    let file = file(&["SELECT 0", "INCR n", "RPUSH l src", "SET new 1", "SET s src"]);
    let target = Redis::start("REDIS_7_0", &[]);
    run(&target, &["SET n 100", "RPUSH l tgt", "SET s tgt"]);
    for (conflict, new) in [(Conflict::Fail, "-"), (Conflict::Skip, "1")] {
        let like = with(&target, &target, conflict, Until::Full);
        let done = import_with(vec![file.path().to_owned()], &target, like).await;
        match conflict {
            Conflict::Fail => {
                assert!(done.unwrap_err().message.contains("key `n` already exists at the target"))
            }
            _ => assert!(done.unwrap().notes.iter().any(|n| n.starts_with("3 changes"))),
        }
        assert_eq!(["n", "l", "s", "new"].map(|key| held(&target, key)), ["100", "tgt", "tgt", new]);
    }
}

/// A value that is longer than 32 MiB is built from commands: killed in between, it must not be taken for an existing one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_import_leaves_no_incomplete_key() {
    let source = Redis::start("REDIS_7_0", &[]);
    let mut client = source.connect();
    for _ in 0..40 {
        let mut out = Vec::new();
        for _ in 0..20 {
            command(&mut out, &[b"RPUSH", b"big", &vec![b'x'; 50_000]]);
        }
        client.many(&out, 20);
    }
    client.run("PEXPIREAT big 4000000000000");
    source.run("CONFIG SET rdbcompression no");
    assert_eq!(source.run("SAVE"), Reply::Simple("OK".into()));
    let (file, target) = (source.dir().join("dump.rdb"), Redis::start("REDIS_7_0", &[]));
    let mut slow = with(&target, &target, Conflict::Skip, Until::Full);
    slow.options.bandwidth = std::sync::Arc::new(flow_control::budget::Bandwidth::new(10 << 20));
    let import = redis_migration::import::Import {
        files: vec![file.clone()],
        target: slow.target,
        options: slow.options,
        skip_unsafe_commands: false,
        clock: slow.clock,
        progress: slow.progress,
        stop: slow.stop,
    };
    let task = tokio::spawn(async move { import.run().await });
    while target.run("DBSIZE").number() == Some(0) {
        assert!(!task.is_finished());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    task.abort();
    let _ = task.await;
    assert_eq!(target.run("EXISTS big").number(), Some(0));
    let like = with(&target, &target, Conflict::Skip, Until::Full);
    assert_eq!(import_with(vec![file], &target, like).await.unwrap().skipped_existing, 0);
    assert_eq!(target.run("LLEN big").number(), Some(800));
    assert_eq!(target.run("PEXPIRETIME big").number(), Some(4_000_000_000_000));
    assert_eq!(target.run("DBSIZE").number(), Some(1));
}
