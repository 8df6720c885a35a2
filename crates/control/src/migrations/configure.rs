//! Configuration of migrations, also of those that run.

use model::migration::{Endpoint, Method, MigrationEvent, MigrationSpec, Phase, ResumeMode, next};
use runtime::migrations::{EndSecrets, MessageCode};
use store::{MigrationRow, StoreTx};

use super::error::{MigrationError, MigrationReply};
use crate::Control;

impl Control {
    pub(super) async fn log_configured(
        &self,
        tx: &mut StoreTx,
        row: &MigrationRow,
        warnings: &[String],
    ) -> MigrationReply<()> {
        let end = |end: &Option<Endpoint>| {
            let end = end.clone().unwrap_or_default();
            end.id.or(end.addrs).unwrap_or_else(|| "backup files".to_owned())
        };
        let how = match row.spec.method {
            Some(Method::Incremental) => "full and incremental migration",
            _ => "full migration",
        };
        let parts = [how.to_owned(), end(&row.spec.source), end(&row.spec.target)];
        self.log(tx, &row.id, MessageCode::Configured, &parts).await?;
        for warning in warnings {
            self.log(tx, &row.id, MessageCode::Warning, std::slice::from_ref(warning)).await?;
        }
        Ok(())
    }

    /// Configures a migration and starts it (2.10). While it runs only its limit and its resume mode may differ.
    ///
    /// # Errors
    /// [`MigrationError::State`] where it is not allowed, and what the checks before the start find.
    pub async fn configure_migration(
        &self,
        project: &str,
        id: &str,
        spec: MigrationSpec,
        mut secrets: EndSecrets,
    ) -> MigrationReply<MigrationRow> {
        let mut tx = self.engine.store().read().await?;
        let row = self.migration(&mut tx, project, id).await?;
        let known = tx.migration_secrets(&row.id).await?.unwrap_or_default();
        drop(tx);
        // What the creation said stays.
        let (network, old) = (row.spec.network.clone(), row.spec.clone());
        let mut spec = MigrationSpec {
            network,
            target_runs: old.target_runs.clone(),
            vpc: old.vpc.clone(),
            subnet: old.subnet.clone(),
            security_group: old.security_group.clone(),
            ..spec
        };
        let tuned = MigrationSpec { resume: spec.resume, bandwidth_mb: spec.bandwidth_mb, ..old };
        let runs = matches!(row.state.phase, Phase::Loading | Phase::Following);
        if runs && tuned == spec && EndSecrets::from_json(&known) == secrets {
            next(row.state, MigrationEvent::Update)
                .map_err(|why| MigrationError::State(row.state.phase, why))?;
            return self.update_running(&row, spec.resume, Some(spec.bandwidth_mb)).await;
        }
        next(row.state, MigrationEvent::Configure)
            .map_err(|why| MigrationError::State(row.state.phase, why))?;
        let warnings = self.begin_check(project)?.preflight(&mut spec, &mut secrets, Some(&row.id)).await?;
        let mut tx = self.engine.store().write().await?;
        let row = self.migration(&mut tx, project, id).await?;
        self.check_target(&mut tx, &spec, &secrets, Some(&row.id)).await?;
        self.apply_event(&mut tx, &row, MigrationEvent::Configure).await?;
        tx.configure_migration(&row.id, &spec, &secrets.to_json()).await?;
        let row = tx.migration(&row.id).await?.ok_or(MigrationError::NoTask)?;
        self.log_configured(&mut tx, &row, &warnings).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Changes what may change while it runs, of whatever the configuration is by now.
    async fn update_running(
        &self,
        row: &MigrationRow,
        resume: ResumeMode,
        bandwidth_mb: Option<Option<u32>>,
    ) -> MigrationReply<MigrationRow> {
        let mut tx = self.engine.store().write().await?;
        let row = tx.migration(&row.id).await?.ok_or(MigrationError::NoTask)?;
        self.apply_event(&mut tx, &row, MigrationEvent::Update).await?;
        let mut spec = row.spec.clone();
        (spec.resume, spec.bandwidth_mb) = (resume, bandwidth_mb.unwrap_or(spec.bandwidth_mb));
        tx.set_migration_spec(&row.id, &spec).await?;
        let limit = spec.bandwidth_mb.map_or("no limit".to_owned(), |mb| format!("{mb} MB/s"));
        let mode = if spec.resume == ResumeMode::Auto { "auto" } else { "manual" };
        self.log(&mut tx, &row.id, MessageCode::Changed, &[format!("{limit}, resume mode {mode}")]).await?;
        let row = tx.migration(&row.id).await?.ok_or(MigrationError::NoTask)?;
        tx.commit().await?;
        Ok(row)
    }

    /// Changes what follows a lost connection (2.11).
    ///
    /// # Errors
    /// [`MigrationError::State`] while it is stopping.
    pub async fn update_migration(&self, project: &str, id: &str, resume: ResumeMode) -> MigrationReply<()> {
        let mut tx = self.engine.store().read().await?;
        let row = self.migration(&mut tx, project, id).await?;
        drop(tx);
        self.update_running(&row, resume, None).await.map(drop)
    }
}
