//! Secrets of the database when the keyring changes while the store is open.
//!
//! The row `sealing.proof` is sealed last. A proof that the newest key sealed therefore says: every secret in the
//! database is sealed with this key, and every later one will be. [`Store::reseal`] makes it so:
//!
//! 1. The ring in memory already has the new key first ([`Store::reload_keys`]); its file is durable.
//! 2. One write transaction is waited for. Writes run one at a time in the order of their begin, so every transaction
//!    that sealed with an older key has ended by then.
//! 3. Rows of older keys are read in pages and replaced in small transactions. A row that changed in between is left:
//!    whoever changed it sealed it with the new key.
//! 4. When a whole pass finds no such row, the proof is sealed with the new key.
//!
//! A stop at any point leaves rows of both keys and a proof of the old one; the next call begins with step 2. Older
//! keys leave the ring only when the proof is sealed with the newest key.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::error::{Error, Kind, Result};
use seal::{Keyring, Secret, key_of, mark};

use crate::{Row, Store, StoreTx, Value, args, foreign, sqlite};

/// Rows that are sealed again in one transaction.
const BATCH_ROWS: u64 = 100;
/// Context of the proof.
pub(crate) const PROOF: &str = "sealing";
const SELECT_PROOF: &str = "SELECT proof FROM sealing WHERE id = 1";

/// A table with a sealed column.
struct Table {
    /// First word of the context; the id follows.
    context: &'static str,
    /// Less than every id.
    first: Value,
    page: &'static str,
    replace: &'static str,
}

macro_rules! table {
    ($name:literal, $context:literal, $first:expr) => {
        Table {
            context: $context,
            first: $first,
            page: concat!(
                "SELECT id, secrets FROM ",
                $name,
                " WHERE id > $1 AND secrets IS NOT NULL AND SUBSTR(secrets, 1, LENGTH($2)) <> $2 ORDER BY id LIMIT $3"
            ),
            replace: concat!("UPDATE ", $name, " SET secrets = $3 WHERE id = $1 AND secrets = $2"),
        }
    };
}

static TABLES: [Table; 4] = [
    table!("tasks", "task", Value::Int(i64::MIN)),
    table!("sync_tasks", "sync", Value::Text(String::new())),
    table!("task_groups", "group", Value::Text(String::new())),
    table!("migrations", "migration", Value::Text(String::new())),
];

macro_rules! count {
    ($name:literal, $column:literal) => {
        concat!(
            "SELECT COUNT(*), COALESCE(SUM(CASE WHEN SUBSTR(",
            $column,
            ", 1, LENGTH($1)) = $1 THEN 1 ELSE 0 END), 0) FROM ",
            $name,
            " WHERE ",
            $column,
            " IS NOT NULL"
        )
    };
}

/// All sealed rows, and those of one key.
const COUNTS: [&str; 5] = [
    count!("tasks", "secrets"),
    count!("sync_tasks", "secrets"),
    count!("task_groups", "secrets"),
    count!("migrations", "secrets"),
    count!("sealing", "proof"),
];

impl Table {
    fn context(&self, row: &Row) -> Result<String> {
        match &row.0[0] {
            Value::Int(id) => Ok(format!("{} {id}", self.context)),
            _ => Ok(format!("{} {}", self.context, row.text(0)?)),
        }
    }
}

/// The keyring of an open store; it changes when its file does.
#[derive(Debug)]
pub(crate) struct KeyringSource {
    /// Its file; none: it does not change.
    path: Option<PathBuf>,
    state: Mutex<State>,
    /// One re-sealing at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// Content of the file.
    text: Secret,
    keys: Arc<Keyring>,
    /// The proof is known to be sealed with the newest key.
    settled: bool,
}

impl KeyringSource {
    /// A ring that does not change.
    pub(crate) fn fixed(keys: Arc<Keyring>) -> Self {
        let state = Mutex::new(State { text: Secret::default(), keys, settled: false });
        Self { path: None, state, turn: tokio::sync::Mutex::default() }
    }

    /// The ring of a data directory, made when there is neither one nor a database.
    pub(crate) fn open(data_dir: &Path) -> Result<Self> {
        drop(Keyring::in_data_dir(data_dir)?);
        Self::existing(data_dir)
    }

