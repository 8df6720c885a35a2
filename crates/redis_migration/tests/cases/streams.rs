//! Streams and their consumer groups.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_20_c19_stream_consumer_groups_are_complete() {
    for (from, to) in [
        ("REDIS_7_0", "REDIS_6_2"),
        ("VALKEY_9_1", "REDIS_7_0"),
        ("REDIS_8_2", "REDIS_7_0"),
        ("REDIS_7_0", "REDIS_7_0"),
    ] {
        let (source, target) = (Redis::start(from, &[]), Redis::start(to, &[]));
        let mut lines: Vec<String> = (1..=20).map(|i| format!("XADD s {i}-0 f {i}")).collect();
        lines.extend(
            [
                "XGROUP CREATE s g 0",
                "XREADGROUP GROUP g c COUNT 10 STREAMS s >",
                "XDEL s 3-0",
                "XDEL s 10-0",
                "XTRIM s MAXLEN 15",
                "XADD e 1-0 f 1",
                "XADD e 2-0 f 1",
                "XGROUP CREATE e g 0",
                "XREADGROUP GROUP g c STREAMS e >",
                "XDEL e 1-0 2-0",
                "XADD t 1-0 f 1",
                "XADD t 2-0 f 1",
                "XGROUP CREATE t g 0",
                "XREADGROUP GROUP g c STREAMS t >",
                "XTRIM t MAXLEN 0",
            ]
            .map(String::from),
        );
        run(&source, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        let done = migration(&source, &target, Until::Full).run().await.unwrap();
        assert!(done.failed.is_empty() && done.full.unsupported.is_empty(), "{from} to {to}: {done:?}");
        for key in ["s", "e", "t"] {
            // 6.2 does not count what groups have read.
            let lines = [format!("XRANGE {key} - +"), format!("XINFO GROUPS {key}")];
            for line in &lines[..if to == "REDIS_6_2" { 1 } else { 2 }] {
                assert_eq!(source.run(line), target.run(line), "{from} to {to}: {line}");
            }
            let pending = pending_entries(&source, key);
            assert!(!pending.is_empty());
            assert_eq!(pending, pending_entries(&target, key), "{from} to {to}: {key}");
        }
        same(&source, &target).await;
    }
}

/// Pending entries of the group `g`: entry, consumer and how often it was delivered.
fn pending_entries(server: &Redis, key: &str) -> Vec<String> {
    let reply = server.run(&format!("XPENDING {key} g - + 100"));
    let rows = reply.array().unwrap().iter().map(|row| row.array().unwrap());
    rows.map(|row| format!("{:?} {:?} {:?}", row[0], row[1], row[3])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_20_entries_read_by_groups_are_compared() {
    let (a, b) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    for server in [&a, &b] {
        run(server, &["XADD s 1-0 f 1", "XADD s 2-0 f 1", "XGROUP CREATE s g 0"]);
    }
    a.run("XGROUP SETID s g 2-0 ENTRIESREAD 2");
    b.run("XGROUP SETID s g 2-0 ENTRIESREAD 1");
    let found =
        compare(&node(&a), &node(&b), &redis_migration::route::Route::default(), Depth::Full).await.unwrap();
    assert_eq!(found.differ, 1);
}
