//! Everything remembered: tasks, the ledger, failures, tokens, the audit trail.
//!
//! A [`StoreTx`] is one transaction: it takes effect with [`StoreTx::commit`], and dropping it takes everything back.
//! All SQL stands in this crate, with `$n` parameters and in the dialect that SQLite and PostgreSQL share;
//! a backend only runs it.

mod audit;
mod backend;
mod backups;
mod failures;
mod groups;
mod lease;
mod ledger;
mod long_specs;
mod migrations;
mod notifications;
mod outcomes;
pub mod postgres;
mod restores;
mod sealing;
mod sessions;
mod sqlite;
mod sync;
mod tasks;
mod tokens;
mod value;

use std::path::Path;
use std::sync::Arc;

use model::error::{Error, Kind, Reason, Result};
use seal::Keyring;
use tokio::sync::{Mutex, watch};

pub use audit::AuditLine;
pub use backend::{Backend, Mode, Transaction};
pub use backups::BackupRow;
pub use failures::{FailedObject, FailureGroup};
pub use groups::{BusyGroup, GroupRow, MEMBERS_MAX};
pub use lease::{FENCE_AFTER, LEASE_MS, RENEW_INTERVAL};
pub use ledger::{Checkpoint, NewRange, Pass, RangeRow, UnresolvedUpload, Upload};
pub use long_specs::LISTED_KEYS_BYTES;
pub use migrations::{Level, LogLine, MigrationRow, MigrationStats, NewMigration};
pub use notifications::{DeliveryState, Notification};
pub use restores::Restore;
pub use sealing::{Resealed, SealedRows, check_keyring, proof_key, sealed_rows};
pub use sessions::Session;
pub use sqlite::Sqlite;
pub use sync::{PENDING_MAX, SLOT_MS, SyncRow};
pub use tasks::{
    ErrorNote, MemberTally, NewTask, OpenTask, TaskBandwidth, TaskFilter, TaskPageFilter, TaskRow,
};
pub use tokens::TokenRow;
pub use value::{Row, Value};

/// The store: a backend, the keyring for its secrets, and the signal that something changed.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Arc<dyn Backend>,
    keys: Arc<sealing::KeyringSource>,
    changed: Arc<watch::Sender<u64>>,
    /// Other processes use the database as well.
    is_shared: bool,
    /// When it was last tried to write, and what came of it.
    last_write_check: Arc<Mutex<Option<WriteCheck>>>,
}

/// When writing was tried, milliseconds, and what came of it.
type WriteCheck = (i64, Result<()>);

/// It is tried again after so long, milliseconds.
const WRITE_CHECK_INTERVAL_MS: i64 = 5_000;

/// One transaction.
pub struct StoreTx {
    tx: Box<dyn Transaction>,
    keys: sealing::TxKeys,
    changed: Arc<watch::Sender<u64>>,
    wakes: bool,
}

impl Store {
    /// A store over any backend.
    pub fn new(backend: Arc<dyn Backend>, keys: Arc<Keyring>) -> Self {
        Self::over(backend, sealing::KeyringSource::fixed(keys))
    }

    fn over(backend: Arc<dyn Backend>, ring: sealing::KeyringSource) -> Self {
        let changed = Arc::new(watch::Sender::new(0));
        Self { backend, keys: Arc::new(ring), changed, is_shared: false, last_write_check: Arc::default() }
    }

    /// Whether the database can be written now: tried at most once in five seconds.
    ///
    /// # Errors
    /// An error of the write.
    pub async fn check_writable(&self, now: i64) -> Result<()> {
        let mut proved = self.last_write_check.lock().await;
        if let Some((at, found)) = &*proved
            && (0..WRITE_CHECK_INTERVAL_MS).contains(&(now - at))
        {
            return found.clone();
        }
        let write = async {
            let mut tx = self.write().await?;
            let sql = "INSERT INTO pulse (id, at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET at = $1";
            tx.tx.execute(sql, args![now]).await?;
            tx.commit().await
        };
        let found = write.await;
        *proved = Some((now, found.clone()));
        found
    }

    /// The embedded store in `data_dir`: SQLite and a keyring, made when missing. One process at a time.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when another process has it open; [`Kind::Invalid`] when the keyring is missing for an existing
    /// database, or is another one's.
    pub async fn embedded(data_dir: &Path) -> Result<Self> {
        sqlite::make_dir(data_dir)?;
        // The key first: a database without one could be of no use to anybody.
        let ring = sealing::KeyringSource::open(data_dir)?;
        let store = Self::over(Arc::new(Sqlite::open(data_dir).await?), ring);
        store.prove_keys().await?;
        Ok(store)
    }

