//! One test for each case that public bug reports of other tools led to; each carries the id of its case.
#![allow(clippy::disallowed_methods, reason = "a test connects to the server that it starts")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::error::{Error, Kind, Result};
use redis_migration::import::Import;
use redis_migration::session::scan::ScanMigration;
use redis_migration::verify::{Depth, compare};
use redis_migration::{Migration, Options, Summary, Until};
use redis_proto::resp::Reply;
use testkit::redis::{Cluster, Redis};
use tokio_util::sync::CancellationToken;

use crate::support::{Following, migration, migration_at, node, same};

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

fn scan(source: &Redis, target: &Redis) -> ScanMigration {
    ScanMigration {
        source: node(source),
        target: node(target),
        options: Options { until: Until::CaughtUp, ..migration(source, target, Until::Full).options.clone() },
        clock: flow_control::clock::system(),
        progress: Arc::default(),
        stop: CancellationToken::new(),
    }
}

/// Imports files.
pub(crate) async fn import(files: Vec<PathBuf>, target: &Redis) -> Result<Summary> {
    import_with(files, target, migration(target, target, Until::Full)).await
}

async fn import_with(files: Vec<PathBuf>, target: &Redis, like: Migration) -> Result<Summary> {
    let import = Import {
        files,
        target: node(target),
        options: like.options,
        skip_unsafe_commands: false,
        clock: flow_control::clock::system(),
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

fn refused(done: Result<Summary>) -> Error {
    done.expect_err("it was refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_01_database_missing_at_the_target_changes_no_other() {
    let source = Redis::start("REDIS_7_0", &[&WIDE[..], &["--notify-keyspace-events", "KA"]].concat());
    let target = Redis::start("REDIS_7_0", &[]);
    run(&source, &["SET a right", "SELECT 40", "SET a WRONG", "HSET h f v", "SET ttl x EX 1000"]);
    let failed = refused(migration(&source, &target, Until::CaughtUp).run().await);
    assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{failed}");
    let failed = refused(scan(&source, &target).run().await);
    assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{failed}");
    let failed = refused(import(vec![dump(&source)], &target).await);
    assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{failed}");
    // A typing error in a mapping.
    let mut wrong = migration(&source, &target, Until::CaughtUp);
    wrong.options.route.db_map = [(0, 20)].into();
    assert_eq!(refused(wrong.run().await).op, "databases");
    assert_eq!(target.run("DBSIZE"), Reply::Int(0), "nothing was written");
    // Mapped, everything is copied.
    let mut mapped = migration(&source, &target, Until::CaughtUp);
    mapped.options.route.db_map = [(40, 3)].into();
    assert!(mapped.run().await.unwrap().done);
    assert_eq!(get(&target, "a").as_deref(), Some("right"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_01_red_26_database_first_used_in_the_stream_changes_no_other() {
    for lines in [
        &["SELECT 40", "SET acct 0"][..],
        &["MULTI", "SELECT 40", "SET acct 0", "INCR n", "EXEC"],
        &["MOVE acct 40"],
        &["COPY acct acct DB 40"],
        &["SWAPDB 0 40"],
    ] {
        let (source, target) = (Redis::start("REDIS_7_0", &WIDE), Redis::start("REDIS_7_0", &[]));
        run(&source, &["SET acct 100"]);
        let following = Following::start(migration(&source, &target, Until::Stopped));
        following.streams().await;
        run(&source, lines);
        let failed = refused(following.ended().await);
        assert_eq!((failed.kind, failed.op), (Kind::Unsupported, "databases"), "{lines:?}: {failed}");
        assert_eq!(get(&target, "acct").as_deref(), Some("100"), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_01_red_15_user_without_select_writes_no_other_database() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    run(&target, &["ACL SETUSER mover on >pw ~* &* +@all -select"]);
    run(&source, &["SET a right", "SELECT 1", "SET a WRONG"]);
    let mut at = node(&target);
    (at.user, at.password) = ("mover".into(), "pw".into());
    let failed = refused(migration_at(node(&source), at.clone(), Until::CaughtUp).run().await);
    assert_eq!((failed.kind, failed.op), (Kind::Forbidden, "databases"), "{failed}");
    assert_eq!(target.run("DBSIZE"), Reply::Int(0));
}

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
async fn red_02_cluster_is_compared_completely_from_any_node() {
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
    assert!(compared.is_same() && i64::try_from(compared.keys).unwrap() == held, "{compared:?}");
    target.run("FLUSHALL");
    let compared = compare(&named, &node(&target), &route, Depth::Full).await.unwrap();
    assert_eq!(i64::try_from(compared.missing).unwrap(), held, "{compared:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_03_keys_only_at_the_target_are_extra_in_every_database() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &WIDE));
    let extra = async |depth, map: &[(u32, u32)]| {
        let db_map = map.iter().copied().collect();
        let route = redis_migration::route::Route { db_map, ..Default::default() };
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
async fn red_04_idle_connections_cause_no_second_full_sync() {
    let slow = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "4", "--timeout", "1"];
    let source = Redis::start("REDIS_7_0", &slow);
    let target = Redis::start("REDIS_7_0", &["--timeout", "1"]);
    run(&source, &["SET a 1"]);
    let following = Following::start(migration(&source, &target, Until::Stopped));
    following.streams().await;
    let before = info(&target, "stats", "total_connections_received").unwrap();
    // Nothing is written for longer than the target waits.
    let idle = tokio::time::Instant::now();
    following.until(|_| idle.elapsed() > Duration::from_secs(4)).await;
    run(&source, &["INCR a"]);
    following.wait_caught_up(&source).await;
    let summary = following.stop().await;
    assert_eq!((summary.full_syncs, summary.partial_syncs), (1, 0), "{summary:?}");
    assert_eq!(get(&target, "a").as_deref(), Some("2"));
    // Those of the test itself: two.
    let made = info(&target, "stats", "total_connections_received").unwrap() - before;
    assert!(made <= 4, "{made} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_07_temporary_errors_are_retried() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    run(&source, &["SET a 1"]);
    let following = Following::start(migration(&source, &target, Until::Stopped));
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
        // It is refused at least once, and the migration is still there.
        following.until(|p| p.phase.load(std::sync::atomic::Ordering::Relaxed) != 2).await;
        target.run(allow);
        following.streams().await;
        following.wait_caught_up(&source).await;
    }
    let summary = following.stop().await;
    assert_eq!(summary.full_syncs, 1, "{summary:?}");
    same(&source, &target).await;
    assert_eq!(get(&target, "n").as_deref(), Some("40"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_27_user_without_password_is_authenticated_by_name() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    run(
        &source,
        &["SET a 1", "ACL SETUSER free on nopass ~* &* +@all", "ACL SETUSER weak on nopass ~* &* +ping"],
    );
    let named = |user: &str| {
        let mut at = node(&source);
        at.user = user.into();
        migration_at(at, node(&target), Until::CaughtUp)
    };
    assert_eq!(refused(named("weak").run().await).kind, Kind::Forbidden);
    assert!(named("free").run().await.unwrap().done);
}

fn text(s: &[u8]) -> Vec<u8> {
    [&[u8::try_from(s.len()).unwrap()][..], s].concat()
}

/// An RDB file; its checksum is left out.
fn rdb(version: &str, body: &[u8]) -> Vec<u8> {
    [version.as_bytes(), body, b"\xff", &[0; 8]].concat()
}

/// Commands as an append-only file has them.
fn aof(lines: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        redis_proto::resp::command(&mut out, &words);
    }
    out
}

fn keys(redis: &Redis) -> Vec<String> {
    let reply = redis.run("KEYS *");
    let mut keys: Vec<String> = reply
        .array()
        .unwrap()
        .iter()
        .filter_map(|k| Some(String::from_utf8_lossy(k.text()?).into_owned()))
        .filter(|k| !k.starts_with("whimbrel:"))
        .collect();
    keys.sort();
    keys
}

/// Imports the bytes of one file.
async fn import_bytes(bytes: &[u8], target: &Redis) -> Result<Summary> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    std::fs::write(&file, bytes).unwrap();
    import(vec![file], target).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_09_c18_empty_collections_are_skipped() {
    let listpack = text(b"\x07\0\0\0\0\0\xff");
    let ziplist = text(b"\x0b\0\0\0\x0a\0\0\0\0\0\xff");
    let kinds: [(u8, Vec<u8>); 8] = [
        (1, vec![0]),
        (2, vec![0]),
        (4, vec![0]),
        (5, vec![0]),
        (10, ziplist.clone()),
        (13, ziplist),
        (16, listpack.clone()),
        (18, [&[1, 2][..], &listpack].concat()),
    ];
    for version in ["REDIS_7_0", "REDIS_6_2"] {
        let target = Redis::start(version, &[]);
        for (kind, value) in &kinds {
            target.run("FLUSHALL");
            let body = [
                &b"\xfe\0\0"[..],
                &text(b"before"),
                &text(b"1"),
                &[*kind],
                &text(b"empty"),
                value,
                &[0],
                &text(b"after"),
                &text(b"2"),
            ]
            .concat();
            let done = import_bytes(&rdb("REDIS0010", &body), &target).await.unwrap();
            assert_eq!(keys(&target), ["after", "before"], "type {kind} to {version}");
            assert_eq!(
                (done.full.empty, done.failed.len(), done.full.unsupported.len()),
                (1, 0, 0),
                "type {kind}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_10_incomplete_aof_tail_is_ignored() {
    let target = Redis::start("REDIS_7_0", &[]);
    let commands = aof(&["SELECT 0", "SET a 1", "RPUSH l 1 2", "SET b 2"]);
    let snapshot = rdb("REDIS0009", &[&b"\xfe\0\0"[..], &text(b"pk"), &text(b"pv")].concat());
    let cut = b"*3\r\n$3\r\nSET\r\n$1\r\nc\r\n$5\r\nhe";
    let nul = |n: usize| vec![0; n];
    for (name, bytes, want) in [
        ("one page", [&commands[..], &nul(4096)].concat(), vec!["a", "b", "l"]),
        ("many pages", [&commands[..], &nul(700_000)].concat(), vec!["a", "b", "l"]),
        ("a few", [&commands[..], &nul(12)].concat(), vec!["a", "b", "l"]),
        ("cut", [&commands[..], cut].concat(), vec!["a", "b", "l"]),
        ("cut and NUL", [&commands[..], cut, &nul(300)].concat(), vec!["a", "b", "l"]),
        ("transaction", [&commands[..], &aof(&["MULTI", "SET m 1"]), &nul(9)].concat(), vec!["a", "b", "l"]),
        (
            "behind a snapshot and commands",
            [&snapshot[..], &commands, &nul(100)].concat(),
            vec!["a", "b", "l", "pk"],
        ),
        ("behind a snapshot", [&snapshot[..], &nul(100)].concat(), vec!["pk"]),
        ("a snapshot alone", snapshot.clone(), vec!["pk"]),
    ] {
        target.run("FLUSHALL");
        let done = import_bytes(&bytes, &target).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(keys(&target), want, "{name}");
        assert_eq!(
            done.notes.iter().any(|n| n.contains("NUL bytes")),
            bytes.ends_with(&[0; 9]),
            "{name}: {:?}",
            done.notes
        );
    }
    for bytes in [
        [&commands[..], b"hello world\r\n"].concat(),
        [&commands[..], &nul(10), &aof(&["SET z 1"])].concat(),
        nul(20),
    ] {
        target.run("FLUSHALL");
        assert_eq!(refused(import_bytes(&bytes, &target).await).kind, Kind::Corrupt);
        // It was seen before anything was written.
        assert_eq!(target.run("DBSIZE").number(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_10_only_the_last_aof_part_may_be_truncated() {
    let target = Redis::start("REDIS_7_0", &[]);
    let dir = tempfile::tempdir().unwrap();
    let manifest = "file \"my a.1.aof\" seq 1 type i\nfile a.2.aof seq 2 type i\n";
    std::fs::write(dir.path().join("a.manifest"), manifest).unwrap();
    let (first, second) = (aof(&["SET a 1"]), aof(&["SET b 2"]));
    for (cut, whole) in [(true, false), (false, true)] {
        target.run("FLUSHALL");
        let of = |bytes: &[u8], cut: bool| bytes[..bytes.len() - if cut { 3 } else { 0 }].to_vec();
        std::fs::write(dir.path().join("my a.1.aof"), of(&first, cut)).unwrap();
        std::fs::write(dir.path().join("a.2.aof"), of(&second, !cut)).unwrap();
        let done = import(vec![dir.path().into()], &target).await;
        assert_eq!(done.is_ok(), whole, "{done:?}");
        assert_eq!(keys(&target).len(), usize::from(whole));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_08_red_28_backups_of_other_servers_are_read_or_rejected() {
    let target = Redis::start("REDIS_7_0", &[]);
    let expire = flow_control::clock::system().now_ms() + 600_000;
    // As KeyDB writes: what it knows beside a key stands between its expiry and its type.
    let body = [
        &b"\xfe\0\xfc"[..],
        &expire.to_le_bytes(),
        b"\xfa",
        &text(b"mvcc-tstamp"),
        &text(b"1"),
        b"\xfb\x02\x01\x00",
        &text(b"k"),
        &text(b"v"),
    ]
    .concat();
    for version in ["REDIS0009", "REDIS0013", "REDIS0014", "VALKEY081"] {
        target.run("FLUSHALL");
        import_bytes(&rdb(version, &body), &target).await.unwrap_or_else(|e| panic!("{version}: {e}"));
        assert_eq!(get(&target, "k").as_deref(), Some("v"), "{version}");
        assert!(target.run("PTTL k").number().unwrap() > 500_000);
    }
    target.run("FLUSHALL");
    let foreign = [&b"\xfe\0\x00"[..], &text(b"a"), &text(b"1"), b"\x6b", &text(b"k"), &text(b"v")].concat();
    let failure = refused(import_bytes(&rdb("REDIS0011", &foreign), &target).await);
    assert_eq!(failure.kind, Kind::Unsupported);
    assert!(
        failure.message.contains("type 107")
            && failure.to_string().contains(
                "newer or different \
         server"
            ),
        "{failure}"
    );
    assert_eq!(target.run("DBSIZE").number(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c15_c16_commands_without_keys_are_applied_or_rejected() {
    let file = aof(&[
        "SELECT 0",
        "SET swept 1",
        "FLUSHALL",
        "EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 scripted x",
        "PFADD hll a b",
        "PFCOUNT hll",
        "SET a 1",
        "SWAPDB 0 1",
        "SET b 2",
        "FUNCTION FLUSH",
    ]);
    // What a server has that loads it.
    let server = Redis::start("REDIS_7_0", &[]);
    for line in [
        "EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 scripted x",
        "PFADD hll a b",
        "PFCOUNT hll",
        "SET a 1",
        "SWAPDB 0 1",
        "SET b 2",
    ] {
        server.run(line);
    }
    let target = Redis::start("REDIS_7_0", &[]);
    let done = import_bytes(&file, &target).await.unwrap();
    assert_eq!((done.failed.len(), done.notes.len()), (0, 0), "{:?}", done.notes);
    same(&server, &target).await;
    assert_eq!(keys(&target), ["b"]);

    // Beside what is there: refused before the first write, or left out when that is said.
    let shared = Redis::start("REDIS_7_0", &[]);
    run(&shared, &["SET own 1"]);
    let failure = refused(import_bytes(&file, &shared).await);
    assert_eq!(failure.kind, Kind::Unsupported);
    for name in ["EVAL", "FLUSHALL", "SWAPDB", "FUNCTION"] {
        assert!(failure.message.contains(&format!("1 × {name}")), "{failure}");
    }
    assert_eq!(keys(&shared), ["own"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.aof");
    std::fs::write(&path, &file).unwrap();
    let mut like = migration(&shared, &shared, Until::Full);
    let left = import_leaving_out(vec![path.clone()], &shared, like.options.clone()).await.unwrap();
    assert_eq!(keys(&shared), ["a", "b", "hll", "own", "swept"]);
    assert!(left.notes.iter().any(|n| n.contains("EVAL")), "{:?}", left.notes);
    // Databases that are mapped are another import than a server's.
    like.options.route.db_map.insert(0, 3);
    let empty = Redis::start("REDIS_7_0", &[]);
    assert_eq!(refused(import_with(vec![path], &empty, like).await).kind, Kind::Unsupported);
    assert_eq!(info(&empty, "keyspace", "db3"), None);
}

async fn import_leaving_out(files: Vec<PathBuf>, target: &Redis, options: Options) -> Result<Summary> {
    let import = Import {
        files,
        target: node(target),
        options,
        skip_unsafe_commands: true,
        clock: flow_control::clock::system(),
        progress: Arc::default(),
        stop: CancellationToken::new(),
    };
    import.run().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c17_commands_rejected_by_the_target_are_counted_and_named() {
    let file = aof(&[
        "SET s 1",
        "FUNCTION LOAD LUA old x",
        "LPUSH s 1",
        "MULTI",
        "SET m 1",
        "LPUSH s 2",
        "EXEC",
        "SET z 1",
    ]);
    let target = Redis::start("REDIS_7_0", &[]);
    let done = import_bytes(&file, &target).await.unwrap();
    assert_eq!((done.refused, done.failed.len(), done.done), (3, 3, true), "{:?}", done.failed);
    assert!(
        done.failed[1].contains("`LPUSH s`") && done.failed[1].contains("WRONGTYPE"),
        "{:?}",
        done.failed
    );
    assert_eq!(keys(&target), ["m", "s", "z"]);

    let cluster = Cluster::start("REDIS_7_0", 3, false, &[]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.aof");
    std::fs::write(&path, aof(&["SET s 1", "LPUSH s 1", "SET z 1"])).unwrap();
    let done = import(vec![path], &cluster.servers[0]).await.unwrap();
    assert_eq!((done.refused, done.failed.len()), (1, 1), "{:?}", done.failed);
    // RED-22: the token is removed.
    let left: usize =
        cluster.servers.iter().map(|s| s.run("KEYS whimbrel:redis:owner:*").array().unwrap().len()).sum();
    assert_eq!(left, 0);
}

/// Runs words that may hold anything.
fn call(redis: &Redis, words: &[&[u8]]) -> Reply {
    let reply = redis.connect().call(words);
    assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
    reply
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

    // Nor is what we remember: the texts stand beside the position.
    target.run("SCRIPT FLUSH");
    call_it(5);
    let went_on = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert_eq!((went_on.partial_syncs, went_on.full_syncs), (1, 0));
    same(&source, &target).await;

    // A flushed target keeps what is ours.
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
async fn red_18_reverse_migration_is_rejected_as_a_loop() {
    let (a, b) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    a.run("SET n 0");
    let there = Following::start(migration(&a, &b, Until::Stopped));
    there.streams().await;
    // The way back, begun while the way there runs, is refused before anything is written.
    let back = migration(&b, &a, Until::Stopped).run().await;
    let failure = refused(back);
    assert_eq!((failure.kind, failure.op), (Kind::Conflict, "loop"), "{failure}");
    a.run("INCR n");
    there.wait_caught_up(&a).await;
    assert_eq!((get(&a, "n").as_deref(), get(&b, "n").as_deref()), (Some("1"), Some("1")));
    there.stop().await;

    // After it was stopped the way back is free: that is how one rolls back.
    let back = Following::start(migration(&b, &a, Until::Stopped));
    back.streams().await;
    b.run("INCR n");
    back.wait_caught_up(&b).await;
    assert_eq!(get(&a, "n").as_deref(), Some("2"));
    // What goes on from before it would do all of that again.
    let again = refused(migration(&a, &b, Until::Stopped).run().await);
    assert_eq!(again.op, "loop", "{again}");
    back.stop().await;
    let again = refused(migration(&a, &b, Until::Stopped).run().await);
    assert_eq!(again.op, "loop", "{again}");
    assert_eq!(get(&b, "n").as_deref(), Some("2"));
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_22_migration_keys_can_be_removed() {
    use redis_migration::checkpoint::cleanup::clean;
    let (source, cluster) = (Redis::start("REDIS_7_0", &[]), Cluster::start("REDIS_7_0", 3, false, &[]));
    for i in 0..50 {
        source.run(&format!("SET k{i} {i}"));
    }
    let target = node(&cluster.servers[0]);
    let left = |cluster: &Cluster| -> usize {
        cluster.servers.iter().map(|s| s.run("KEYS whimbrel:*").array().unwrap().len()).sum()
    };
    let following = Following::start(migration(&source, &cluster.servers[0], Until::Stopped));
    following.streams().await;
    for i in 0..50 {
        source.run(&format!("INCR k{i}"));
    }
    following.wait_caught_up(&source).await;
    let busy = clean(&target, false).await.unwrap_err();
    assert_eq!((busy.kind, busy.op), (Kind::Conflict, "clean"));
    following.stop().await;
    let before = left(&cluster);
    assert!(before > 0);
    assert_eq!(clean(&target, false).await.unwrap(), before as u64);
    assert_eq!(left(&cluster), 0);
    same(&source, &cluster.servers[0]).await;
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
    let left_out = &summary.full.unsupported;
    assert!(left_out.keys().any(|what| what.starts_with("EXPIREMEMBER")), "{left_out:?}");
    same(&source, &target).await;
}

const ONE: &[u8] = b"#!lua name=slib\nredis.register_function('f', function(k,a) return 'new' end)";
const OTHER: &[u8] = b"#!lua name=tlib\nredis.register_function('f', function(k,a) return 'old' end)";

fn load(redis: &Redis, code: &[u8]) {
    call(redis, &[b"FUNCTION", b"LOAD", code]);
}

fn called(redis: &Redis) -> String {
    let said = redis.connect().call(&[b"FCALL", b"f", b"0"]);
    said.text().map_or_else(|| format!("{said:?}"), |t| String::from_utf8_lossy(t).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_13_functions_of_the_snapshot_conflict_with_another_library() {
    use redis_migration::FunctionPolicy;
    for (policy, says) in
        [(FunctionPolicy::Stop, "old"), (FunctionPolicy::Skip, "old"), (FunctionPolicy::Replace, "new")]
    {
        let source = Redis::start("REDIS_7_0", &["--notify-keyspace-events", "KA"]);
        for by_scan in [false, true] {
            let target = Redis::start("REDIS_7_0", &[]);
            source.run("FUNCTION FLUSH");
            source.run("SET a 1");
            load(&source, ONE);
            load(&target, OTHER);
            let mut one = migration(&source, &target, Until::CaughtUp);
            one.options.functions = policy;
            let mut looking = scan(&source, &target);
            looking.options.functions = policy;
            let done = if by_scan { looking.run().await } else { one.run().await };
            assert_eq!(called(&target), says, "{policy:?}");
            match (policy, done) {
                (FunctionPolicy::Stop, done) => {
                    let failure = refused(done);
                    assert_eq!((failure.kind, failure.op), (Kind::Conflict, "function"), "{failure}");
                    assert!(failure.remedy().contains("--functions"), "{}", failure.remedy());
                    assert_eq!(get(&target, "a"), None, "nothing was written before");
                }
                (_, done) => {
                    let summary = done.unwrap();
                    let left_out = summary.full.unsupported.keys().any(|what| what.starts_with("libraries"));
                    assert!(summary.done && left_out == (policy == FunctionPolicy::Skip), "{summary:?}");
                    let told = summary.notes.iter().any(|note| note.contains("`tlib`"));
                    assert_eq!(told, policy == FunctionPolicy::Replace, "{summary:?}");
                    assert_eq!(get(&target, "a").as_deref(), Some("1"));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_13_functions_of_the_stream_conflict_with_another_library() {
    use redis_migration::FunctionPolicy;
    for policy in [FunctionPolicy::Stop, FunctionPolicy::Skip, FunctionPolicy::Replace] {
        let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
        let mut one = migration(&source, &target, Until::Stopped);
        one.options.functions = policy;
        let following = Following::start(one);
        following.streams().await;
        load(&target, OTHER);
        run(&source, &["INCR n"]);
        load(&source, ONE);
        if policy == FunctionPolicy::Stop {
            let failure = refused(following.ended().await);
            assert_eq!((failure.kind, failure.op), (Kind::Conflict, "function"), "{failure}");
            // The position stands before the library: the same migration goes on when the conflict is over.
            target.run("FUNCTION DELETE tlib");
            run(&source, &["INCR n"]);
            let again = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
            assert!(again.done && again.full_syncs == 0, "{again:?}");
            assert_eq!((called(&target).as_str(), get(&target, "n").as_deref()), ("new", Some("2")));
            continue;
        }
        run(&source, &["INCR n"]);
        following.wait_caught_up(&source).await;
        assert_eq!(called(&target), if policy == FunctionPolicy::Skip { "old" } else { "new" });
        // What was left out may be deleted at the source.
        source.run("FUNCTION DELETE slib");
        run(&source, &["INCR n"]);
        following.wait_caught_up(&source).await;
        let summary = following.stop().await;
        let left_out = summary.full.unsupported.keys().any(|what| what.starts_with("libraries"));
        assert_eq!(left_out, policy == FunctionPolicy::Skip, "{summary:?}");
        assert_eq!(get(&target, "n").as_deref(), Some("3"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_13_function_libraries_are_compared() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let look = async || {
        let found = compare(&node(&source), &node(&target), &Default::default(), Depth::Full).await.unwrap();
        (found.missing, found.differ, found.extra)
    };
    load(&source, ONE);
    assert_eq!(look().await, (1, 0, 0));
    load(&target, b"#!lua name=slib\nredis.register_function('f', function(k,a) return 'x' end)");
    assert_eq!(look().await, (0, 1, 0));
    target.run("FUNCTION FLUSH");
    load(&target, ONE);
    assert_eq!(look().await, (0, 0, 0));
    source.run("FUNCTION FLUSH");
    assert_eq!(look().await, (0, 0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_13_functions_are_copied_for_any_selected_database() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let mut one = migration(&source, &target, Until::Stopped);
    one.options.route.only_db = Some(1);
    let following = Following::start(one);
    following.streams().await;
    load(&source, ONE);
    let payload = call(&source, &[b"FUNCTION", b"DUMP"]).text().unwrap().to_vec();
    call(&source, &[b"FUNCTION", b"RESTORE", &payload, b"REPLACE"]);
    run(&source, &["SELECT 1", "SET a 1"]);
    following.wait_caught_up(&source).await;
    following.stop().await;
    assert_eq!(called(&target), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_15_user_limited_to_database_0_sends_no_select() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    for redis in [&source, &target] {
        run(redis, &["ACL SETUSER zero on >pw ~* &* +@all -select"]);
    }
    run(&source, &["SET a 1", "RPUSH l 1 2", "SET dies v PX 900000"]);
    let by = |redis: &Redis| {
        let mut at = node(redis);
        (at.user, at.password) = ("zero".into(), "pw".into());
        at
    };
    let following = Following::start(migration_at(by(&source), by(&target), Until::Stopped));
    following.streams().await;
    run(&source, &["INCR a", "SET dies w PX 900000", "MULTI", "INCR a", "INCR b", "EXEC"]);
    following.wait_caught_up(&source).await;
    following.stop().await;
    run(&source, &["INCR a"]);
    let done = migration_at(by(&source), by(&target), Until::CaughtUp).run().await.unwrap();
    assert!(done.done && done.full_syncs == 0, "{done:?}");
    same(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_15_target_without_client_command_is_still_fenced() {
    let source = Redis::start("REDIS_7_0", &[]);
    let target = Redis::start("REDIS_7_0", &["--rename-command", "CLIENT", ""]);
    run(&source, &["SET a 1", "RPUSH l 1 2"]);
    let first = Following::start(migration(&source, &target, Until::Stopped));
    first.streams().await;
    run(&source, &["INCR n"]);
    first.wait_caught_up(&source).await;
    let second = migration(&source, &target, Until::CaughtUp).run().await.unwrap();
    assert!(second.done && second.full_syncs == 0, "{second:?}");
    assert!(second.notes.iter().any(|note| note.contains("CLIENT")), "{second:?}");
    let ended = refused(first.ended().await);
    assert_eq!((ended.kind, ended.op), (Kind::Conflict, "fence"), "{ended}");
    assert_eq!(get(&target, "n").as_deref(), Some("1"));
    same(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_15_target_without_restore_receives_elements() {
    let source = Redis::start("REDIS_7_0", &[]);
    let target = Redis::start("REDIS_7_0", &["--rename-command", "RESTORE", ""]);
    crate::fill::fill(&source, 15);
    let following = Following::start(migration(&source, &target, Until::Stopped));
    following.streams().await;
    run(&source, &["RPUSH list:again 1 2 3"]);
    let payload = call(&source, &[b"DUMP", b"list:again"]).text().unwrap().to_vec();
    call(&source, &[b"RESTORE", b"list:restored", b"900000", &payload]);
    following.wait_caught_up(&source).await;
    let summary = following.stop().await;
    assert!(summary.notes.iter().any(|note| note.contains("RESTORE")), "{summary:?}");
    assert!(summary.full.unsupported.is_empty() && summary.failed.is_empty(), "{summary:?}");
    same(&source, &target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_16_source_with_renamed_commands_is_copied() {
    let target = Redis::start("REDIS_7_0", &[]);
    for name in ["PSYNC", "REPLCONF"] {
        let source = Redis::start("REDIS_7_0", &["--rename-command", name, ""]);
        let refused = refused(migration(&source, &target, Until::CaughtUp).run().await);
        assert_eq!((refused.kind, refused.op), (Kind::Unsupported, "psync"), "{refused}");
        assert!(refused.message.contains("--mode scan") && refused.remedy().contains("--source-command"));
    }
    let renamed = ["REPLCONF", "CONFIG", "DUMP"];
    let args: Vec<String> = renamed
        .iter()
        .flat_map(|n| ["--rename-command".to_owned(), (*n).to_owned(), format!("x-{n}")])
        .collect();
    let source = Redis::start("REDIS_7_0", &args.iter().map(String::as_str).collect::<Vec<_>>());
    run(&source, &["SET a 1", "RPUSH l 1 2"]);
    let names: Vec<String> = renamed.iter().map(|n| format!("{n}=x-{n}")).collect();
    let mut at = node(&source);
    at.renamed = redis_migration::Node::parse_renamed(&names).unwrap();
    let following = Following::start(migration_at(at.clone(), node(&target), Until::Stopped));
    following.streams().await;
    run(&source, &["INCR a"]);
    following.wait_caught_up(&source).await;
    following.stop().await;
    let found = compare(&at, &node(&target), &Default::default(), Depth::Full).await.unwrap();
    assert!(found.is_same() && found.keys == 2, "{found:?}");
    assert!(redis_migration::Node::parse_renamed(&["DUMP".into()]).is_err());
    let refused = redis_migration::Node::parse_renamed(&["psync=x".into()]).unwrap_err();
    assert!(refused.message.contains("--mode scan"), "{refused}");
}

/// A Sentinel that watches a server.
fn sentinel(of: &Redis) -> (std::process::Child, u16, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = dir.path().join("sentinel.conf");
    let text =
        format!("port {port}\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\n", dir.path().display(), of.port);
    std::fs::write(&file, text).unwrap();
    let program = testkit::servers::endpoint("WHIMBREL_TEST_REDIS_7_0");
    let mut command = std::process::Command::new(program);
    command.arg(&file).arg("--sentinel").stdout(std::process::Stdio::null());
    (command.spawn().unwrap(), port, dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_17_sentinel_address_is_reported_with_its_master() {
    let (master, other) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let (mut child, port, _dir) = sentinel(&master);
    let at = redis_migration::Node::parse(&format!("redis://127.0.0.1:{port}")).unwrap();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let named = format!("`main` at redis://127.0.0.1:{}", master.port);
    for (source, target) in [(at.clone(), node(&other)), (node(&other), at)] {
        let failure = refused(migration_at(source, target, Until::CaughtUp).run().await);
        assert!(failure.message.contains("is a Sentinel") && failure.message.contains(&named), "{failure}");
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_19_unserved_slot_is_reported_while_waiting() {
    let source = Cluster::start("REDIS_7_0", 3, false, &[]);
    let target = Redis::start("REDIS_7_0", &[]);
    let id =
        |i: usize| String::from_utf8(source.servers[i].run("CLUSTER MYID").text().unwrap().to_vec()).unwrap();
    source.servers[0].run(&format!("CLUSTER SETSLOT 100 MIGRATING {}", id(1)));
    let (event_sender, mut events) = redis_migration::EventSender::channel();
    let mut one = migration_at(node(&source.servers[0]), node(&target), Until::CaughtUp);
    one.options.event_sender = event_sender;
    let work = tokio::spawn(async move { one.run().await });
    let named = async {
        loop {
            if let Some(redis_migration::Event::Disconnected { failure, .. }) = events.recv().await
                && failure.message.contains("slot 100 ")
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), named).await.expect("the slot is named");
    source.servers[0].run("CLUSTER SETSLOT 100 STABLE");
    let done = tokio::time::timeout(Duration::from_secs(60), work).await.expect("it goes on").unwrap();
    assert!(done.unwrap().done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_19_served_slots_are_copied_when_unserved_ones_are_allowed() {
    let source = Cluster::start("REDIS_7_0", 3, false, &["--cluster-require-full-coverage", "no"]);
    let at = |key: &str| usize::from(redis_proto::command::slot(key.as_bytes())) * 3 / 16384;
    let keys: Vec<String> = (0..60).map(|i| format!("k{i}")).collect();
    for key in &keys {
        source.servers[at(key)].run(&format!("SET {key} v"));
    }
    source.servers[0].connect().call(&[b"FUNCTION", b"LOAD", ONE]);
    // Slot 0 has no key and no master any more.
    for server in &source.servers {
        server.run("CLUSTER DELSLOTS 0");
    }
    let mut from = node(&source.servers[1]);
    for allowed in [false, true] {
        from.allow_uncovered = allowed;
        let target = Redis::start("REDIS_7_0", &[]);
        let one = migration_at(from.clone(), node(&target), Until::CaughtUp);
        if !allowed {
            let failure = compare(&from, &node(&target), &Default::default(), Depth::Full).await.unwrap_err();
            assert!(failure.message.contains("slot 0 "), "{failure}");
            assert!(failure.remedy().contains("--allow-uncovered-slots"), "{failure}");
            continue;
        }
        let done = one.run().await.unwrap();
        assert!(done.done, "{done:?}");
        let left_out: Vec<_> = done.full.unsupported.iter().collect();
        assert!(left_out.iter().any(|(what, n)| what.contains("(0-0)") && **n == 1), "{left_out:?}");
        assert_eq!(called(&target), "new", "functions come from whoever is first");
        let found = compare(&from, &node(&target), &Default::default(), Depth::Full).await.unwrap();
        assert!(found.is_same() && found.keys == 60, "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn red_21_rejected_value_reports_what_was_written() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    for i in 0..2000 {
        source.run(&format!("SET k{i} v"));
    }
    // The target may take everything but one type.
    source.run("ZADD ranked 1 a");
    run(&target, &["ACL SETUSER some on nopass ~* &* +@all -restore -zadd -rpush"]);
    let mut at = node(&target);
    (at.user, at.password) = ("some".into(), "any".into());
    let failure = refused(migration_at(node(&source), at, Until::CaughtUp).run().await);
    assert!(
        failure.message.contains("ranked") || failure.message.contains("keys of the snapshot"),
        "{failure}"
    );
    assert!(target.run("DBSIZE").number().unwrap_or(0) > 0, "{failure}");
}
