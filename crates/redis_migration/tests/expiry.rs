//! A key lives as long as the source says, whatever the target's clock did to it meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis_migration::Until;
use redis_migration::route::Route;
use redis_migration::verify::{Depth, compare};
use redis_proto::command::slot;
use redis_proto::resp::Reply;
use testkit::redis::{Cluster, Connection, Redis};

use crate::support::{Following, migration, migration_at, node, same};

fn no_key_is_suspect(server: &Redis) -> bool {
    server.run("KEYS whimbrel:redis:doubted:*").array().is_some_and(<[_]>::is_empty)
}

/// Short lives that are renewed again and again while the target is kept waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_keys_do_not_expire() {
    for version in ["REDIS_7_0", "VALKEY_9_1"] {
        let (source, target) = (Redis::start(version, &[]), Redis::start(version, &[]));
        source.run("DEBUG POPULATE 20000 filler 100");
        for i in 0..20 {
            source.run(&format!("SET renewed:{i} 0 PX 900"));
            source.run(&format!("SET dying:{i} 0 PX 1500"));
            source.run(&format!("SET long:{i} 0 PX 3600000"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let renewing = {
            let (port, stop) = (source.port, stop.clone());
            std::thread::spawn(move || {
                let mut to = Connection::to(port);
                while !stop.load(Ordering::Relaxed) {
                    for i in 0..20 {
                        to.run(&format!("INCR renewed:{i}"));
                        to.run(&format!("PEXPIRE renewed:{i} 900"));
                    }
                    std::thread::park_timeout(Duration::from_millis(100));
                }
            })
        };
        // Slow enough that every life ends while the snapshot is on its way.
        let mut one = migration(&source, &target, Until::Stopped);
        one.options.bandwidth = Arc::new(flow_control::budget::Bandwidth::new(256 << 10));
        let following = Following::start(one);
        following.streams().await;
        stop.store(true, Ordering::Relaxed);
        renewing.join().unwrap();
        for i in 0..20 {
            source.run(&format!("PERSIST renewed:{i}"));
        }
        following.wait_caught_up(&source).await;
        following.until(|_| no_key_is_suspect(&target)).await;
        let summary = following.stop().await;
        assert!(summary.full_seconds > 1.5, "{summary:?}");
        same(&source, &target).await;
        assert_eq!(
            source.run("DBSIZE").number(),
            Some(20_040),
            "{version}: dying keys are gone, all others are there"
        );
        assert_eq!(target.run("EXISTS dying:3").number(), Some(0));
        assert!(target.run("PTTL long:3").number().unwrap() > 3_000_000, "a long life is what it was");
    }
}

/// Keys with short lives, all in one slot.
const SHORT: [&str; 13] = [
    "HSET {x}hash a 1 b 2",
    "SET {x}counter 57",
    "RPUSH {x}list a b c",
    "XADD {x}stream 1-1 f v",
    "SET {x}renamed v",
    "SADD {x}one a b",
    "RPUSH {x}lasting a",
    "SET {x}copied v",
    "ZADD {x}rank 1 a",
    "SET {x}whole v",
    "HSET {x}deleted a 1",
    "HSET {x}dying a 1",
    "SET {x}again 1",
];

/// What happens to them while nobody follows, and the target's clock takes all of them.
const CHANGES: [&str; 29] = [
    "HSET {x}hash a 9",
    "INCR {x}counter",
    "RPUSH {x}list d",
    "LSET {x}list 3 e",
    "XADD {x}stream 2-1 f v",
    "XGROUP CREATE {x}stream g 0",
    "XGROUP CREATECONSUMER {x}stream g c",
    "RENAME {x}renamed {x}renamed:2",
    "SADD {x}other c",
    "SUNIONSTORE {x}union {x}one {x}other",
    "PERSIST {x}lasting",
    "RPUSH {x}lasting b",
    "COPY {x}copied {x}copy",
    "ZINCRBY {x}rank 2 a",
    "SET {x}whole w KEEPTTL",
    "DEL {x}deleted",
    "HSET {x}deleted b 2",
    "HSET {x}fresh a 1",
    "DEL {x}again",
    "INCR {x}again",
    "SET {x}born v PXAT 1",
    "SET {x}late v EX 1000",
    "SET {x}late w XX",
    "RPUSH {x}typed 1",
    "SET {x}short v PX 2000",
    "RENAME {x}short {x}typed",
    "APPEND {x}typed x",
    "BITOP OR {x}bits {x}typed",
    "PERSIST {x}typed",
];

async fn repaired(source: &Redis, target: redis_migration::Node, at: impl Fn() -> Connection) {
    let run = |line: &str| {
        let reply = source.run(line);
        assert!(!matches!(reply, Reply::Error(_)), "{line}: {reply:?}");
    };
    let key = |line: &str| line.split(' ').nth(1).unwrap().to_owned();
    for line in SHORT {
        run(line);
        run(&format!("PEXPIRE {} 2500", key(line)));
    }
    let migration = |until| migration_at(node(source), target.clone(), until);
    let first = migration(Until::CaughtUp).run().await.unwrap();
    assert_eq!((first.done, first.full_syncs), (true, 1));
    for line in SHORT.iter().filter(|line| !line.contains("dying")) {
        run(&format!("PEXPIRE {} 3600000", key(line)));
    }
    let began = std::time::Instant::now();
    while SHORT.iter().any(|line| at().run(&format!("EXISTS {}", key(line))).number() != Some(0)) {
        assert!(began.elapsed() < Duration::from_secs(20), "the target's clock takes nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for line in CHANGES {
        run(line);
    }
    // What was given a short life only now ends it before the target receives it.
    run("SET {x}last v PX 2050");
    while source.run("EXISTS {x}last").number() == Some(1) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One run ends without a word somewhere on the way; its suspects still count.
    let killed = migration(Until::Stopped);
    let progress = killed.progress.clone();
    let task = tokio::spawn(async move { killed.run().await });
    while progress.commands.load(Ordering::Relaxed) == 0 {
        assert!(!task.is_finished());
        tokio::task::yield_now().await;
    }
    task.abort();
    let last = migration(Until::CaughtUp).run().await.unwrap();
    assert_eq!((last.done, last.full_syncs), (true, 0), "{last:?}");
    let found = compare(&node(source), &target, &Route::default(), Depth::Full).await.unwrap();
    assert!(
        found.is_same(),
        "{source:?}: {found:?}, {:?} {:?}",
        source.run("DUMP {x}stream"),
        at().run("DUMP {x}stream")
    );
    let lives = at().run("PTTL {x}hash").number();
    assert!(lives.is_some_and(|ms| ms > 3_000_000), "{lives:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_expired_at_the_target_during_a_gap_are_restored() {
    for (from, to) in [("REDIS_7_0", "REDIS_7_0"), ("REDIS_6_2", "VALKEY_9_1"), ("REDIS_7_0", "REDIS_6_2")] {
        let (source, target) = (Redis::start(from, &[]), Redis::start(to, &[]));
        repaired(&source, node(&target), || target.connect()).await;
        assert!(no_key_is_suspect(&target));
    }
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Cluster::start("REDIS_7_0", 3, false, &[]));
    let place = redis_migration::Node::parse(&target.url()).unwrap();
    repaired(&source, place, || target.of_slot(slot(b"{x}"), 3)).await;
    assert!(target.servers.iter().all(no_key_is_suspect));
}

/// A key that a change should have replaced has another type at the target, and is still suspect after a restart: what changes it
/// then may fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retyped_key_is_repaired_after_a_restart() {
    for commands in [
        &["RENAME {x}hash {x}other", "HSET {x}other b 2"][..],
        &["COPY {x}hash {x}other REPLACE", "HINCRBY {x}other b 2", "DEL {x}hash"],
    ] {
        let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
        source.run("HSET {x}hash a 1");
        source.run("PEXPIRE {x}hash 1500");
        source.run("RPUSH {x}other v");
        assert!(migration(&source, &target, Until::CaughtUp).run().await.unwrap().done);
        source.run("PERSIST {x}hash");
        while target.run("EXISTS {x}hash").number() != Some(0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        source.run(commands[0]);
        // Slow enough that the run is killed before it has caught up; the replication backlog holds 1 MiB.
        let mut to = source.connect();
        for i in 0..8 {
            let (key, value) = (format!("filler:{i}"), vec![b'v'; 64 << 10]);
            to.call(&[b"SET", key.as_bytes(), &value]);
        }
        let mut killed = migration(&source, &target, Until::Stopped);
        killed.options.bandwidth = Arc::new(flow_control::budget::Bandwidth::new(64 << 10));
        let task = tokio::spawn(async move { killed.run().await });
        while target.run("ZCARD whimbrel:redis:doubted:test").number() != Some(2) {
            assert!(!task.is_finished());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        task.abort();
        assert_eq!(target.run("TYPE {x}other"), Reply::Simple("list".into()), "nothing was repaired yet");
        for line in &commands[1..] {
            source.run(line);
        }
        let summary = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
        assert_eq!((summary.done, summary.full_syncs), (true, 0), "{summary:?}");
        same(&source, &target).await;
        assert!(no_key_is_suspect(&target));
    }
}

/// Where the target runs no scripts, what is touched is listed unseen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_renewed_keys_are_restored() {
    let source = Redis::start("REDIS_7_0", &[]);
    let target = Redis::start("REDIS_7_0", &["--rename-command", "EVAL", ""]);
    source.run("RPUSH other v");
    for key in ["session", "renamed"] {
        source.run(&format!("HSET {key} a 1 b 2"));
        source.run(&format!("PEXPIRE {key} 1500"));
    }
    assert!(migration(&source, &target, Until::CaughtUp).run().await.unwrap().done);
    source.run("PERSIST session");
    source.run("PERSIST renamed");
    for key in ["session", "renamed"] {
        while target.run(&format!("EXISTS {key}")).number() != Some(0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    source.run("HSET session a 9");
    // Commands that would fail at the target.
    for line in ["RENAME renamed other", "HSET other b 3"] {
        source.run(line);
    }
    // What was listed outlives who listed it.
    let killed = migration(&source, &target, Until::Stopped);
    let progress = killed.progress.clone();
    let task = tokio::spawn(async move { killed.run().await });
    while progress.commands.load(Ordering::Relaxed) == 0 {
        assert!(!task.is_finished());
        tokio::task::yield_now().await;
    }
    task.abort();
    let summary = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert!(summary.notes.iter().any(|note| note.contains("EVAL")), "{summary:?}");
    same(&source, &target).await;
}

/// One change of many kinds, to one of few keys, many of which have short lives.
fn any_change(random: &mut fastrand::Rng) -> String {
    let n = |random: &mut fastrand::Rng| random.u32(..12);
    let (a, b, c) = (n(random), n(random), n(random));
    let ms = 1200 + random.u32(..2500);
    let kind = *random.choice(["string", "hash", "list", "set", "zset", "stream"].iter()).unwrap();
    match random.u32(..33) {
        0..=3 => format!("PEXPIRE {{x}}{kind}:{a} {ms}"),
        4 => format!("PEXPIRE {{x}}{kind}:{a} 3600000"),
        5 => format!("PERSIST {{x}}{kind}:{a}"),
        6 => format!("RENAME {{x}}{kind}:{a} {{x}}{kind}:{b}"),
        7 => format!("COPY {{x}}{kind}:{a} {{x}}{kind}:{b} REPLACE"),
        8 => format!("DEL {{x}}{kind}:{a}"),
        9 | 10 => format!("INCR {{x}}string:{a}"),
        11 => format!("SET {{x}}string:{a} {b} PX {ms}"),
        12 => format!("SET {{x}}string:{a} {b} KEEPTTL"),
        13 => format!("GETEX {{x}}string:{a} PX {ms}"),
        14 | 15 => format!("HSET {{x}}hash:{a} f{b} {c}"),
        16 => format!("HINCRBY {{x}}hash:{a} n {c}"),
        17 | 18 => format!("RPUSH {{x}}list:{a} {b} {c}"),
        19 => format!("LSET {{x}}list:{a} -1 x{c}"),
        20 => format!("LMOVE {{x}}list:{a} {{x}}list:{b} LEFT RIGHT"),
        21 => format!("LPOP {{x}}list:{a} 2"),
        22 => format!("SADD {{x}}set:{a} {b} {c}"),
        23 => format!("SUNIONSTORE {{x}}set:{a} {{x}}set:{b} {{x}}set:{c}"),
        24 => format!("SMOVE {{x}}set:{a} {{x}}set:{b} {c}"),
        25 => format!("ZINCRBY {{x}}zset:{a} {b} m{c}"),
        26 => format!("ZUNIONSTORE {{x}}zset:{a} 2 {{x}}zset:{b} {{x}}zset:{c}"),
        27 => format!("XADD {{x}}stream:{a} * f {b}"),
        28 => format!("XGROUP CREATE {{x}}stream:{a} g{b} 0"),
        29 => format!("XGROUP SETID {{x}}stream:{a} g{b} $"),
        30 => format!("SET {{x}}string:{a} {b} XX GET"),
        // Into another type.
        31 => format!("RENAME {{x}}{kind}:{a} {{x}}list:{b}"),
        _ => format!("APPEND {{x}}list:{a} {b}"),
    }
}

/// A life that has less left is let go: whoever follows the source may be as far behind without knowing it.
const LAST_MS: i64 = 1000;

/// Makes a change, which may fail; that changes nothing.
fn change(to: &mut Connection, line: &str) {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    for key in words.iter().filter(|word| word.starts_with(b"{x}")) {
        if (0..LAST_MS).contains(&to.call(&[b"PTTL", key]).number().unwrap()) {
            return;
        }
    }
    let _ = to.call(&words);
}

/// Random changes for a while, in several databases.
async fn many_changes(to: &mut Connection, random: &mut fastrand::Rng, dbs: u32, ms: u32) {
    for _ in 0..ms / 5 {
        if dbs > 1 {
            to.run(&format!("SELECT {}", random.u32(..dbs)));
        }
        for _ in 0..8 {
            change(to, &any_change(random));
        }
        if dbs > 1 && random.u32(..20) == 0 {
            change(to, &format!("SWAPDB {} {}", random.u32(..dbs), random.u32(..dbs)));
        }
        if dbs > 1 && random.u32(..4) == 0 {
            let (kind, a, db) = (["string", "hash"][random.usize(..2)], random.u32(..12), random.u32(..dbs));
            change(to, &format!("MOVE {{x}}{kind}:{a} {db}"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Migrations that stop, are killed and stay away, while keys expire and are renewed.
async fn through_interruptions(
    source: &Redis,
    target: redis_migration::Node,
    dbs: u32,
    rounds: u64,
    seed: u64,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut to = source.connect();
    let mut fulls = 0;
    for _ in 0..rounds {
        let one = migration_at(node(source), target.clone(), Until::Stopped);
        if random.bool() {
            let following = Following::start(one);
            many_changes(&mut to, &mut random, dbs, 400).await;
            following.streams().await;
            fulls += following.stop().await.full_syncs;
        } else {
            let task = tokio::spawn(async move { one.run().await });
            let ms = random.u32(20..500);
            many_changes(&mut to, &mut random, dbs, ms).await;
            assert!(!task.is_finished(), "seed {seed}: {:?}", task.await);
            task.abort();
        }
        let gap = random.u32(..3500);
        many_changes(&mut to, &mut random, dbs, gap).await;
    }
    let last = migration_at(node(source), target.clone(), Until::CaughtUp).run().await.unwrap();
    assert!(last.done && fulls + last.full_syncs <= 2, "seed {seed}: {last:?}");
    let found = compare(&node(source), &target, &Route::default(), Depth::Full).await.unwrap();
    assert!(found.is_same(), "seed {seed}: {found:?}");
}

#[allow(clippy::print_stdout, reason = "the soak's figures")]
async fn random_expiries_through_interruptions(rounds: u64, seeds: u64) {
    for seed in 0..seeds {
        for (from, to) in
            [("REDIS_7_0", "REDIS_7_0"), ("REDIS_6_2", "REDIS_8_2"), ("VALKEY_9_1", "REDIS_6_2")]
        {
            let (source, target) = (Redis::start(from, &[]), Redis::start(to, &[]));
            through_interruptions(&source, node(&target), 3, rounds, seed).await;
            println!("interruptions: {from} to {to}, seed {seed}: equal");
        }
        let (source, target) = (Redis::start("REDIS_7_0", &[]), Cluster::start("REDIS_7_0", 3, false, &[]));
        through_interruptions(&source, redis_migration::Node::parse(&target.url()).unwrap(), 1, rounds, seed)
            .await;
        println!("interruptions: REDIS_7_0 to a cluster, seed {seed}: equal");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_expiries_are_right_through_interruptions() {
    random_expiries_through_interruptions(3, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: cargo x soak interruptions"]
async fn soak_random_expiries_are_right_through_interruptions() {
    random_expiries_through_interruptions(10, 12).await;
}

/// A suspect key goes with its database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapdb_moves_suspect_keys() {
    for (a, b) in [(0, 1), (1, 0), (1, 2), (2, 2)] {
        let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
        let mut to = source.connect();
        for db in 0..3 {
            to.run(&format!("SELECT {db}"));
            for key in ["kept", "dies", "shrinks"] {
                to.run(&format!("HSET {key} a {db} b 2"));
                to.run(&format!("PEXPIRE {key} 1500"));
            }
        }
        assert!(migration(&source, &target, Until::CaughtUp).run().await.unwrap().done);
        for db in 0..3 {
            to.run(&format!("SELECT {db}"));
            to.run("PEXPIRE kept 3600000");
            to.run("PEXPIRE shrinks 2500");
            to.run("HSET dies b 3");
        }
        to.run(&format!("SWAPDB {a} {b}"));
        for db in 0..3 {
            to.run(&format!("SELECT {db}"));
            to.run("HSET kept b 4");
            to.run("HSET shrinks b 4");
        }
        while (0..3).any(|db| {
            let mut at = target.connect();
            at.run(&format!("SELECT {db}"));
            at.run("EXISTS kept").number() != Some(0)
        }) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let last = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
        assert_eq!((last.done, last.full_syncs), (true, 0));
        let found = compare(&node(&source), &node(&target), &Route::default(), Depth::Full).await.unwrap();
        assert!(found.is_same(), "{a} {b}: {found:?}");
        assert!(no_key_is_suspect(&target));
    }
}
