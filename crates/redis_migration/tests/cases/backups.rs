//! Imports of RDB and AOF files.

use super::*;

fn text(s: &[u8]) -> Vec<u8> {
    [&[u8::try_from(s.len()).unwrap()][..], s].concat()
}

/// An RDB file, without a checksum.
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
    // As KeyDB writes: what it stores about a key is between its expiry and its type.
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

    // At a target with data: rejected before the first write, or skipped on request.
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

/// Sessions and counters whose expiry is renewed or removed: imported after the first expiry, they are what a server has that
/// loads the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiries_of_a_file_count_at_its_end() {
    let later = flow_control::clock::system().now_ms() + 600_000;
    let file = aof(&[
        "SELECT 0",
        "SET cnt 1 PXAT 1000",
        "INCR cnt",
        "PERSIST cnt",
        "RPUSH l a",
        "PEXPIREAT l 1000",
        "RPUSH l b",
        &format!("PEXPIREAT l {later}"),
        "SET gone 1 PXAT 1000",
        "SET moved 1 PXAT 1000",
        "RENAME moved renamed",
        "PERSIST renamed",
        "SELECT 3",
        "HSET h f 1 g 1",
        "EXPIREAT h 1",
        "HINCRBY h f 1",
        &format!("PEXPIREAT h {later}"),
    ]);
    for version in ["REDIS_7_0", "REDIS_6_2", "VALKEY_9_1"] {
        let target = Redis::start(version, &[]);
        run(&target, &["SET own 1 EX 1000"]);
        import_bytes(&file, &target).await.unwrap();
        assert_eq!(keys(&target), ["cnt", "l", "own", "renamed"], "{version}");
        assert_eq!(get(&target, "cnt").as_deref(), Some("2"));
        let left = |db: u32, key: &str| {
            let mut client = target.connect();
            client.run(&format!("SELECT {db}"));
            client.run(&format!("PTTL {key}")).number().unwrap()
        };
        assert_eq!((left(0, "cnt"), left(0, "renamed")), (-1, -1), "{version}");
        for (db, key) in [(0, "l"), (3, "h"), (0, "own")] {
            assert!((500_000..=1_000_000).contains(&left(db, key)), "{version}: {key} {}", left(db, key));
        }
        assert_eq!(target.run("LLEN l").number(), Some(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiries_of_fields_count_at_the_end_of_a_file() {
    let later = flow_control::clock::system().now_ms() + 600_000;
    for version in ["REDIS_8_2", "VALKEY_9_1"] {
        // The snapshot at the beginning has a field whose expiry has passed when the file is imported.
        let source = Redis::start(version, &[]);
        run(&source, &["HSET h f 1 g 1", "HPEXPIRE h 300 FIELDS 1 f"]);
        let mut file = std::fs::read(dump(&source)).unwrap();
        file.extend(aof(&[
            "SELECT 0",
            "HINCRBY h f 1",
            "HPERSIST h FIELDS 1 f",
            "HSET h x 1 y 1",
            "HPEXPIREAT h 1000 FIELDS 1 x",
            &format!("HPEXPIREAT h {later} FIELDS 1 y"),
        ]));
        while source.run("HGET h f") != Reply::Nil {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let target = Redis::start(version, &[]);
        import_bytes(&file, &target).await.unwrap();
        assert_eq!(target.run("HGET h f").text(), Some(&b"2"[..]), "{version}");
        assert_eq!(target.run("HGET h x"), Reply::Nil, "{version}");
        let left = target.run("HPTTL h FIELDS 3 f g y");
        let left: Vec<i64> = left.array().unwrap().iter().filter_map(Reply::number).collect();
        assert!(left[..2] == [-1, -1] && (500_000..=600_000).contains(&left[2]), "{version}: {left:?}");
    }
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
