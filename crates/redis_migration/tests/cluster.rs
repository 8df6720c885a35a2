//! Clusters at either end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis_migration::route::Route;
use redis_migration::verify::{Depth, compare};
use redis_migration::{Node, Until};
use redis_proto::command::slot;
use redis_proto::resp::{Reply, command};
use testkit::redis::{Cluster, Connection, OLD, Redis, VERSIONS};

use crate::fill::fill;
use crate::support::{Following, migration_at, node};

const MASTERS: usize = 3;

fn place(cluster: &Cluster) -> Node {
    Node::parse(&cluster.url()).unwrap()
}

async fn same(a: &Node, b: &Node) -> u64 {
    let found = compare(a, b, &Route::default(), Depth::Full).await.unwrap();
    assert!(found.is_same(), "{a:?} and {b:?}: {found:.400?}");
    found.keys
}

/// Counters, lists and streams over many slots, at one server or a cluster, that grow until told to stop.
fn writer(
    connect: impl Fn(u16) -> Connection + Send + 'static,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let keys: Vec<String> = (0..64).map(|i| format!("{{{i}}}")).collect();
        let mut to: Vec<Connection> = keys.iter().map(|k| connect(slot(k.as_bytes()))).collect();
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            let i = usize::try_from(rounds % 64).unwrap();
            let name = |what: &str| format!("{what}{}", keys[i]).into_bytes();
            let n = rounds.to_string();
            let mut out = Vec::new();
            for args in [
                &[b"INCR".as_slice(), &name("counter")][..],
                &[b"MULTI"],
                &[b"LPUSH", &name("list"), n.as_bytes()],
                &[b"INCRBY", &name("sum"), n.as_bytes()],
                &[b"EXEC"],
                &[b"XADD", &name("stream"), b"*", b"n", n.as_bytes()],
            ] {
                command(&mut out, args);
            }
            for reply in to[i].many(&out, 6) {
                assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
            }
            rounds += 1;
        }
        rounds
    })
}

