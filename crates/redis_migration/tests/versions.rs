//! Every version to every other: all types, TTLs, functions, streams with groups.

use redis_migration::Until;
use redis_migration::route::Route;
use redis_migration::verify::{Depth, compare};
use redis_proto::resp::Reply;
use testkit::redis::{OLD, Redis, VERSIONS};

use crate::fill::fill;
use crate::support::{Following, migration, node, same};

/// What the target cannot hold is named; everything else is equal, to the millisecond of each expiry.
async fn pair(from: &str, to: &str) {
    let (source, target) = (Redis::start(from, &[]), Redis::start(to, &[]));
    fill(&source, 7);
    target.run("SET superfluous stays");
    target.run("DEL superfluous");
    let summary = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert!(summary.done && summary.failed.is_empty(), "{from} to {to}: {summary:?}");
    let fields_expire = |version: &str| matches!(version, "REDIS_8_2" | "VALKEY_9_1");
    let unsupported: Vec<&str> = summary.full.unsupported.keys().map(String::as_str).collect();
    if fields_expire(from) && !fields_expire(to) {
        assert!(unsupported.contains(&"expiry of fields of a hash"), "{from} to {to}: {unsupported:?}");
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
        assert!(
            unsupported.iter().any(|what| what.starts_with("functions")),
            "{from} to {to}: {unsupported:?}"
        );
    } else if has_functions(from) {
        assert_eq!(target.connect().call(&[b"FCALL", b"f", b"0"]), Reply::Int(7), "{from} to {to}");
    }
    let compared = same(&source, &target).await;
    assert!(compared.keys > 600, "{compared:?}");
    // The counters of groups and streams are copied if both servers have them.
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
async fn every_version_migrates_to_every_other() {
    for from in VERSIONS {
        for to in VERSIONS {
            pair(from, to).await;
        }
    }
}

/// Old servers are left for new ones, and sometimes a new one for an old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_versions_migrate_to_new_ones_and_back() {
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
        migration(&source, &target, Until::Full).run().await.unwrap();
        assert_eq!(source.run("DEBUG DIGEST"), target.run("DEBUG DIGEST"), "{version}");
    }
}

/// Vector sets are a module's: a target without that module is told of by the key's name, and everything else arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vector_sets_without_target_support_are_named() {
    let (source, target) = (Redis::start("REDIS_8_2", &[]), Redis::start("REDIS_7_0", &[]));
    assert_eq!(source.run("VADD vectors VALUES 3 1 2 3 element").number(), Some(1));
    source.run("SET beside it");
    let summary = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    let said = format!("{:?} {:?}", summary.failed, summary.full.unsupported);
    assert!(said.contains("vectors"), "{said}");
    assert_eq!(target.run("GET beside").text(), Some(b"it".as_slice()));
    let same_kind = Redis::start("REDIS_8_2", &[]);
    let summary = migration(&source, &same_kind, Until::CaughtUp).run().await.unwrap();
    assert!(summary.failed.is_empty() && summary.full.unsupported.is_empty(), "{summary:?}");
    assert_eq!(same_kind.run("VCARD vectors").number(), Some(1));
}

