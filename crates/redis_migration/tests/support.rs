//! Running a migration within the test.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use flow_control::backoff::Backoff;
use flow_control::budget::Bandwidth;
use model::error::Result;
use redis_migration::checkpoint::keys::KeyNames;
use redis_migration::connection::server::replication_offset;
use redis_migration::route::Route;
use redis_migration::snapshot::restore::Conflict;
use redis_migration::source::spool::SpoolLimits;
use redis_migration::verify::{Comparison, Depth, compare};
use redis_migration::{EventSender, Migration, Node, Options, Progress, Summary, Until};
use testkit::redis::Redis;
use tokio_util::sync::CancellationToken;

pub(crate) fn node(redis: &Redis) -> Node {
    Node::parse(&redis.url()).unwrap()
}

pub(crate) fn migration(source: &Redis, target: &Redis, until: Until) -> Migration {
    migration_at(node(source), node(target), until)
}

pub(crate) fn migration_at(source: Node, target: Node, until: Until) -> Migration {
    Migration {
        source,
        target,
        options: Options {
            route: Route::default(),
            conflict: Conflict::Replace,
            until,
            bandwidth: Arc::new(Bandwidth::new(0)),
            spool: SpoolLimits::default(),
            spool_dir: std::env::temp_dir(),
            backoff: Backoff::default(),
            reconnect: Arc::default(),
            event_sender: EventSender::default(),
            skip_commands: Arc::default(),
            functions: redis_migration::FunctionPolicy::default(),
        },
        clock: flow_control::clock::system(),
        progress: Arc::new(Progress::default()),
        stop: CancellationToken::new(),
        finish: CancellationToken::new(),
        names: KeyNames::new("test"),
        shard: None,
    }
}

/// A migration that follows until it is told to stop.
pub(crate) struct Following {
    pub(crate) progress: Arc<Progress>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<Summary>>,
}

impl Following {
    pub(crate) fn start(migration: Migration) -> Self {
        let (progress, stop) = (migration.progress.clone(), migration.stop.clone());
        Self { progress, stop, task: tokio::spawn(async move { migration.run().await }) }
    }

    /// Waits until it follows the stream.
    pub(crate) async fn streams(&self) {
        self.until(|p| p.phase.load(Ordering::Relaxed) == 2).await;
    }

    pub(crate) async fn until(&self, done: impl Fn(&Progress) -> bool) {
        let began = std::time::Instant::now();
        while !done(&self.progress) {
            assert!(!self.task.is_finished(), "the migration ended");
            assert!(began.elapsed().as_secs() < 60, "it did not happen: {:?}", self.progress);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Waits until everything that the source has done so far is applied.
    pub(crate) async fn wait_caught_up(&self, source: &Redis) {
        let marked = self.progress.applied.load(Ordering::Relaxed);
        let info = source.run("INFO replication");
        let text = String::from_utf8_lossy(info.text().unwrap()).into_owned();
        let offset = replication_offset(&text).unwrap();
        assert!(marked <= offset);
        self.until(|p| p.applied.load(Ordering::Relaxed) >= offset).await;
    }

    /// Waits for its end, which nobody asked for.
    pub(crate) async fn ended(self) -> Result<Summary> {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), self.task).await;
        ended.expect("it goes on").unwrap()
    }

    pub(crate) async fn stop(self) -> Summary {
        self.stop.cancel();
        self.task.await.unwrap().unwrap()
    }
}

pub(crate) async fn same(source: &Redis, target: &Redis) -> Comparison {
    let found = compare(&node(source), &node(target), &Route::default(), Depth::Full).await.unwrap();
    assert!(found.is_same(), "{source:?} and {target:?}: {found:.400?}");
    found
}
