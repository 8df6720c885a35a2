//! Everything remembered: tasks, the ledger, failures, tokens, the audit trail.
//!
//! A [`Unit`] is one transaction: it takes effect with [`Unit::save`], and dropping it takes everything back.
//! All SQL stands in this crate, with `$n` parameters and in the dialect that SQLite and PostgreSQL share;
//! a backend only runs it.

mod audit;
mod backups;
mod failures;
mod groups;
mod lease;
mod ledger;
mod migrations;
mod notices;
mod restores;
mod sqlite;
mod sync;
mod tasks;
mod tokens;
mod value;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use model::failure::Result;
use seal::Keyring;
use tokio::sync::watch;

pub use audit::AuditLine;
pub use backups::BackupRow;
pub use failures::FailedObject;
pub use groups::{GroupRow, MEMBERS_MAX};
pub use ledger::{Checkpoint, Doubt, NewRange, Pass, RangeRow, Upload};
pub use migrations::{Level, LogLine, MigrationRow, MigrationStats, NewMigration};
pub use notices::{Delivery, Notice};
pub use restores::Restore;
pub use sqlite::Sqlite;
pub use sync::{PENDING_MAX, SLOT_MS, SyncRow};
pub use tasks::{ErrorNote, NewTask, TaskFilter, TaskRow};
pub use tokens::TokenRow;
pub use value::{Row, Value};

/// Runs SQL; knows no table.
#[async_trait]
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// Begins a transaction that writes (`true`) or only reads.
    async fn begin(&self, write: bool) -> Result<Box<dyn Transaction>>;
}

/// An open transaction; dropped without commit, it is rolled back.
#[async_trait]
pub trait Transaction: Send {
    /// Runs a statement and gives the number of rows it changed.
    async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64>;
    /// Runs a query. Bounded by its own LIMIT, or by what one task can have.
    async fn query(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>>;
    /// Makes it durable.
    async fn commit(self: Box<Self>) -> Result<()>;
}

/// The store: a backend, the keyring for its secrets, and the signal that something changed.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Arc<dyn Backend>,
    keys: Arc<Keyring>,
    changed: Arc<watch::Sender<u64>>,
}

/// One transaction.
pub struct Unit {
    tx: Box<dyn Transaction>,
    keys: Arc<Keyring>,
    changed: Arc<watch::Sender<u64>>,
    wakes: bool,
}

impl Store {
    /// A store over any backend.
    pub fn new(backend: Arc<dyn Backend>, keys: Arc<Keyring>) -> Self {
        Self { backend, keys, changed: Arc::new(watch::Sender::new(0)) }
    }

    /// The embedded store in `data_dir`: SQLite and a keyring, made when missing. One process at a time.
    ///
    /// # Errors
    /// [`model::failure::Kind::Conflict`] when another process has it open.
    pub async fn embedded(data_dir: &Path) -> Result<Self> {
        let backend = Sqlite::open(data_dir).await?;
        let keys = Keyring::open_or_create(&data_dir.join("seal.key"))?;
        Ok(Self::new(Arc::new(backend), Arc::new(keys)))
    }

    /// Begins a transaction that writes.
    ///
    /// # Errors
    /// When the database is not there.
    pub async fn write(&self) -> Result<Unit> {
        self.unit(true).await
    }

    /// Begins a transaction that only reads.
    ///
    /// # Errors
    /// When the database is not there.
    pub async fn read(&self) -> Result<Unit> {
        self.unit(false).await
    }

    async fn unit(&self, write: bool) -> Result<Unit> {
        let tx = self.backend.begin(write).await?;
        Ok(Unit { tx, keys: self.keys.clone(), changed: self.changed.clone(), wakes: false })
    }

    /// The keyring of this store.
    pub fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// Tells of changes. Subscribe before asking the store, so that no change falls in between.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Unit {
    /// Makes everything done in this unit durable, and wakes the runtime if it concerns it.
    ///
    /// # Errors
    /// When the database refuses; then nothing of it happened.
    pub async fn save(self) -> Result<()> {
        self.tx.commit().await?;
        if self.wakes {
            self.changed.send_modify(|n| *n += 1);
        }
        Ok(())
    }
}
