//! Every version to every other: all types, TTLs, functions, streams with groups.

use redis_proto::resp::Reply;
use replica::Until;
use testkit::redis::{OLD, Redis, VERSIONS};

use crate::fill::fill;
use crate::support::{mover, same};

/// What the target cannot hold is named; everything else is equal, to the millisecond of each expiry.
async fn pair(from: &str, to: &str) {
    let (source, target) = (Redis::start(from, &[]), Redis::start(to, &[]));
    fill(&source, 7);
    target.run("SET superfluous stays");
    target.run("DEL superfluous");
    let summary = mover(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert!(summary.done && summary.failed.is_empty(), "{from} to {to}: {summary:?}");
    let fields_expire = |version: &str| matches!(version, "REDIS_8_2" | "VALKEY_9_1");
    let left_out: Vec<&str> = summary.full.left_out.keys().map(String::as_str).collect();
    if fields_expire(from) && !fields_expire(to) {
        assert!(left_out.contains(&"expiry of fields of a hash"), "{from} to {to}: {left_out:?}");
        for redis in [&source, &target] {
            for db in [0, 1, 15] {
                let mut client = redis.connect();
                client.run(&format!("SELECT {db}"));
                client.run("DEL hash:large hash:small");
            }
        }
    }
    let has_functions =
        |version: &str| !matches!(version, "REDIS_3_2" | "REDIS_5_0" | "REDIS_6_0" | "REDIS_6_2");
    if !has_functions(to) && has_functions(from) {
        assert!(left_out.iter().any(|what| what.starts_with("functions")), "{from} to {to}: {left_out:?}");
    } else if has_functions(from) {
        assert_eq!(target.connect().call(&[b"FCALL", b"f", b"0"]), Reply::Int(7), "{from} to {to}");
    }
    let compared = same(&source, &target).await;
    assert!(compared.keys > 600, "{compared:?}");
    // The counts that groups and streams keep travel where both know them.
    if has_functions(from) && has_functions(to) {
        let about = |redis: &Redis| redis.connect().call(&[b"XINFO", b"STREAM", b"stream"]);
        let counts = |reply: &Reply| {
            let all = reply.array().unwrap().to_vec();
            let value =
                |name: &[u8]| all.iter().position(|r| r.text() == Some(name)).map(|i| all[i + 1].clone());
            (value(b"entries-added"), value(b"max-deleted-entry-id"), value(b"length"))
        };
        assert_eq!(counts(&about(&source)), counts(&about(&target)), "{from} to {to}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_to_every_other() {
    for from in VERSIONS {
        for to in VERSIONS {
            pair(from, to).await;
        }
    }
}

/// Old servers are left for new ones, and sometimes a new one for an old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_versions_to_new_ones_and_back() {
    for from in OLD {
        for to in ["REDIS_7_0", "REDIS_8_2", "VALKEY_9_1"] {
            pair(from, to).await;
        }
    }
    for from in ["REDIS_7_0", "REDIS_8_2"] {
        for to in ["REDIS_5_0", "REDIS_6_0"] {
            pair(from, to).await;
        }
    }
}

/// Two of one version hold the same to the last byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digests_are_equal_between_servers_of_one_version() {
    for version in ["REDIS_7_0", "REDIS_8_2", "VALKEY_9_1"] {
        let (source, target) = (Redis::start(version, &[]), Redis::start(version, &[]));
        fill(&source, 3);
        mover(&source, &target, Until::Full).run().await.unwrap();
        assert_eq!(source.run("DEBUG DIGEST"), target.run("DEBUG DIGEST"), "{version}");
    }
}

/// Vector sets are a module's: a target without that module is told of by the key's name, and everything else arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vector_sets_are_named_where_the_target_has_no_place_for_them() {
    let (source, target) = (Redis::start("REDIS_8_2", &[]), Redis::start("REDIS_7_0", &[]));
    assert_eq!(source.run("VADD vectors VALUES 3 1 2 3 element").number(), Some(1));
    source.run("SET beside it");
    let summary = mover(&source, &target, Until::CaughtUp).run().await.unwrap();
    let said = format!("{:?} {:?}", summary.failed, summary.full.left_out);
    assert!(said.contains("vectors"), "{said}");
    assert_eq!(target.run("GET beside").text(), Some(b"it".as_slice()));
    let same_kind = Redis::start("REDIS_8_2", &[]);
    let summary = mover(&source, &same_kind, Until::CaughtUp).run().await.unwrap();
    assert!(summary.failed.is_empty() && summary.full.left_out.is_empty(), "{summary:?}");
    assert_eq!(same_kind.run("VCARD vectors").number(), Some(1));
}
