//! Targets that know no transactions: a proxy in front of two servers.

use redis_migration::{Node, Until};
use redis_proto::resp::Reply;
use testkit::redis::{Connection, Proxy, Redis};

use crate::fill::fill;
use crate::support::{Following, migration_at, node};

/// Every key of the source is at one of the servers behind the proxy, and equal; answers how many there are.
fn equal(source: &Redis, behind: &[Redis]) -> usize {
    let keys = source.run("KEYS *");
    let keys = keys.array().unwrap();
    for key in keys {
        let key = key.text().unwrap();
        let digest = |redis: &Redis| redis.connect().call(&[b"DEBUG", b"DIGEST-VALUE", key]);
        let expiry = |redis: &Redis| redis.connect().call(&[b"PEXPIRETIME", key]);
        let home = behind.iter().find(|r| r.connect().call(&[b"EXISTS", key]).number() == Some(1));
        let name = String::from_utf8_lossy(key);
        let home = home.unwrap_or_else(|| panic!("{name} is nowhere"));
        assert_eq!((digest(source), expiry(source)), (digest(home), expiry(home)), "{name}");
    }
    keys.len()
}

fn changes(to: &mut Connection, round: usize) {
    for n in 0..300 {
        to.run(&format!("INCR counter:{}", n % 20));
        to.run(&format!("RPUSH list:{} {round}-{n}", n % 7));
        to.run(&format!("SET short:{n} {round} PX 100000000"));
        to.run(&format!("HSET hash:{} f{n} {round}", n % 5));
        to.run(&format!("DEL short:{}", n / 2));
    }
    // What the proxy does not know, and would end the connection upon.
    to.run(&format!("COPY list:1 copied:{round}"));
    to.run(&format!("LMOVE list:1 moved:{round} LEFT LEFT"));
    to.run(&format!("BITFIELD bits:{round} SET u8 0 255"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_target_receives_changes_one_by_one() {
    // Behind the second nobody may restore.
    for lacks in [&[][..], &["--rename-command", "RESTORE", ""]] {
        let source = Redis::start("REDIS_7_0", &[]);
        let behind = [Redis::start("REDIS_7_0", lacks), Redis::start("REDIS_7_0", lacks)];
        let proxy = Proxy::start(&[&behind[0], &behind[1]]);
        let target = Node::parse(&format!("redis://127.0.0.1:{}", proxy.port)).unwrap();
        fill(&source, 3);
        let refused = migration_at(node(&source), target.clone(), Until::Full).run().await.unwrap_err();
        assert!(refused.message.contains("database"), "{refused}");
        let mut to = source.connect();
        for db in [15, 1] {
            to.run(&format!("SELECT {db}"));
            to.run("FLUSHDB");
        }
        to.run("SELECT 0");
        if !lacks.is_empty() {
            // This proxy knows streams only as payloads.
            let said = migration_at(node(&source), target.clone(), Until::Full).run().await.unwrap();
            assert!(said.full.unsupported.keys().any(|what| what.starts_with("streams")), "{said:?}");
            to.run("DEL stream bare");
        }
        for round in 0..2 {
            let following = Following::start(migration_at(node(&source), target.clone(), Until::Stopped));
            following.streams().await;
            changes(&mut to, round);
            following.wait_caught_up(&source).await;
            let summary = following.stop().await;
            assert_eq!((summary.full_syncs, summary.notes.len()), (1, 1), "{summary:?}");
            assert!(summary.notes[0].contains("MULTI/EXEC"), "{summary:?}");
        }
        let last = migration_at(node(&source), target, Until::CaughtUp).run().await.unwrap();
        assert!(last.done && last.failed.is_empty(), "{last:?}");
        assert!(equal(&source, &behind) > 200);
    }
}

/// A server that was told to know no transactions says what it is, and is written in the same way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_transactions_are_distinguished_from_denied_ones() {
    let source = Redis::start("REDIS_7_0", &[]);
    source.run("SET a 1");
    let target = Redis::start("REDIS_7_0", &["--rename-command", "MULTI", ""]);
    let summary = migration_at(node(&source), node(&target), Until::CaughtUp).run().await.unwrap();
    assert!(summary.done && summary.notes.iter().any(|n| n.contains("MULTI/EXEC")), "{summary:?}");
    assert_eq!(target.run("GET a").text(), Some(b"1".as_slice()));
    let target = Redis::start("REDIS_7_0", &[]);
    let mut to = target.connect();
    let user: Vec<&[u8]> = vec![b"ACL", b"SETUSER", b"w", b"on", b">pw", b"~*", b"+@all", b"-multi"];
    assert!(!matches!(to.call(&user), Reply::Error(_)));
    let mut place = node(&target);
    (place.user, place.password) = ("w".into(), "pw".to_owned());
    let refused = migration_at(node(&source), place, Until::CaughtUp).run().await.unwrap_err();
    assert_eq!(refused.kind, model::error::Kind::Forbidden, "{refused}");
}
