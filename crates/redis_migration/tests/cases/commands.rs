//! Commands that need a translation, or are not replicated.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_25_published_messages_are_not_forwarded() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let following = Following::start(migration(&source, &target, Until::Stopped));
    following.streams().await;
    run(
        &source,
        &["PUBLISH __sentinel__:hello x", "SPUBLISH channel x", "MULTI", "PUBLISH a b", "INCR n", "EXEC"],
    );
    following.wait_caught_up(&source).await;
    following.stop().await;
    assert_eq!(get(&target, "n").as_deref(), Some("1"));
    let stats = target.run("INFO commandstats");
    let stats = String::from_utf8_lossy(stats.text().unwrap()).into_owned();
    assert!(!stats.contains("publish"), "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_05_scripts_are_sent_by_their_text() {
    let source = Redis::start("REDIS_6_2", &["--lua-replicate-commands", "no"]);
    let text = b"redis.call('incr',KEYS[1]); return redis.call('rpush',KEYS[2],ARGV[1])";
    let digest = call(&source, &[b"SCRIPT", b"LOAD", text]).text().unwrap().to_vec();
    let call_it = |n: usize| {
        for i in 0..n {
            call(&source, &[b"EVALSHA", &digest, b"2", b"{t}n", b"{t}l", i.to_string().as_bytes()]);
        }
    };
    call_it(3);
    let target = Redis::start("REDIS_7_0", &[]);
    let following = Following::start(migration(&source, &target, Until::Stopped));
    following.streams().await;
    call_it(20);
    // What the target has cached is not relied upon.
    target.run("SCRIPT FLUSH");
    call_it(20);
    following.wait_caught_up(&source).await;
    same(&source, &target).await;
    assert!(!following.stop().await.done);

    // Scripts of the migration are not affected either: their texts are next to the checkpoint.
    target.run("SCRIPT FLUSH");
    call_it(5);
    let went_on = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert_eq!((went_on.partial_syncs, went_on.full_syncs), (1, 0));
    same(&source, &target).await;

    // A flushed target keeps the reserved keys.
    let following = Following::start(migration(&source, &target, Until::Stopped));
    following.streams().await;
    source.run("FLUSHALL");
    following.wait_caught_up(&source).await;
    following.stop().await;
    call_it(2);
    migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    same(&source, &target).await;

    let cluster = Cluster::start("REDIS_7_0", 3, false, &[]);
    let to_cluster = Following::start(migration(&source, &cluster.servers[0], Until::Stopped));
    to_cluster.streams().await;
    call_it(7);
    to_cluster.wait_caught_up(&source).await;
    same(&source, &cluster.servers[0]).await;
    to_cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_06_restore_payloads_are_converted_for_the_target() {
    for (from, to) in [
        ("REDIS_8_2", "REDIS_6_2"),
        ("REDIS_8_2", "VALKEY_9_1"),
        ("VALKEY_9_1", "REDIS_6_2"),
        ("REDIS_7_0", "REDIS_6_2"),
    ] {
        let (source, target) = (Redis::start(from, &[]), Redis::start(to, &[]));
        let following = Following::start(migration(&source, &target, Until::Stopped));
        following.streams().await;
        let long = vec![b'x'; 3000];
        call(&source, &[b"RPUSH", b"l", b"a", &long, b"b"]);
        call(&source, &[b"HSET", b"h", b"f", b"1", b"g", b"2"]);
        call(&source, &[b"SADD", b"s", b"a", b"b"]);
        call(&source, &[b"ZADD", b"z", b"1", b"a", b"2", b"b"]);
        call(&source, &[b"SET", b"k", b"v"]);
        call(&source, &[b"XADD", b"x", b"1-1", b"f", b"v"]);
        for key in ["l", "h", "s", "z", "k", "x"] {
            let payload = call(&source, &[b"DUMP", key.as_bytes()]).text().unwrap().to_vec();
            let copy = format!("copy:{key}");
            call(&source, &[b"RESTORE", copy.as_bytes(), b"0", &payload, b"REPLACE"]);
            let dying = format!("dying:{key}");
            call(&source, &[b"RESTORE", dying.as_bytes(), b"5000000", &payload]);
        }
        following.wait_caught_up(&source).await;
        same(&source, &target).await;
        assert_eq!(target.run("LLEN copy:l").number(), Some(3), "{from} to {to}");
        let summary = following.stop().await;
        assert_eq!(summary.full_syncs, 1, "{from} to {to}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_12_values_over_the_argument_limit_are_built_from_elements() {
    let source = Redis::start("REDIS_7_0", &[]);
    let target = Redis::start("REDIS_7_0", &["--proto-max-bulk-len", "1mb"]);
    let element = "e".repeat(700);
    for i in 0..4000 {
        let n = format!("{i}{element}");
        call(&source, &[b"RPUSH", b"list", n.as_bytes()]);
        call(&source, &[b"HSET", b"hash", i.to_string().as_bytes(), n.as_bytes()]);
    }
    let done = migration(&source, &target, Until::Full).run().await.unwrap();
    assert!(done.done, "{done:?}");
    same(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_14_excluded_commands_are_not_applied() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let following = |skip: &[&str]| {
        let mut one = migration(&source, &target, Until::Stopped);
        one.options.skip_commands = Arc::new(skip.iter().map(|name| (*name).to_owned()).collect());
        one
    };
    let first = Following::start(following(&[]));
    first.streams().await;
    // What a fork says in its stream.
    run(&source, &["DEBUG REPLICATE EXPIREMEMBER key member 10"]);
    let refused = first.ended().await.unwrap_err();
    assert!(
        refused.message.contains("EXPIREMEMBER") || refused.message.contains("unknown command"),
        "{refused}"
    );
    assert!(refused.remedy().contains("--skip-command"), "{refused}");
    let second = Following::start(following(&["EXPIREMEMBER"]));
    second.streams().await;
    run(&source, &["SET a 1"]);
    second.wait_caught_up(&source).await;
    let summary = second.stop().await;
    let unsupported = &summary.full.unsupported;
    assert!(unsupported.keys().any(|what| what.starts_with("EXPIREMEMBER")), "{unsupported:?}");
    same(&source, &target).await;
}