    /// The keyring is the one that sealed what is here.
    async fn prove_keys(&self) -> Result<()> {
        let mut tx = self.write().await?;
        if let Some(proof) = tx.proof().await? {
            return tx.keys.open(sealing::PROOF, &proof).map(drop).map_err(foreign);
        }
        // A database from before there was a proof: any secret in it is one.
        let sql = "SELECT id FROM tasks WHERE secrets IS NOT NULL LIMIT 1";
        let rows = tx.tx.query(sql, crate::args![]).await?;
        if let Some(row) = rows.first() {
            tx.task_secrets(row.int(0)?).await.map_err(foreign)?;
        }
        // Rows may be of any key of the ring: a proof of the newest would say that they are all of that one.
        let proof = self.keys.now().seal_oldest(sealing::PROOF, b"whimbrel")?;
        tx.tx.execute("INSERT INTO sealing (id, proof) VALUES (1, $1)", crate::args![proof]).await?;
        tx.commit().await
    }

    /// The store in a PostgreSQL database, which other processes use as well. The keyring must be in `data_dir` already: a
    /// new one could not open what others have sealed. `direct` is the URL of the database itself where `url` leads to a
    /// pgbouncer.
    ///
    /// # Errors
    /// When the database cannot be reached or has another schema version; [`Kind::Invalid`] when the keyring is missing or
    /// is another one's.
    pub async fn shared(url: &str, direct: Option<&str>, data_dir: &Path) -> Result<Self> {
        let ring = sealing::KeyringSource::existing(data_dir)?;
        let version = postgres::schema::migrate_empty(url).await?;
        if !version.is_current() {
            let m = format!(
                "the database has schema version {}, this program needs {}; hint: run `whimbrel db migrate`",
                version.database, version.program
            );
            return Err(Error::new(Kind::Invalid, "store", m));
        }
        let backend = Arc::new(postgres::Postgres::connect(url).await?);
        let store = Self { is_shared: true, ..Self::over(backend, ring) };
        store.prove_keys().await?;
        postgres::listen::start(postgres::target(direct.unwrap_or(url))?, Arc::downgrade(&store.changed));
        Ok(store)
    }

    /// Begins a transaction that reads and writes, with no other change in between.
    ///
    /// # Errors
    /// When the database is not there.
    pub async fn write(&self) -> Result<StoreTx> {
        self.tx(Mode::Change).await
    }

    /// Begins a transaction that writes under a lease. Its statements must change nothing when the lease was lost.
    ///
    /// # Errors
    /// When the database is not there.
    pub async fn work(&self) -> Result<StoreTx> {
        self.tx(Mode::Work).await
    }

    /// Begins a transaction that only reads.
    ///
    /// # Errors
    /// When the database is not there.
    pub async fn read(&self) -> Result<StoreTx> {
        self.tx(Mode::Read).await
    }

    async fn tx(&self, mode: Mode) -> Result<StoreTx> {
        let tx = self.backend.begin(mode).await?;
        // The ring is read when the transaction has its place in the queue: `sealing` relies on that.
        let keys = sealing::TxKeys::new(&self.keys);
        Ok(StoreTx { tx, keys, changed: self.changed.clone(), wakes: false })
    }

    /// Whether other processes use the database as well: what they must find cannot be in files of this process.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Time of the database, milliseconds; none of an embedded one, whose time is that of this machine.
    ///
    /// # Errors
    /// When the database is not there.
    pub async fn database_time(&self) -> Result<Option<i64>> {
        self.backend.now_ms().await
    }

    /// The keyring of this store as it is now.
    pub fn keys(&self) -> Arc<Keyring> {
        self.keys.now()
    }

    /// Tells of changes. Subscribe before asking the store, so that no change falls in between.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Says of a secret that cannot be opened that the keyring is wrong.
fn foreign(f: Error) -> Error {
    match f.reason {
        Reason::SecretNotOpened => {
            let m = format!("the keyring does not match this database: {}", f.message);
            Error::new(Kind::Invalid, "keyring", m).because(Reason::Keyring).caused_by(f)
        }
        _ => f,
    }
}

impl StoreTx {
    /// Makes everything done in this unit durable, and wakes the runtime if it concerns it.
    ///
    /// # Errors
    /// When the database refuses; then nothing of it happened.
    pub async fn commit(self) -> Result<()> {
        self.tx.commit(self.wakes).await?;
        if self.wakes {
            self.changed.send_modify(|n| *n += 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sec_f17_wrong_key_does_not_open_a_database() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::embedded(dir.path()).await.unwrap());
        let other = tempfile::tempdir().unwrap();
        drop(Keyring::in_data_dir(other.path()).unwrap());
        let key = dir.path().join(seal::FILE);
        std::fs::rename(&key, dir.path().join("kept")).unwrap();
        let missing = Store::embedded(dir.path()).await.unwrap_err();
        assert!(missing.message.contains("is missing"), "{missing}");
        std::fs::copy(other.path().join(seal::FILE), &key).unwrap();
        let foreign = again(dir.path()).await.unwrap_err();
        assert!(foreign.message.contains("does not match this database"), "{foreign}");
        std::fs::rename(dir.path().join("kept"), &key).unwrap();
        again(dir.path()).await.unwrap();
    }

    /// The thread that held the database may take a moment to let it go.
    async fn again(dir: &Path) -> Result<Store> {
        for _ in 0..100 {
            match Store::embedded(dir).await {
                Err(f) if f.kind == Kind::Conflict => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await
                }
                done => return done,
            }
        }
        Store::embedded(dir).await
    }
}
