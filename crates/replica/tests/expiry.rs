//! Only the source lets keys expire while the target is behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use replica::Until;
use testkit::redis::{Connection, Redis};

use crate::support::{Following, mover, same};

/// Short lives that are renewed again and again while the target is kept waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_renewed_live_on() {
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
        let mut one = mover(&source, &target, Until::Stopped);
        one.options.bandwidth = Arc::new(pace::budget::Bandwidth::new(256 << 10));
        let following = Following::start(one);
        following.streams().await;
        stop.store(true, Ordering::Relaxed);
        renewing.join().unwrap();
        for i in 0..20 {
            source.run(&format!("PERSIST renewed:{i}"));
        }
        following.level(&source).await;
        following
            .until(|_| target.run("KEYS whimbrel:redis:held:*").array().is_some_and(<[_]>::is_empty))
            .await;
        let summary = following.stop().await;
        assert!(summary.full_seconds > 1.5, "{summary:?}");
        same(&source, &target).await;
        assert_eq!(
            source.run("DBSIZE").number(),
            Some(20_040),
            "{version}: dying keys are gone, all others are there"
        );
        assert_eq!(target.run("EXISTS dying:3").number(), Some(0));
        assert!(
            target.run("PTTL long:3").number().unwrap() > 3_000_000,
            "held back, and set when it was time"
        );
    }
}
