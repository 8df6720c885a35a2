//! Calls for several migrations: stop, restart, delete (2.4, 2.7, 2.8).

use std::collections::BTreeSet;

use model::migration::{MigrationEvent, next};
use runtime::migrations::{EndSecrets, MessageCode};

use super::error::{MigrationError, MigrationReply};
use super::{BatchItem, IDS_MAX, canonical};
use crate::Control;

impl Control {
    /// Checks the ids of a call for several tasks: well-formed, not too many, and at least one of them known.
    async fn for_each_id(&self, project: &str, ids: &[String]) -> MigrationReply<Vec<String>> {
        if ids.is_empty() {
            return Err(MigrationError::TooManyIds("`migration_tasks` is empty".into()));
        }
        let mut seen = BTreeSet::new();
        let once = |id: &&String| seen.insert(canonical(id).unwrap_or_else(|| (*id).clone()));
        let ids: Vec<String> = ids.iter().filter(once).cloned().collect();
        if ids.len() > IDS_MAX {
            let why = format!("contains {} tasks; the maximum is {IDS_MAX}", ids.len());
            return Err(MigrationError::UnusableInstance("migration_tasks".into(), why));
        }
        let mut tx = self.engine.store().read().await?;
        let mut known = false;
        for id in &ids {
            let id = canonical(id)
                .ok_or_else(|| MigrationError::TooManyIds(format!("`{id:.64}` is not a task id")))?;
            known |= tx.migration_of(project, &id).await?.is_some();
        }
        if known { Ok(ids) } else { Err(MigrationError::TooManyIds("none of the tasks exists".into())) }
    }

    /// Stops several migrations (2.7); each answers for itself.
    ///
    /// # Errors
    /// [`MigrationError::TooManyIds`] when the list cannot be used at all.
    pub async fn stop_migrations(&self, project: &str, ids: &[String]) -> MigrationReply<Vec<BatchItem>> {
        let mut items = Vec::new();
        for id in self.for_each_id(project, ids).await? {
            let denied = self.stop_migration(project, &id).await.err();
            items.push(BatchItem { id, error: denied });
        }
        Ok(items)
    }

    /// Starts several migrations again with what is stored (2.8).
    ///
    /// # Errors
    /// [`MigrationError::TooManyIds`] when the list cannot be used at all.
    pub async fn restart_migrations(&self, project: &str, ids: &[String]) -> MigrationReply<Vec<BatchItem>> {
        let mut items = Vec::new();
        for id in self.for_each_id(project, ids).await? {
            let denied = self.restart_migration(project, &id).await.err();
            items.push(BatchItem { id, error: denied });
        }
        Ok(items)
    }

    async fn restart_migration(&self, project: &str, id: &str) -> MigrationReply<()> {
        let mut tx = self.engine.store().write().await?;
        let row = self.migration(&mut tx, project, id).await?;
        let secrets = EndSecrets::from_json(&tx.migration_secrets(&row.id).await?.unwrap_or_default());
        self.apply_event(&mut tx, &row, MigrationEvent::Restart).await?;
        self.check_ends(project, &row.spec)?;
        self.check_target(&mut tx, &row.spec, &secrets, Some(&row.id)).await?;
        self.log(&mut tx, &row.id, MessageCode::Restarted, &[]).await?;
        Ok(tx.commit().await?)
    }

    /// Deletes stopped migrations, all or none; unknown ids are ignored (2.4).
    ///
    /// # Errors
    /// [`MigrationError::State`] when one of them works.
    pub async fn delete_migrations(&self, project: &str, ids: &[String]) -> MigrationReply<()> {
        let mut tx = self.engine.store().write().await?;
        let redirects = tx.redirects().await?;
        let mut gone = Vec::new();
        for id in ids {
            let Some(id) = canonical(id) else { continue };
            let Some(row) = tx.migration_of(project, &id).await? else { continue };
            next(row.state, MigrationEvent::Delete)
                .map_err(|why| MigrationError::State(row.state.phase, why))?;
            gone.push((row, tx.migration_secrets(&id).await?.unwrap_or_default()));
            tx.delete_migration(&id).await?;
        }
        tx.commit().await?;
        for (row, secrets) in &gone {
            self.engine.forget_migration(row, secrets, &redirects);
        }
        Ok(())
    }
}
