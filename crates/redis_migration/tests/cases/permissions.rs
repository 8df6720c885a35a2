//! Users with limited rights, and servers whose commands are renamed or not permitted.

use super::*;

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

/// The usual rights of a replica have no DUMP: keys that the target's clock may have removed cannot be read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_cannot_be_read_again_are_counted_as_not_migrated() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    run(&source, &["ACL SETUSER replica on nopass ~* &* +ping +psync +replconf +info +select", "SET a 1"]);
    let by = |until| {
        let mut from = node(&source);
        from.user = "replica".into();
        migration_at(from, node(&target), until)
    };
    let first = by(Until::CaughtUp).run().await.unwrap();
    assert!(first.notes.iter().any(|note| note.starts_with("DUMP is not permitted")), "{first:?}");
    assert!(first.full.unsupported.is_empty(), "{first:?}");
    run(&source, &["SET session 1 EX 100", "INCR session"]);
    let lagging = by(Until::CaughtUp).run().await.unwrap();
    let counted =
        |done: &Summary| done.full.unsupported.iter().any(|(what, n)| what.contains("DUMP") && *n == 1);
    assert!(counted(&lagging), "{lagging:?}");
    // What an earlier run could not migrate is not migrated by the next one.
    let again = by(Until::CaughtUp).run().await.unwrap();
    assert!(counted(&again), "{again:?}");
}