/// Changes in words that came late: `SINCE: command`.
const LATE: [&str; 37] = [
    "6.2: SET a v EX 1000",
    "6.2: SET a w KEEPTTL",
    "6.2: SET b v",
    "6.2: SET b w GET",
    "6.2: SET c v PX 3600000 NX",
    "6.2: GETEX c PERSIST",
    "6.2: RPUSH l 1 2 3 4 5 6 7",
    "6.2: LPOP l 2",
    "6.2: RPOP l 2",
    "6.2: LMOVE l m LEFT RIGHT",
    "6.2: LMOVE l m RIGHT LEFT",
    "6.2: COPY m n",
    "6.2: RPUSH n more",
    "6.2: ZADD z GT 5 a 6 b",
    "6.2: ZRANGESTORE y z 0 0",
    "6.2: ZADD y 9 x",
    "6.2: GEOADD g 13.36 38.11 p",
    "6.2: GEOSEARCHSTORE r g FROMMEMBER p BYRADIUS 1 km",
    "6.2: XADD s 1-1 f v",
    "6.2: XADD s NOMKSTREAM 2-1 f v",
    "6.2: XGROUP CREATE s one 0",
    "6.2: XGROUP CREATE s two 0",
    "6.2: XREADGROUP GROUP one c COUNT 1 STREAMS s >",
    "6.2: XREADGROUP GROUP two c NOACK STREAMS s >",
    // Pending entries of messages that are gone are nothing that a command could make.
    "6.2: XACK s one 1-1",
    "6.2: XADD s MINID 2-0 3-1 f v",
    "7.0: FUNCTION LOAD #!lua~name=late\nredis.register_function('f',function()~return~1~end)",
    "7.0: XGROUP CREATE s three 0 ENTRIESREAD 1",
    "7.0: LMPOP 2 l m LEFT COUNT 2",
    "8.0: HSET h f 1 g 2",
    "8.0: HPEXPIRE h 3600000 FIELDS 1 f",
    "8.0: HSETEX h EX 1000 FIELDS 1 g 3",
    "8.2: XADD s KEEPREF MAXLEN 5 4-1 f v",
    "8.2: SADD o a",
    "8.2: SET x abc",
    "8.2: BITOP DIFF d x b",
    "8.2: SET d2 v EX 1000",
];

/// What an older target has no words for arrives all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_translated_for_the_target_version() {
    let number = |version: &str| match version {
        "REDIS_6_2" => "6.2",
        "REDIS_7_0" => "7.0",
        "VALKEY_9_1" => "7.9",
        _ => "8.2",
    };
    for (from, to) in [
        ("REDIS_7_0", "REDIS_6_2"),
        ("REDIS_7_0", "REDIS_6_0"),
        ("REDIS_7_0", "REDIS_5_0"),
        ("REDIS_8_2", "REDIS_5_0"),
        ("REDIS_8_2", "REDIS_7_0"),
        ("REDIS_8_2", "VALKEY_9_1"),
        ("VALKEY_9_1", "REDIS_7_0"),
        ("REDIS_6_2", "REDIS_5_0"),
    ] {
        let (source, target) = (Redis::start(from, &[]), Redis::start(to, &[]));
        let following = Following::start(migration(&source, &target, Until::Stopped));
        following.streams().await;
        let mut client = source.connect();
        for line in LATE {
            let (since, line) = line.split_once(": ").unwrap();
            if since > number(from) {
                continue;
            }
            let words: Vec<Vec<u8>> =
                line.split(' ').map(|word| word.replace('~', " ").into_bytes()).collect();
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let reply = client.call(&words);
            assert!(!matches!(reply, Reply::Error(_)), "{from}: {line}: {reply:?}");
        }
        following.wait_caught_up(&source).await;
        following
            .until(|_| target.run("KEYS whimbrel:redis:doubted:*").array().is_some_and(<[_]>::is_empty))
            .await;
        let done = following.stop().await;
        assert_eq!(done.full_syncs, 1, "{from} to {to}");
        // Where fields do not expire, that is said.
        let lives = from == "REDIS_8_2" && (to == "REDIS_7_0" || to == "REDIS_5_0");
        let said = done.full.unsupported.keys().any(|what| what.starts_with("HPEXPIREAT"));
        assert_eq!(said, lives, "{from} to {to}: {:?}", done.full.unsupported);
        if lives {
            source.run("HPERSIST h FIELDS 2 f g");
        }
        let found = compare(&node(&source), &node(&target), &Route::default(), Depth::Full).await.unwrap();
        let lives = to == "REDIS_7_0" || to == "REDIS_5_0";
        assert!(
            found.differ == 0
                && found.missing == 0
                && found.extra == 0
                && (found.expiry_differs == 0 || lives),
            "{from} to {to}: {found:?}"
        );
    }
}