    /// The ring of a data directory, which must be there.
    pub(crate) fn existing(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(seal::FILE);
        let (text, keys) = Keyring::read(&path)?;
        make_durable(&path)?;
        let state = Mutex::new(State { text, keys: Arc::new(keys), settled: false });
        Ok(Self { path: Some(path), state, turn: tokio::sync::Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys now.
    pub(crate) fn now(&self) -> Arc<Keyring> {
        self.state().keys.clone()
    }

    /// Reads the file again; true when it was taken over.
    fn reload(&self) -> Result<bool> {
        let Some(path) = &self.path else { return Ok(false) };
        let (text, keys) = Keyring::read(path)?;
        if self.state().text == text {
            return Ok(false);
        }
        make_durable(path)?;
        let mut state = self.state();
        let refused = |why: String| {
            Error::new(Kind::Invalid, "keyring", format!("{} was not reloaded: {why}", path.display()))
        };
        // The key that seals now must be in it, the same and not only of the same name.
        let sample = state.keys.seal("ring", b"")?;
        if keys.open("ring", &sample).is_err() {
            return Err(refused(format!("key {} is missing or different", state.keys.newest())));
        }
        let gone = state.keys.names().find(|old| keys.names().all(|name| name != *old));
        if let Some(gone) = gone
            && !state.settled
        {
            return Err(refused(format!("key {gone} is missing, but rows of the database need it")));
        }
        state.settled = state.settled && keys.newest() == state.keys.newest();
        state.text = text;
        state.keys = Arc::new(keys);
        Ok(true)
    }

    fn drop_old_keys(&self, newest: &str) {
        let mut state = self.state();
        state.settled = state.keys.newest() == newest;
    }
}

/// A sealed text must not outlive the line of its key: the file is durable before the key is used.
fn make_durable(path: &Path) -> Result<()> {
    seal::sync_file(path)
        .map_err(|e| Error::new(Kind::Internal, "keyring", format!("cannot sync {}: {e}", path.display())))
}

/// The keys of one transaction.
pub(crate) struct TxKeys {
    /// When the transaction began: what it reads may be older than the last change of the ring.
    began: Arc<Keyring>,
    ring: Arc<KeyringSource>,
}

impl TxKeys {
    pub(crate) fn new(ring: &Arc<KeyringSource>) -> Self {
        Self { began: ring.now(), ring: ring.clone() }
    }

    /// As [`Keyring::seal`], with the newest key now.
    pub(crate) fn seal(&self, context: &str, plain: &[u8]) -> Result<String> {
        self.ring.now().seal(context, plain)
    }

    /// As [`Keyring::open`].
    pub(crate) fn open(&self, context: &str, sealed: &str) -> Result<Vec<u8>> {
        if self.began.holds(sealed) {
            return self.began.open(context, sealed);
        }
        self.ring.now().open(context, sealed)
    }
}

impl StoreTx {
    /// The proof as it is stored.
    pub(crate) async fn proof(&mut self) -> Result<Option<String>> {
        let rows = self.tx.query(SELECT_PROOF, args![]).await?;
        rows.first().map(|r| r.text(0).map(str::to_owned)).transpose()
    }
}

/// What [`Store::reseal`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// The key that now seals every secret of the database.
    pub key: String,
    /// Rows that were sealed again.
    pub rows: u64,
    /// Rows that no key of the ring opens; they are as they were.
    pub unreadable: u64,
}

impl Store {
    /// Reads the keyring file again when it has changed; true when it was taken over.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the file cannot be read or misses a key that is needed; the ring stays as it was.
    pub fn reload_keys(&self) -> Result<bool> {
        self.keys.reload()
    }

    /// Seals every secret of the database with the newest key; nothing to answer when that is so already.
    ///
    /// # Errors
    /// When the database fails. Every secret can be read then, and the next call goes on.
    pub async fn reseal(&self) -> Result<Option<Resealed>> {
        let _turn = self.keys.turn.lock().await;
        let keys = {
            let state = self.keys.state();
            if state.settled {
                return Ok(None);
            }
            state.keys.clone()
        };
        // Every transaction that sealed with an older key has ended when this one is answered.
        let mut tx = self.write().await?;
        let proof = tx.proof().await?;
        drop(tx);
        if proof.as_deref().and_then(key_of) == Some(keys.newest()) {
            self.keys.drop_old_keys(keys.newest());
            return Ok(None);
        }
        let mut done = Resealed { key: keys.newest().to_owned(), ..Resealed::default() };
        loop {
            let (rows, unreadable) = self.reseal_pass(&keys).await?;
            done.rows += rows;
            done.unreadable = unreadable;
            if rows == 0 {
                break;
            }
        }
        let proof = keys.seal(PROOF, b"whimbrel")?;
        let mut tx = self.write().await?;
        tx.tx.execute("UPDATE sealing SET proof = $1 WHERE id = 1", args![proof]).await?;
        tx.commit().await?;
        self.keys.drop_old_keys(keys.newest());
        Ok(Some(done))
    }

    /// One pass over all tables: rows of older keys, and those of them that no key opens.
    async fn reseal_pass(&self, keys: &Keyring) -> Result<(u64, u64)> {
        let newest = mark(keys.newest());
        let (mut resealed, mut unreadable) = (0, 0);
        for table in &TABLES {
            let mut after = table.first.clone();
            loop {
                let mut tx = self.read().await?;
                let rows = tx.tx.query(table.page, args![after, newest.as_str(), BATCH_ROWS]).await?;
                drop(tx);
                let Some(last) = rows.last() else { break };
                after = last.0[0].clone();
                let mut changes = Vec::new();
                for row in &rows {
                    let (context, old) = (table.context(row)?, row.text(1)?);
                    match keys.open(&context, old) {
                        Ok(plain) => {
                            changes.push((row.0[0].clone(), old.to_owned(), keys.seal(&context, &plain)?));
                        }
                        Err(_) => unreadable += 1,
                    }
                }
                if changes.is_empty() {
                    continue;
                }
                let mut tx = self.write().await?;
                for (id, old, new) in changes {
                    tx.tx.execute(table.replace, args![id, old, new]).await?;
                    resealed += 1;
                }
                tx.commit().await?;
            }
        }
        Ok((resealed, unreadable))
    }
}

/// How many rows of a database each key seals, the proof among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedRows {
    /// Names of the keys in the order of the ring, with their rows.
    pub by_key: Vec<(String, u64)>,
    /// Rows of keys that are not in the ring.
    pub unknown: u64,
}

/// Counts sealed rows of a data directory, which another process may have open.
///
/// # Errors
/// When the database cannot be read.
pub fn sealed_rows(data_dir: &Path, keys: &Keyring) -> Result<SealedRows> {
    let mut by_key: Vec<(String, u64)> = keys.names().map(|name| (name.to_owned(), 0)).collect();
    let mut all = 0;
    if data_dir.join("whimbrel.db").exists() {
        for sql in COUNTS {
            let mut total = 0;
            for (name, rows) in &mut by_key {
                let found = sqlite::query_file(data_dir, sql, &[mark(name).into()])?;
                if let Some(row) = found.first() {
                    total = row.count(0)?;
                    *rows += row.count(1)?;
                }
            }
            all += total;
        }
    }
    let known: u64 = by_key.iter().map(|(_, rows)| rows).sum();
    Ok(SealedRows { by_key, unknown: all.saturating_sub(known) })
}

/// Name of the key that seals every secret of a database, which another process may have open; none: no proof yet.
///
/// # Errors
/// When the database cannot be read.
pub fn proof_key(data_dir: &Path) -> Result<Option<String>> {
    let rows = sqlite::query_file(data_dir, SELECT_PROOF, &[])?;
    Ok(rows.first().map(|r| r.text(0)).transpose()?.and_then(key_of).map(str::to_owned))
}

/// Checks that a keyring is the one of a database, which another process may have open.
///
/// # Errors
/// [`Kind::Invalid`] when it is not; when the database cannot be read.
pub fn check_keyring(data_dir: &Path, keys: &Keyring) -> Result<()> {
    let rows = sqlite::query_file(data_dir, SELECT_PROOF, &[])?;
    match rows.first() {
        Some(row) => keys.open(PROOF, row.text(0)?).map(drop).map_err(foreign),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
