//! The set-up that unit tests of this crate share.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use flow_control::backoff::Backoff;
use flow_control::clock::MockClock;
use model::error::{Error, Kind, Result, Side};
use store::{Store, TaskRow};

use crate::engine::{Engine, EngineConfig};
use crate::environment::{OpenedStore, StoreResolver};

/// Opens no store.
struct Nowhere;

#[async_trait]
impl StoreResolver for Nowhere {
    async fn open(&self, _: &TaskRow, _: &str, _: Side) -> Result<OpenedStore> {
        Err(Error::new(Kind::Invalid, "open", "there is no such place"))
    }
}

/// An engine with an empty database in `dir`, which runs nothing by itself.
pub(crate) async fn engine(dir: &Path) -> Arc<Engine> {
    let config = EngineConfig {
        store: Store::embedded(dir).await.unwrap(),
        clock: Arc::new(MockClock::new(1_000_000)),
        resolver: Arc::new(Nowhere),
        data_dir: dir.to_owned(),
        memory: 64 << 20,
        running_tasks: 1,
        zone_minutes: 0,
        works: true,
        threads: 1,
        backoff: Backoff::default(),
    };
    Engine::start(config).unwrap()
}