fn counted(connect: impl Fn(u16) -> Connection) -> u64 {
    let mut total = 0;
    for i in 0..64 {
        let mut client = connect(slot(format!("{{{i}}}").as_bytes()));
        let number = |reply: Reply| {
            reply.text().and_then(|t| std::str::from_utf8(t).ok()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let n = number(client.run(&format!("GET counter{{{i}}}")));
        assert_eq!(client.run(&format!("LLEN list{{{i}}}")).number(), i64::try_from(n).ok());
        assert_eq!(client.run(&format!("XLEN stream{{{i}}}")).number(), i64::try_from(n).ok());
        total += n;
    }
    total
}

/// 500 slots of the first server go to the second, as `redis-cli --cluster reshard` does it.
fn reshard(cluster: &Cluster) {
    let id = |i: usize| {
        let reply = cluster.servers[i].run("CLUSTER MYID");
        String::from_utf8_lossy(reply.text().unwrap()).into_owned()
    };
    let (from, to) = (id(0), id(1));
    let (mut a, mut b) = (cluster.servers[0].connect(), cluster.servers[1].connect());
    let moving: Vec<u16> =
        (0..64).map(|i| slot(format!("{{{i}}}").as_bytes())).filter(|s| *s < 5461).collect();
    let mut all: Vec<u16> = moving.clone();
    all.extend((0..5461).filter(|s| !moving.contains(s)).take(500 - moving.len()));
    for slot in all {
        b.run(&format!("CLUSTER SETSLOT {slot} IMPORTING {from}"));
        a.run(&format!("CLUSTER SETSLOT {slot} MIGRATING {to}"));
        loop {
            let keys = a.run(&format!("CLUSTER GETKEYSINSLOT {slot} 2"));
            let keys: Vec<Vec<u8>> =
                keys.array().unwrap().iter().map(|k| k.text().unwrap().to_vec()).collect();
            if keys.is_empty() {
                break;
            }
            let port = cluster.servers[1].port.to_string();
            let mut words: Vec<&[u8]> =
                vec![b"MIGRATE", b"127.0.0.1", port.as_bytes(), b"", b"0", b"5000", b"KEYS"];
            words.extend(keys.iter().map(Vec::as_slice));
            assert!(!matches!(a.call(&words), Reply::Error(_)));
        }
        for client in [&mut b, &mut a] {
            client.run(&format!("CLUSTER SETSLOT {slot} NODE {to}"));
        }
        cluster.servers[2].run(&format!("CLUSTER SETSLOT {slot} NODE {to}"));
    }
}

/// The same as one step (Valkey since 9.0).
fn reshard_at_once(cluster: &Cluster) {
    let reply = cluster.servers[1].run("CLUSTER MYID");
    let to = String::from_utf8_lossy(reply.text().unwrap()).into_owned();
    cluster.servers[0].run(&format!("CLUSTER MIGRATESLOTS SLOTSRANGE 0 499 NODE {to}"));
    let began = std::time::Instant::now();
    loop {
        let told = cluster.servers[0].run("CLUSTER SLOTS");
        let first =
            told.array().and_then(|ranges| ranges.first()?.array()?.get(2)?.array()?.get(1)?.number());
        if first == Some(i64::from(cluster.servers[1].port)) {
            return;
        }
        assert!(began.elapsed().as_secs() < 30, "the slots do not move");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

/// Asks a cluster about a key, wherever that is by now.
fn wander(to: &mut Connection, line: &str) -> Reply {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    loop {
        let text = match to.call(&words) {
            Reply::Error(text) => text,
            answer => return answer,
        };
        let port: u16 = text.rsplit(':').next().and_then(|p| p.parse().ok()).unwrap_or(0);
        match text.split(' ').next() {
            Some("MOVED") => *to = Connection::to(port),
            Some("ASK") => {
                let mut there = Connection::to(port);
                there.run("ASKING");
                return there.call(&words);
            }
            _ => panic!("{line}: {text}"),
        }
    }
}

/// Something of everything, from a server into a cluster of its version, from that to another cluster, and out of it.
async fn through(from: &str, to: &str, elements: u32) {
    // A server that is busy with one great value is no server that is gone.
    let patient = ["--cluster-node-timeout", "15000"];
    let (source, middle) = (Redis::start(from, &[]), Cluster::start(from, MASTERS, false, &patient));
    let target = Cluster::start(to, MASTERS, false, &patient);
    fill(&source, 3);
    let mut client = source.connect();
    for db in [1, 15] {
        client.run(&format!("SELECT {db}"));
        client.run("FLUSHDB");
    }
    client.run("SELECT 0");
    let fields_expire = |version: &str| matches!(version, "REDIS_8_2" | "VALKEY_9_1");
    if fields_expire(from) && !fields_expire(to) {
        client.run("DEL hash:large hash:small");
    }
    for n in (0..elements).step_by(500) {
        let members: Vec<String> = (n..n + 500).map(|n| n.to_string()).collect();
        let mut args: Vec<&[u8]> = vec![b"ZADD", b"large"];
        args.extend(members.iter().flat_map(|m| [m.as_bytes(), m.as_bytes()]));
        client.call(&args);
    }
    let there = migration_at(node(&source), place(&middle), Until::CaughtUp).run().await.unwrap();
    assert!(there.done && there.failed.is_empty() && there.full.unsupported.is_empty(), "{from}: {there:?}");
    let keys = same(&node(&source), &place(&middle)).await;
    let over = migration_at(place(&middle), place(&target), Until::CaughtUp).run().await.unwrap();
    assert!(over.done && over.full_syncs == 3, "{from} to {to}: {over:?}");
    assert_eq!(same(&place(&middle), &place(&target)).await, keys, "{from} to {to}");
    let back = Redis::start(to, &[]);
    let out = migration_at(place(&middle), node(&back), Until::Full).run().await.unwrap();
    assert!(out.done, "{out:?}");
    assert_eq!(same(&node(&source), &node(&back)).await, keys, "{from} out of a cluster to {to}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_copied_into_and_out_of_a_cluster() {
    through("REDIS_7_0", "VALKEY_9_1", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "soak: cargo x soak versions"]
async fn soak_every_type_is_copied_between_clusters_of_all_versions() {
    let targets = ["REDIS_7_0", "REDIS_8_2", "VALKEY_9_1"];
    let mut pairs: Vec<(&str, &str)> =
        OLD.into_iter().chain(VERSIONS).flat_map(|from| targets.map(|to| (from, to))).collect();
    pairs.extend(
        ["REDIS_7_0", "REDIS_8_2"].into_iter().flat_map(|from| [(from, "REDIS_6_2"), (from, "REDIS_5_0")]),
    );
    for (from, to) in &pairs {
        let began = std::time::Instant::now();
        through(from, to, 1_000_000).await;
        let took = began.elapsed().as_secs();
        println!(
            "versions: clusters of {from} to clusters of {to}, and out of them to {to}: equal, {took} s"
        );
    }
    println!("versions: {} pairs of clusters", pairs.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_target_rejects_multiple_databases() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Cluster::start("REDIS_7_0", MASTERS, false, &[]));
    let mut client = source.connect();
    client.run("SET a 1");
    client.run("SELECT 3");
    client.run("SET b 2");
    let refused = migration_at(node(&source), place(&target), Until::Full).run().await.unwrap_err();
    assert!(refused.message.contains("database 3"), "{refused}");
    assert!(target.servers.iter().all(|s| s.run("DBSIZE").number() == Some(0)));
    let mut mapped = migration_at(node(&source), place(&target), Until::Full);
    mapped.options.route =
        Route { only_db: Some(3), db_map: Route::parse_map("3=0").unwrap(), ..Route::default() };
    assert!(mapped.run().await.unwrap().done);
    assert_eq!(target.of_slot(slot(b"b"), MASTERS).run("GET b").text(), Some(b"2".as_slice()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_changes_are_applied_once_through_stops_cuts_and_kills() {
    let (source, target) =
        (Cluster::start("REDIS_7_0", MASTERS, false, &[]), Cluster::start("REDIS_7_0", MASTERS, false, &[]));
    let stop = Arc::new(AtomicBool::new(false));
    let ports: Vec<u16> = source.servers.iter().map(|s| s.port).collect();
    let connect = move |slot: u16| {
        let i = (0..MASTERS).find(|i| usize::from(slot) < 16_384 * (i + 1) / MASTERS).unwrap();
        Connection::to(ports[i])
    };
    let writer = writer(connect.clone(), stop.clone());
    let mut fulls = 0;
    for round in 0..8 {
        let migration = migration_at(place(&source), place(&target), Until::Stopped);
        if round % 3 == 2 {
            // Ends without a word.
            let progress = migration.progress.clone();
            let task = tokio::spawn(async move { migration.run().await });
            while progress.commands.load(Ordering::Relaxed) < 2000 {
                assert!(!task.is_finished());
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            task.abort();
            continue;
        }
        let following = Following::start(migration);
        following.streams().await;
        following.until(|p| p.commands.load(Ordering::Relaxed) > 2000).await;
        if round % 2 == 0 {
            source.servers[1].run("CLIENT KILL TYPE replica");
        } else {
            target.servers[round % 3].run("CLIENT KILL TYPE normal SKIPME yes");
        }
        let seen = following.progress.commands.load(Ordering::Relaxed);
        following.until(|p| p.commands.load(Ordering::Relaxed) > seen + 1000).await;
        fulls += following.stop().await.full_syncs;
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = writer.join().unwrap();
    let last = migration_at(place(&source), place(&target), Until::CaughtUp).run().await.unwrap();
    assert!(last.done);
    assert_eq!(fulls + last.full_syncs, 3, "one snapshot of each master in all");
    same(&place(&source), &place(&target)).await;
    let there = |slot| target.of_slot(slot, MASTERS);
    assert_eq!(counted(there), rounds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_slot_migration_during_streaming_loses_no_changes() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Cluster::start("REDIS_7_0", MASTERS, false, &[]));
    let stop = Arc::new(AtomicBool::new(false));
    let port = source.port;
    let writer = writer(move |_| Connection::to(port), stop.clone());
    let following = Following::start(migration_at(node(&source), place(&target), Until::Stopped));
    following.streams().await;
    reshard(&target);
    let seen = following.progress.commands.load(Ordering::Relaxed);
    following.until(|p| p.commands.load(Ordering::Relaxed) > seen + 2000).await;
    stop.store(true, Ordering::Relaxed);
    let rounds = writer.join().unwrap();
    following.wait_caught_up(&source).await;
    let summary = following.stop().await;
    assert_eq!(summary.full_syncs, 1, "{summary:?}");
    same(&node(&source), &place(&target)).await;
    let total: u64 = (0..64)
        .map(|i| {
            let reply = source.run(&format!("GET counter{{{i}}}"));
            reply.text().and_then(|t| std::str::from_utf8(t).ok()?.parse::<u64>().ok()).unwrap_or(0)
        })
        .sum();
    assert_eq!(total, rounds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_slot_migration_during_streaming_loses_no_changes() {
    for (version, reshard) in [("REDIS_7_0", reshard as fn(&Cluster)), ("VALKEY_9_1", reshard_at_once)] {
        let (source, target) = (Cluster::start(version, MASTERS, false, &[]), Redis::start(version, &[]));
        let stop = Arc::new(AtomicBool::new(false));
        let first = source.servers[0].port;
        let writer = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut to: Vec<Connection> = (0..64).map(|_| Connection::to(first)).collect();
                let mut rounds: u64 = 0;
                while !stop.load(Ordering::Relaxed) {
                    let i = usize::try_from(rounds % 64).unwrap();
                    for line in ["INCR counter", "LPUSH list", "XADD stream"] {
                        let (name, rest) = line.split_once(' ').unwrap();
                        let behind = match name {
                            "LPUSH" => " x",
                            "XADD" => " * n 1",
                            _ => "",
                        };
                        wander(&mut to[i], &format!("{name} {rest}{{{i}}}{behind}"));
                    }
                    rounds += 1;
                }
                rounds
            })
        };
        let following = Following::start(migration_at(place(&source), node(&target), Until::Stopped));
        following.streams().await;
        following.until(|p| p.commands.load(Ordering::Relaxed) > 500).await;
        reshard(&source);
        let seen = following.progress.full_bytes.load(Ordering::Relaxed);
        following.until(|p| p.full_bytes.load(Ordering::Relaxed) != seen).await;
        following.streams().await;
        stop.store(true, Ordering::Relaxed);
        let rounds = writer.join().unwrap();
        following.stop().await;
        let last = migration_at(place(&source), node(&target), Until::CaughtUp).run().await.unwrap();
        assert!(last.done && last.full_syncs == 0, "{last:?}");
        same(&place(&source), &node(&target)).await;
        assert_eq!(counted(|_| target.connect()), rounds, "{version}");
        // Nobody looks while slots move back: what stands at the target is of another division.
        if version == "REDIS_7_0" {
            let id = source.servers[0].run("CLUSTER MYID");
            let id = String::from_utf8_lossy(id.text().unwrap()).into_owned();
            let empty = (0..5461)
                .find(|s| source.servers[1].run(&format!("CLUSTER COUNTKEYSINSLOT {s}")).number() == Some(0));
            let line = format!("CLUSTER SETSLOT {} NODE {id}", empty.unwrap());
            for server in source.servers.iter().rev() {
                server.run(&line);
            }
            let last = migration_at(place(&source), node(&target), Until::CaughtUp).run().await.unwrap();
            assert!(last.done && last.full_syncs == 3 && !last.notes.is_empty(), "{last:?}");
            same(&place(&source), &node(&target)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_of_all_source_masters_is_applied_once() {
    let (source, target) =
        (Cluster::start("REDIS_7_0", MASTERS, false, &[]), Cluster::start("REDIS_7_0", MASTERS, false, &[]));
    let set = |from: usize, to: usize| {
        for n in from..to {
            let key = format!("k{n}");
            source.of_slot(slot(key.as_bytes()), MASTERS).run(&format!("SET {key} v{n}"));
        }
    };
    set(0, 100);
    let following = Following::start(migration_at(place(&source), place(&target), Until::Stopped));
    following.streams().await;
    let library = b"#!lua name=l\nredis.register_function('f', function() return 7 end)";
    for server in &source.servers {
        let loaded = server.connect().call(&[b"FUNCTION", b"LOAD", library]);
        assert!(!matches!(loaded, Reply::Error(_)), "{loaded:?}");
    }
    set(100, 200);
    let has = |n: u64| {
        let keys = target.servers.iter().map(|s| s.run("DBSIZE").number().unwrap());
        u64::try_from(keys.sum::<i64>()).unwrap() >= n
    };
    following.until(|_| has(200)).await;
    for server in &target.servers {
        following.until(|_| !matches!(server.connect().call(&[b"FCALL", b"f", b"0"]), Reply::Error(_))).await;
    }
    for server in &source.servers {
        server.run("FLUSHALL");
    }
    set(1000, 1300);
    let gone = || target.of_slot(slot(b"k0"), MASTERS).run("GET k0") == Reply::Nil;
    following.until(|_| gone() && has(300)).await;
    let last = source.servers.iter().map(|s| s.connect().call(&[b"FUNCTION", b"DELETE", b"l"]));
    assert!(last.collect::<Vec<_>>().iter().all(|r| !matches!(r, Reply::Error(_))));
    following.streams().await;
    let summary = following.stop().await;
    assert!(summary.full_syncs >= 3, "a flush causes a full resync: {summary:?}");
    let last = migration_at(place(&source), place(&target), Until::CaughtUp).run().await.unwrap();
    assert!(last.done && last.full_syncs == 0, "{last:?}");
    assert_eq!(same(&place(&source), &place(&target)).await, 300);
    for server in &target.servers {
        let left = server.run("FUNCTION LIST");
        assert_eq!(left.array().map(<[Reply]>::len), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_flush_reaches_every_target_master() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Cluster::start("REDIS_7_0", MASTERS, false, &[]));
    let mut client = source.connect();
    client.run("SELECT 3");
    let fill = |client: &mut Connection, what: &str| {
        for n in 0..200 {
            client.run(&format!("SET {what}{n} v"));
        }
    };
    fill(&mut client, "a");
    let migration = || {
        let mut migration = migration_at(node(&source), place(&target), Until::Stopped);
        migration.options.route =
            Route { only_db: Some(3), db_map: Route::parse_map("3=0").unwrap(), ..Route::default() };
        migration
    };
    for round in 0..3 {
        // The position knows in which database the stream was, though the target has only one.
        let following = Following::start(migration());
        following.streams().await;
        client.run("FLUSHDB");
        fill(&mut client, &format!("b{round}-"));
        following.wait_caught_up(&source).await;
        // Longer than the common checkpoint stays behind.
        tokio::time::sleep(std::time::Duration::from_millis(2300)).await;
        let summary = following.stop().await;
        assert_eq!(summary.full_syncs, u64::from(round == 0), "{summary:?}");
        client.run("INCR after");
    }
    let mut last = migration();
    last.options.until = Until::CaughtUp;
    assert!(last.run().await.unwrap().done);
    let route = Route { only_db: Some(3), db_map: Route::parse_map("3=0").unwrap(), ..Route::default() };
    let found = compare(&node(&source), &place(&target), &route, Depth::Full).await.unwrap();
    assert!(found.is_same() && found.keys == 201, "{found:.400?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_source_failover_continues_from_the_replica() {
    let (mut source, target) =
        (Cluster::start("REDIS_7_0", MASTERS, true, &[]), Redis::start("REDIS_7_0", &[]));
    let set = |source: &Cluster, from: usize, to: usize, servers: &[usize]| {
        for n in from..to {
            let key = format!("k{n}");
            let i = (0..MASTERS)
                .find(|i| usize::from(slot(key.as_bytes())) < 16_384 * (i + 1) / MASTERS)
                .unwrap();
            let reply = source.servers[servers[i]].run(&format!("SET {key} v{n}"));
            assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
        }
    };
    set(&source, 0, 300, &[0, 1, 2]);
    // What the replica has not received would be lost with its master.
    let mut client = source.servers[1].connect();
    client.run("SET k602 v");
    assert_eq!(client.run("WAIT 1 10000").number(), Some(1));
    let mut one = migration_at(place(&source), node(&target), Until::Stopped);
    one.options.reconnect =
        Arc::new(redis_migration::Reconnect::new(redis_migration::reconnect::ReconnectPolicy::Always));
    let following = Following::start(one);
    following.streams().await;
    // The replica of the second master has everything, and takes its place.
    let replica = source.servers[MASTERS + 1].connect();
    source.servers[1].kill();
    let mut replica = replica;
    loop {
        let role = replica.run("ROLE");
        if role.array().and_then(|r| r.first()?.text()) == Some(b"master") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let began = std::time::Instant::now();
    let whole = |i: &usize| {
        let told = source.servers[*i].run("CLUSTER INFO");
        told.text().is_some_and(|t| String::from_utf8_lossy(t).contains("cluster_state:ok"))
    };
    while ![0, MASTERS + 1, 2].iter().all(whole) {
        assert!(began.elapsed().as_secs() < 30);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    set(&source, 300, 600, &[0, MASTERS + 1, 2]);
    let began = std::time::Instant::now();
    while target.run("DBSIZE").number().unwrap_or(0) < 601 {
        assert!(began.elapsed().as_secs() < 60, "the promoted replica is not followed");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let summary = following.stop().await;
    assert_eq!(summary.full_syncs, 3, "the promoted replica goes on where its master was: {summary:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_target_failover_loses_no_writes() {
    let (source, mut target) =
        (Redis::start("REDIS_7_0", &[]), Cluster::start("REDIS_7_0", MASTERS, true, &[]));
    let stop = Arc::new(AtomicBool::new(false));
    let port = source.port;
    let writer = writer(move |_| Connection::to(port), stop.clone());
    let mut one = migration_at(node(&source), place(&target), Until::Stopped);
    one.options.reconnect =
        Arc::new(redis_migration::Reconnect::new(redis_migration::reconnect::ReconnectPolicy::Always));
    let following = Following::start(one);
    following.streams().await;
    // The common checkpoint stays two seconds behind what the slots have.
    let began = std::time::Instant::now();
    following.until(|_| began.elapsed().as_millis() > 2500).await;
    // That whose address was given, in the middle of what it was told.
    target.servers[0].kill();
    let mut replica = target.servers[MASTERS].connect();
    loop {
        let role = replica.run("ROLE");
        if role.array().and_then(|r| r.first()?.text()) == Some(b"master") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let seen = following.progress.commands.load(Ordering::Relaxed);
    following.until(|p| p.commands.load(Ordering::Relaxed) > seen + 2000).await;
    stop.store(true, Ordering::Relaxed);
    let rounds = writer.join().unwrap();
    following.wait_caught_up(&source).await;
    let summary = following.stop().await;
    assert_eq!(summary.full_syncs, 1, "{summary:?}");
    let left = Node::parse(&target.servers[1].url()).unwrap();
    same(&node(&source), &left).await;
    let homes = [MASTERS, 1, 2];
    let there = |slot: u16| {
        let i = (0..MASTERS).find(|i| usize::from(slot) < 16_384 * (i + 1) / MASTERS).unwrap();
        target.servers[homes[i]].connect()
    };
    assert_eq!(counted(there), rounds);
}

/// Changes of a single server that no cluster can make, for their keys are at several of its servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cross_slot_results_are_read_from_the_source() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Cluster::start("REDIS_7_0", MASTERS, false, &[]));
    let lines = |round: usize| {
        [
            format!("SADD one:{round} a b"),
            format!("SADD two:{round} b c"),
            format!("SUNIONSTORE both:{round} one:{round} two:{round}"),
            format!("SADD both:{round} d"),
            format!("RENAME one:{round} another:{round}"),
            format!("RPUSH from:{round} 1 2 3"),
            format!("LMOVE from:{round} to:{round} LEFT RIGHT"),
            format!("RPUSH to:{round} 4"),
            format!("SET text:{round} x"),
            format!("COPY text:{round} from:{round} REPLACE"),
            format!("APPEND from:{round} y"),
            format!("RENAME text:{round} gone:{round}"),
            format!("DEL gone:{round}"),
        ]
    };
    let mut to = source.connect();
    for round in 0..3 {
        let following = Following::start(migration_at(node(&source), place(&target), Until::Stopped));
        following.streams().await;
        to.run("MULTI");
        for line in lines(round) {
            to.run(&line);
        }
        to.run("EXEC");
        following.wait_caught_up(&source).await;
        let done = following.stop().await;
        assert_eq!(done.full_syncs, u64::from(round == 0), "{done:?}");
    }
    assert!(migration_at(node(&source), place(&target), Until::CaughtUp).run().await.unwrap().done);
    assert_eq!(same(&node(&source), &place(&target)).await, 15);
}
