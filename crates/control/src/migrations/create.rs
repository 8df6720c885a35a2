//! Creation of migrations (2.1).

use model::migration::{MigrationKind, Phase};
use runtime::migrations::MessageCode;
use runtime::naming::uuid;
use store::{MigrationRow, NewMigration, StoreTx};

use super::MigrationRequest;
use super::error::{MigrationError, MigrationReply};
use crate::Control;

impl Control {
    /// Accepts a migration and starts it (2.1).
    ///
    /// # Errors
    /// What the checks before the start find; nothing was created then.
    pub async fn create_migration(
        &self,
        project: &str,
        kind: MigrationKind,
        mut described: MigrationRequest,
    ) -> MigrationReply<MigrationRow> {
        let check = self.begin_check(project)?;
        let warnings = match kind {
            MigrationKind::Online => {
                check.preflight(&mut described.spec, &mut described.secrets, None).await?
            }
            MigrationKind::Import => {
                check.preflight_import(project, &described.spec, &mut described.secrets).await?
            }
        };
        drop(check);
        let mut tx = self.engine.store().write().await?;
        self.check_target(&mut tx, &described.spec, &described.secrets, None).await?;
        let row = self.insert(&mut tx, project, kind, described, Phase::Loading).await?;
        self.log_configured(&mut tx, &row, &warnings).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Accepts a migration that waits to be configured (2.9).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn create_online_migration(
        &self,
        project: &str,
        described: MigrationRequest,
    ) -> MigrationReply<MigrationRow> {
        let mut tx = self.engine.store().write().await?;
        let row = self.insert(&mut tx, project, MigrationKind::Online, described, Phase::Created).await?;
        tx.commit().await?;
        Ok(row)
    }

    pub(super) async fn insert(
        &self,
        tx: &mut StoreTx,
        project: &str,
        kind: MigrationKind,
        described: MigrationRequest,
        phase: Phase,
    ) -> MigrationReply<MigrationRow> {
        let open = tx.unended_migrations(project).await?;
        if open >= self.limits.current().open_migrations {
            let why = format!("{open} migrations of this project are active; hint: stop or delete some");
            return Err(MigrationError::Quota(why));
        }
        let MigrationRequest { name, description, spec, secrets } = described;
        let (id, job, now) = (uuid()?, uuid()?, self.clock.now_ms());
        let (project, secrets) = (project.to_owned(), secrets.to_json());
        let made =
            NewMigration { id: id.clone(), project, name, description, kind, spec, secrets, phase, job, now };
        tx.insert_migration(made).await?;
        self.log(tx, &id, MessageCode::Created, &[]).await?;
        tx.migration(&id).await?.ok_or(MigrationError::NoTask)
    }
}
