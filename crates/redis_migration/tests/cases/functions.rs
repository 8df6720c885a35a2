//! Function libraries that conflict with those of the target.

use super::*;

const OTHER: &[u8] = b"#!lua name=tlib\nredis.register_function('f', function(k,a) return 'old' end)";

fn load(redis: &Redis, code: &[u8]) {
    call(redis, &[b"FUNCTION", b"LOAD", code]);
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
                    let unsupported =
                        summary.full.unsupported.keys().any(|what| what.starts_with("libraries"));
                    assert!(summary.done && unsupported == (policy == FunctionPolicy::Skip), "{summary:?}");
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
        // A skipped library may be deleted at the source.
        source.run("FUNCTION DELETE slib");
        run(&source, &["INCR n"]);
        following.wait_caught_up(&source).await;
        let summary = following.stop().await;
        let unsupported = summary.full.unsupported.keys().any(|what| what.starts_with("libraries"));
        assert_eq!(unsupported, policy == FunctionPolicy::Skip, "{summary:?}");
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
