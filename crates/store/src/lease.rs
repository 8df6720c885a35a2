//! Leases with fencing numbers: a worker that lost its lease finds its writes turned away.
//!
//! Decision: ADR 0006, `docs/adr/0006-leases-and-desired-state-instead-of-commands.md`.

use std::time::Duration;

use model::error::Result;
use model::task::TaskId;

use crate::{StoreTx, args};

/// A lease that was not renewed for this long, milliseconds, may be claimed by another worker.
pub const LEASE_MS: i64 = 10_000;
/// How often the holder of a lease renews it.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// Without a renewal for this long, the holder stops: well before another worker may claim the lease.
pub const FENCE_AFTER: Duration = Duration::from_secs(6);

impl StoreTx {
    /// Takes the lease of a task that nobody holds, or whose holder is late; answers the fencing number.
    /// All ranges of the task change hands with it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_task(&mut self, id: TaskId, owner: &str, now: i64, until: i64) -> Result<Option<i64>> {
        let sql = "UPDATE tasks SET owner = $2, lease_until = $4, fence = fence + 1 \
                   WHERE id = $1 AND (owner IS NULL OR lease_until < $3)";
        if self.tx.execute(sql, args![id, owner, now, until]).await? == 0 {
            return Ok(None);
        }
        let rows = self.tx.query("SELECT fence FROM tasks WHERE id = $1", args![id]).await?;
        let fence = rows.first().map_or(Ok(0), |r| r.int(0))?;
        let ranges = "UPDATE ranges SET owner = $2, lease_until = $3, fence = $4 WHERE task_id = $1";
        self.tx.execute(ranges, args![id, owner, until, fence]).await?;
        Ok(Some(fence))
    }

    /// True when somebody else holds a valid lease.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn leased_by_other(&mut self, id: TaskId, owner: &str, now: i64) -> Result<bool> {
        let sql =
            "SELECT 1 FROM tasks WHERE id = $1 AND owner IS NOT NULL AND owner <> $2 AND lease_until >= $3";
        Ok(!self.tx.query(sql, args![id, owner, now]).await?.is_empty())
    }

    /// Makes the rest of this unit count only while the lease is held: the first statement of whatever a worker
    /// writes.
    ///
    /// # Errors
    /// [`model::error::Kind::LeaseLost`] when another worker holds the task.
    pub async fn hold_task(&mut self, id: TaskId, fence: i64) -> Result<()> {
        let sql = "UPDATE tasks SET fence = fence WHERE id = $1 AND fence = $2 AND owner IS NOT NULL";
        crate::ledger::held(self.tx.execute(sql, args![id, fence]).await?, id)
    }

    /// Extends a lease; false when it was lost.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew_task(&mut self, id: TaskId, fence: i64, until: i64) -> Result<bool> {
        let sql = "UPDATE tasks SET lease_until = $3 WHERE id = $1 AND fence = $2 AND owner IS NOT NULL";
        Ok(self.tx.execute(sql, args![id, fence, until]).await? == 1)
    }

    /// Gives a lease back; false when it was lost before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release_task(&mut self, id: TaskId, fence: i64) -> Result<bool> {
        let sql = "UPDATE tasks SET owner = NULL, lease_until = 0 \
                   WHERE id = $1 AND fence = $2 AND owner IS NOT NULL";
        // Another process may go on with it.
        self.wakes = true;
        Ok(self.tx.execute(sql, args![id, fence]).await? == 1)
    }

    /// Tasks of a project that run, wherever; batches of sync tasks do not count.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn running_tasks(&mut self, project: &str) -> Result<u64> {
        let sql = "SELECT COUNT(*) FROM tasks WHERE project = $1 AND observed = 'running' AND member_kind <> 'sync'";
        let rows = self.tx.query(sql, args![project]).await?;
        rows.first().map_or(Ok(0), |r| r.count(0))
    }

    /// Ends all leases of an embedded store at start: whoever held them lived in a process that is gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_all_leases(&mut self) -> Result<u64> {
        self.tx
            .execute("UPDATE tasks SET owner = NULL, lease_until = 0 WHERE owner IS NOT NULL", vec![])
            .await
    }
}
