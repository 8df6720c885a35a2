//! Clusters, Sentinel, and migrations in a circle.

use super::*;

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
        let unsupported: Vec<_> = done.full.unsupported.iter().collect();
        assert!(unsupported.iter().any(|(what, n)| what.contains("(0-0)") && **n == 1), "{unsupported:?}");
        assert_eq!(called(&target), "new", "functions come from whoever is first");
        let found = compare(&from, &node(&target), &Default::default(), Depth::Full).await.unwrap();
        assert!(found.is_same() && found.keys == 60, "{found:?}");
    }
}

/// Valkey has clusters of several databases since 9.0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_database_of_a_cluster_is_compared_and_scanned() {
    let databases = ["--cluster-databases", "16"];
    let source = Cluster::start("VALKEY_9_1", 3, false, &databases);
    let (other, target) =
        (Cluster::start("VALKEY_9_1", 3, false, &databases), Redis::start("VALKEY_9_1", &[]));
    let set = |cluster: &Cluster, db: u32, value: &str| {
        for i in 0..30 {
            let key = format!("k{i}");
            let server = usize::from(redis_proto::command::slot(key.as_bytes())) * 3 / 16384;
            run(&cluster.servers[server], &[&format!("SELECT {db}"), &format!("SET {key} {value}")]);
        }
    };
    for (cluster, db, value) in [(&source, 0, "a"), (&source, 5, "b"), (&other, 0, "a"), (&other, 7, "c")] {
        set(cluster, db, value);
    }
    let (from, route) = (node(&source.servers[0]), Default::default());
    let found = compare(&from, &node(&other.servers[0]), &route, Depth::Full).await.unwrap();
    assert_eq!((found.keys, found.missing, found.extra, found.differ), (60, 30, 30, 0), "{found:?}");
    let mut by_scan = scan(&source.servers[0], &target);
    by_scan.options.until = Until::Full;
    assert!(by_scan.run().await.unwrap().done);
    let found = compare(&from, &node(&target), &route, Depth::Full).await.unwrap();
    assert!(found.is_same() && found.keys == 60, "{found:?}");
}
