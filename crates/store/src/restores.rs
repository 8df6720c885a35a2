//! Archived objects that a task waits for.

use model::error::Result;
use model::key::Key;
use model::task::TaskId;

use crate::{StoreTx, args};

/// An object whose restoration was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// Its key.
    pub key: Key,
    /// Its size, bytes.
    pub size: u64,
    /// First asked for, milliseconds.
    pub asked_at: i64,
}

impl StoreTx {
    /// Remembers objects to wait for; one that is waited for already keeps its first time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_restores(&mut self, task: TaskId, restores: &[Restore]) -> Result<()> {
        for r in restores {
            let sql = "INSERT INTO restores (task_id, key, size, asked_at) VALUES ($1, $2, $3, $4) \
                       ON CONFLICT (task_id, key) DO NOTHING";
            self.tx.execute(sql, args![task, r.key.as_bytes(), r.size, r.asked_at]).await?;
        }
        Ok(())
    }

    /// Forgets objects that are settled.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drop_restores(&mut self, task: TaskId, keys: &[Key]) -> Result<()> {
        for key in keys {
            let sql = "DELETE FROM restores WHERE task_id = $1 AND key = $2";
            self.tx.execute(sql, args![task, key.as_bytes()]).await?;
        }
        Ok(())
    }

    /// Objects that are waited for, by key, after `after`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn restores(&mut self, task: TaskId, after: &Key, limit: u64) -> Result<Vec<Restore>> {
        let sql =
            "SELECT key, size, asked_at FROM restores WHERE task_id = $1 AND key > $2 ORDER BY key LIMIT $3";
        let rows = self.tx.query(sql, args![task, after.as_bytes(), limit]).await?;
        rows.iter()
            .map(|r| {
                let key = Key::new(r.opt_blob(0)?.unwrap_or_default());
                Ok(Restore { key, size: r.count(1)?, asked_at: r.int(2)? })
            })
            .collect()
    }

    /// When the first of them was asked for, milliseconds; none when nothing is waited for.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting_since(&mut self, task: TaskId) -> Result<Option<i64>> {
        let rows =
            self.tx.query("SELECT MIN(asked_at) FROM restores WHERE task_id = $1", args![task]).await?;
        rows.first().map_or(Ok(None), |r| r.opt_int(0))
    }
}
