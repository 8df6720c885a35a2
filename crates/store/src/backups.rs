//! Backups of instances that this service made; the files lie in the data directory.

use model::error::Result;

use crate::{Row, StoreTx, args};

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

impl StoreTx {
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

    /// How many backups of a project are being made, and how many there are in all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_backups(&mut self, project: &str) -> Result<(u64, u64)> {
        let sql = "SELECT COALESCE(SUM(CASE WHEN status = 'backuping' THEN 1 ELSE 0 END), 0), COUNT(*) \
                   FROM backups WHERE project = $1";
        let rows = self.tx.query(sql, args![project]).await?;
        rows.first().map_or(Ok((0, 0)), |r| Ok((r.count(0)?, r.count(1)?)))
    }

    /// Notes how a backup ended; one that is not being made any more stays as it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_backup(&mut self, id: &str, size: u64, error: Option<&str>, now: i64) -> Result<()> {
        let status = if error.is_some() { "failed" } else { "succeed" };
        let sql = "UPDATE backups SET status = $2, size = $3, error = $4, updated_at = $5 \
                   WHERE id = $1 AND status = 'backuping'";
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

#[cfg(test)]
mod tests {
    use model::group::{GroupEvent, GroupKind};
    use model::migration::{MigrationEvent, MigrationKind, MigrationSpec, Phase};
    use model::spec::TaskSpec;

    use super::*;
    use crate::{NewMigration, Store};

    #[tokio::test]
    async fn f4_abandoned_backup_does_not_succeed_later() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let backup = BackupRow {
            id: "b".into(),
            project: "p".into(),
            instance: "i".into(),
            remark: String::new(),
            status: "backuping".into(),
            size: 0,
            error: None,
            created_at: 1,
            updated_at: 1,
        };
        tx.insert_backup(&backup).await.unwrap();
        tx.fail_open_backups(2).await.unwrap();
        tx.end_backup("b", 5, None, 3).await.unwrap();
        let now = tx.backup_of("p", "b").await.unwrap().unwrap();
        assert_eq!((now.status.as_str(), now.size, now.updated_at), ("failed", 0, 2));
    }

    #[tokio::test]
    async fn sec_f30_write_check_runs_at_intervals() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        store.check_writable(1_000).await.unwrap();
        let at = async |store: &Store| {
            let mut tx = store.read().await.unwrap();
            tx.tx.query("SELECT at FROM pulse", vec![]).await.unwrap()[0].int(0).unwrap()
        };
        store.check_writable(5_999).await.unwrap();
        assert_eq!(at(&store).await, 1_000);
        store.check_writable(6_000).await.unwrap();
        assert_eq!(at(&store).await, 6_000);
    }

    #[tokio::test]
    async fn sec_f27_project_usage_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let spec = r#"{"face":"v2","selection":{"kind":"prefix","entries":[""]},"source":{"region":"r"},"target":{"region":"r"}}"#;
        let spec: TaskSpec = serde_json::from_str(spec).unwrap();
        for (i, project) in ["a", "a", "b"].into_iter().enumerate() {
            let (id, project) = (format!("id{i}"), project.to_owned());
            tx.insert_group(&id, &project, GroupKind::Prefix, &spec, "{}", 1).await.unwrap();
            let made = NewMigration {
                id: id.clone(),
                project: project.clone(),
                name: String::new(),
                description: String::new(),
                kind: MigrationKind::Online,
                spec: MigrationSpec::default(),
                secrets: "{}".into(),
                phase: Phase::Loading,
                job: format!("job{i}"),
                now: 1,
            };
            tx.insert_migration(made).await.unwrap();
            let backup = BackupRow {
                id,
                project,
                instance: "i".into(),
                remark: String::new(),
                status: "backuping".into(),
                size: 0,
                error: None,
                created_at: 1,
                updated_at: 1,
            };
            tx.insert_backup(&backup).await.unwrap();
        }
        assert_eq!(tx.open_groups("a").await.unwrap(), 2);
        assert_eq!(tx.unended_migrations("a").await.unwrap(), 2);
        assert_eq!(tx.count_backups("a").await.unwrap(), (2, 2));
        tx.end_backup("id0", 5, None, 2).await.unwrap();
        tx.apply_migration("id0", MigrationEvent::Failed, 2).await.unwrap().unwrap();
        for event in [GroupEvent::Begin, GroupEvent::Fail] {
            tx.apply_group("id0", event, 2).await.unwrap().unwrap();
        }
        assert_eq!(tx.open_groups("a").await.unwrap(), 1);
        assert_eq!(tx.unended_migrations("a").await.unwrap(), 1);
        assert_eq!(tx.count_backups("a").await.unwrap(), (1, 2));
        assert_eq!(tx.count_backups("c").await.unwrap(), (0, 0));
    }
}
