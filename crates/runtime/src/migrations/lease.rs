//! A migration while its lease is held here: whoever loses the lease writes nothing any more.

use std::sync::Arc;
use std::time::Instant;

use model::error::{Error, Kind, Result, Side};
use model::migration::{MigrationEvent, Own, Phase};
use redis_migration::{Node, Summary};
use store::{LEASE_MS, MigrationRow, StoreTx};
use tokio::task::JoinHandle;

use crate::engine::{Engine, RunningMigration};
use crate::migrations::endpoints::{EndSecrets, resolve_node};
use crate::migrations::log::append_log;
use crate::migrations::log_messages::MessageCode;

/// A migration while its lease is held here.
pub(super) struct LeasedMigration<'e> {
    pub(super) engine: &'e Arc<Engine>,
    pub(super) id: &'e str,
    pub(super) fence: i64,
    pub(super) running: &'e RunningMigration,
    pub(super) row: MigrationRow,
    pub(super) secrets: EndSecrets,
    /// Instances that stand elsewhere.
    pub(super) redirects: Vec<(String, String)>,
    pub(super) renewed: Instant,
}

pub(super) fn is_stopping(m: Option<&MigrationRow>) -> bool {
    m.is_none_or(|m| !m.state.phase.is_open()) || m.is_some_and(|m| m.state.phase == Phase::Stopping)
}

/// Work that ends with whoever watches it: nobody writes to a target unseen.
pub(super) struct Job(pub(super) JoinHandle<Result<Summary>>);

impl Drop for Job {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl LeasedMigration<'_> {
    pub(super) fn node(&self, side: Side) -> Result<Node> {
        let spec = &self.row.spec;
        let end = if side == Side::Source { &spec.source } else { &spec.target };
        let missing = || Error::new(Kind::Invalid, "migration", "the migration is not configured").at(side);
        let end = end.as_ref().ok_or_else(missing)?;
        resolve_node(end, self.secrets.for_side(side), &*self.engine.resolver, &self.redirects)
            .map_err(|f| f.at(side))
    }

    /// What goes beyond the compatible API, of the request and of registered ends.
    pub(super) fn own(&self) -> Own {
        let spec = &self.row.spec;
        let of = |end: &Option<model::migration::Endpoint>| {
            let id = end.as_ref().and_then(|end| end.id.as_ref())?;
            self.engine.resolver().instance(id).map(|instance| instance.own)
        };
        let (source, target) = (of(&spec.source).unwrap_or_default(), of(&spec.target).unwrap_or_default());
        spec.own.clone().with(&source, &target)
    }

    /// The service is ending, or the user stops it.
    pub(super) fn is_stop_requested(&self) -> bool {
        self.running.stop.is_cancelled()
    }

    /// A transaction that counts only while this worker holds the migration.
    ///
    /// # Errors
    /// [`Kind::LeaseLost`] when another worker holds it.
    pub(super) async fn write(&self) -> Result<StoreTx> {
        let mut tx = self.engine.store.write().await?;
        tx.hold_migration(self.id, self.fence).await?;
        Ok(tx)
    }

    /// Asked before anything at either end is changed that another worker may have set.
    ///
    /// # Errors
    /// As [`LeasedMigration::write`].
    pub(super) async fn check_lease(&self) -> Result<()> {
        self.write().await.map(drop)
    }

    pub(super) async fn log(&self, code: MessageCode, parts: &[String]) -> Result<()> {
        let mut tx = self.write().await?;
        append_log(&mut tx, self.id, code, self.engine.clock.now_ms(), parts).await?;
        tx.commit().await
    }

    pub(super) async fn apply(&mut self, event: MigrationEvent) -> Result<()> {
        let mut tx = self.write().await?;
        if let Ok(state) = tx.apply_migration(self.id, event, self.engine.clock.now_ms()).await? {
            self.row.state = state;
            // Whoever sees the phase sees the numbers that belong to it.
            tx.set_migration_stats(self.id, &self.row.stats).await?;
        }
        tx.commit().await
    }

    pub(super) async fn renew(&mut self) -> Result<bool> {
        let until = self.engine.clock.now_ms() + LEASE_MS;
        let mut tx = self.engine.store.write().await?;
        let leased = tx.renew_migration(self.id, self.fence, until).await?;
        tx.commit().await?;
        self.renewed = Instant::now();
        Ok(leased)
    }
}
