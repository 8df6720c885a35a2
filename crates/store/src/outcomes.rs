//! Outcome lines in the database, where several processes share it: the file of a process is a copy of them.

use model::error::Result;
use model::task::TaskId;

use crate::{StoreTx, args};

/// Chunks that are read at once.
const PAGE: u64 = 64;

impl StoreTx {
    /// Adds lines that begin at byte `at` of a task's outcomes; what stood there or behind, of a commit that did not count,
    /// is replaced.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_outcomes(&mut self, task: TaskId, at: u64, lines: &[u8]) -> Result<()> {
        self.tx
            .execute("DELETE FROM outcome_chunks WHERE task_id = $1 AND at >= $2", args![task, at])
            .await?;
        if !lines.is_empty() {
            let sql = "INSERT INTO outcome_chunks (task_id, at, lines) VALUES ($1, $2, $3)";
            self.tx.execute(sql, args![task, at, lines]).await?;
        }
        Ok(())
    }

    /// Lines from byte `from` on, some at a time, each piece with its place; none at the end.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn outcomes(&mut self, task: TaskId, from: u64) -> Result<Vec<(u64, Vec<u8>)>> {
        let sql = "SELECT at, lines FROM outcome_chunks WHERE task_id = $1 AND at >= $2 ORDER BY at LIMIT $3";
        let rows = self.tx.query(sql, args![task, from, PAGE]).await?;
        rows.iter().map(|r| Ok((r.count(0)?, r.opt_blob(1)?.unwrap_or_default().to_vec()))).collect()
    }
}
