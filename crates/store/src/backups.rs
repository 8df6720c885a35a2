//! Backups of instances that this service made; the files lie in the data directory.

use model::failure::Result;

use crate::{Row, Unit, args};

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupRow {
    /// Identity, a UUID.
    pub id: String,
    /// Owner.
    pub project: String,
    /// Of which instance.
    pub instance: String,
    /// Free text.
    pub remark: String,
    /// `backuping`, `succeed` or `failed` (dcs-migration.md §2.20).
    pub status: String,
    /// Length of its file, bytes.
    pub size: u64,
    /// Why it failed.
    pub error: Option<String>,
    /// Begun at, milliseconds.
    pub created_at: i64,
    /// Ended at, milliseconds.
    pub updated_at: i64,
}

fn row(r: &Row) -> Result<BackupRow> {
    Ok(BackupRow {
        id: r.text(0)?.to_owned(),
        project: r.text(1)?.to_owned(),
        instance: r.text(2)?.to_owned(),
        remark: r.text(3)?.to_owned(),
        status: r.text(4)?.to_owned(),
        size: r.count(5)?,
        error: r.opt_text(6)?.map(str::to_owned),
        created_at: r.int(7)?,
        updated_at: r.int(8)?,
    })
}

impl Unit {
    /// Notes that a backup begins.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_backup(&mut self, b: &BackupRow) -> Result<()> {
        let sql = "INSERT INTO backups (id, project, instance_id, remark, status, size, error, created_at, updated_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let args = args![
            b.id.as_str(),
            b.project.as_str(),
            b.instance.as_str(),
            b.remark.as_str(),
            b.status.as_str(),
            b.size,
            b.error.clone(),
            b.created_at,
            b.updated_at
        ];
        self.tx.execute(sql, args).await?;
        Ok(())
    }

    /// Notes how a backup ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_backup(&mut self, id: &str, size: u64, error: Option<&str>, now: i64) -> Result<()> {
        let status = if error.is_some() { "failed" } else { "succeed" };
        let sql = "UPDATE backups SET status = $2, size = $3, error = $4, updated_at = $5 WHERE id = $1";
        self.tx.execute(sql, args![id, status, size, error, now]).await?;
        Ok(())
    }

    /// Backups that were being made when the process ended are none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn fail_open_backups(&mut self, now: i64) -> Result<()> {
        let sql = "UPDATE backups SET status = 'failed', error = 'the service ended', updated_at = $1 \
                   WHERE status = 'backuping'";
        self.tx.execute(sql, args![now]).await?;
        Ok(())
    }

    /// One backup of a project.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn backup_of(&mut self, project: &str, id: &str) -> Result<Option<BackupRow>> {
        let sql = "SELECT id, project, instance_id, remark, status, size, error, created_at, updated_at \
                   FROM backups WHERE project = $1 AND id = $2";
        self.tx.query(sql, args![project, id]).await?.first().map(row).transpose()
    }

    /// A page of an instance's backups that began between two instants, newest first, and how many there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_backups(
        &mut self,
        project: &str,
        instance: &str,
        between: (i64, i64),
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<BackupRow>, u64)> {
        let count = "SELECT COUNT(*) FROM backups WHERE project = $1 AND instance_id = $2 AND created_at >= $3 \
                     AND created_at <= $4";
        let args = args![project, instance, between.0, between.1, limit, offset];
        let total = self.tx.query(count, args[..4].to_vec()).await?;
        let total = total.first().map_or(Ok(0), |r| r.count(0))?;
        let sql = "SELECT id, project, instance_id, remark, status, size, error, created_at, updated_at FROM backups \
                   WHERE project = $1 AND instance_id = $2 AND created_at >= $3 AND created_at <= $4 \
                   ORDER BY created_at DESC, id DESC LIMIT $5 OFFSET $6";
        let rows = self.tx.query(sql, args).await?;
        Ok((rows.iter().map(row).collect::<Result<_>>()?, total))
    }

    /// Forgets a backup.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_backup(&mut self, id: &str) -> Result<()> {
        self.tx.execute("DELETE FROM backups WHERE id = $1", args![id]).await?;
        Ok(())
    }
}
