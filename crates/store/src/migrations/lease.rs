//! Leases of migrations: the node that runs one holds its lease.

use model::error::{Error, Kind, Result};

use super::{COLUMNS, MigrationRow, row, select};
use crate::{StoreTx, args};

impl StoreTx {
    /// Takes the lease of a migration that nobody holds, or whose holder is late; answers the fencing number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_migration(
        &mut self,
        id: &str,
        owner: &str,
        now: i64,
        until: i64,
    ) -> Result<Option<i64>> {
        let sql = "UPDATE migrations SET owner = $2, lease_until = $4, fence = fence + 1 \
                   WHERE id = $1 AND (owner IS NULL OR lease_until < $3)";
        if self.tx.execute(sql, args![id, owner, now, until]).await? == 0 {
            return Ok(None);
        }
        let rows = self.tx.query("SELECT fence FROM migrations WHERE id = $1", args![id]).await?;
        rows.first().map_or(Ok(None), |r| r.int(0).map(Some))
    }

    /// Makes the rest of this unit count only while the lease is held: the first statement of whatever a worker
    /// writes about a migration.
    ///
    /// # Errors
    /// [`Kind::LeaseLost`] when another worker holds the migration, or nobody does.
    pub async fn hold_migration(&mut self, id: &str, fence: i64) -> Result<()> {
        let sql = "UPDATE migrations SET fence = fence WHERE id = $1 AND fence = $2 AND owner IS NOT NULL";
        if self.tx.execute(sql, args![id, fence]).await? == 1 {
            return Ok(());
        }
        let m = format!("another worker holds migration {id} now");
        Err(Error::new(Kind::LeaseLost, "migration", m))
    }

    /// Extends a lease; false when it was lost.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew_migration(&mut self, id: &str, fence: i64, until: i64) -> Result<bool> {
        let sql = "UPDATE migrations SET lease_until = $3 WHERE id = $1 AND fence = $2 AND owner IS NOT NULL";
        Ok(self.tx.execute(sql, args![id, fence, until]).await? == 1)
    }

    /// Gives a lease back; false when it was lost before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release_migration(&mut self, id: &str, fence: i64) -> Result<bool> {
        let sql = "UPDATE migrations SET owner = NULL, lease_until = 0 \
                   WHERE id = $1 AND fence = $2 AND owner IS NOT NULL";
        Ok(self.tx.execute(sql, args![id, fence]).await? == 1)
    }

    /// Ends the leases of an embedded store at start, and answers the migrations that held one: their process was killed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_migration_leases(&mut self) -> Result<Vec<MigrationRow>> {
        let rows = self.tx.query(select!("WHERE owner IS NOT NULL"), vec![]).await?;
        self.tx
            .execute("UPDATE migrations SET owner = NULL, lease_until = 0 WHERE owner IS NOT NULL", vec![])
            .await?;
        rows.iter().map(row).collect()
    }
}
