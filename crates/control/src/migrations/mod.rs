//! Redis migrations: accepting, configuring, showing, stopping, switching (dcs-migration.md §2 and §3).

mod batch;
mod configure;
mod create;
mod cutover;
mod error;
mod instances;
mod preflight;

use std::time::Duration;

use model::error::Side;
use model::migration::{
    Backup, Endpoint, MigrationEvent, MigrationIllegal, MigrationSpec, MigrationState, Phase,
};
use redis_migration::Node;
use runtime::migrations::{EndSecrets, Instance, MessageCode, append_log, resolve_node};
use store::{MigrationRow, MigrationStats, StoreTx};

use crate::Control;
use crate::outgoing::OutgoingCall;

pub use error::{MigrationError, MigrationReply};
pub use instances::InstanceView;
pub use store::{Level, LogLine};

/// A synchronous stop is waited for so long (dcs-migration.md §2.6).
const STOP_MAX: Duration = Duration::from_secs(60);
/// Ids of one call.
pub const IDS_MAX: usize = 50;

/// An end as it is shown.
#[derive(Clone, Debug, Default)]
pub struct EndpointView {
    /// As the request gave it.
    pub end: Endpoint,
    /// Name of the registered instance.
    pub name: Option<String>,
    /// Where it is.
    pub addrs: Vec<(String, u16)>,
}

/// A migration as it is shown.
#[derive(Clone, Debug)]
pub struct MigrationView {
    /// As stored.
    pub row: MigrationRow,
    /// Source; none before it is configured, and for imports.
    pub source: Option<EndpointView>,
    /// Target; none before it is configured.
    pub target: Option<EndpointView>,
}

/// What became of one id of a call for several tasks.
#[derive(Debug)]
pub struct BatchItem {
    /// The id as the request had it.
    pub id: String,
    /// Why it was refused.
    pub error: Option<MigrationError>,
}

/// A task as a request describes it.
#[derive(Debug, Default)]
pub struct MigrationRequest {
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// What to do.
    pub spec: MigrationSpec,
    /// Passwords.
    pub secrets: EndSecrets,
}

/// An identity in the form in which it is stored: a UUID; 32 hexadecimal digits are one too.
pub fn canonical(text: &str) -> Option<String> {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let dashes =
        text.len() == 36 && text.char_indices().all(|(i, c)| (c == '-') == matches!(i, 8 | 13 | 18 | 23));
    let plain = text.len() == 32 && !text.contains('-');
    if !(dashes || plain) || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let hex = hex.to_ascii_lowercase();
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

fn task_id(text: &str) -> MigrationReply<String> {
    canonical(text).ok_or_else(|| MigrationError::TaskId(text.chars().take(64).collect()))
}

impl Control {
    async fn migration(&self, tx: &mut StoreTx, project: &str, id: &str) -> MigrationReply<MigrationRow> {
        tx.migration_of(project, &task_id(id)?).await?.ok_or(MigrationError::NoTask)
    }

    async fn apply_event(
        &self,
        tx: &mut StoreTx,
        row: &MigrationRow,
        event: MigrationEvent,
    ) -> MigrationReply<MigrationState> {
        let applied = tx.apply_migration(&row.id, event, self.clock.now_ms()).await?;
        applied.map_err(|why| MigrationError::State(row.state.phase, why))
    }

    async fn log(
        &self,
        tx: &mut StoreTx,
        id: &str,
        code: MessageCode,
        parts: &[String],
    ) -> MigrationReply<()> {
        Ok(append_log(tx, id, code, self.clock.now_ms(), parts).await?)
    }

    /// One migration.
    ///
    /// # Errors
    /// [`MigrationError::NoTask`].
    pub async fn show_migration(&self, project: &str, id: &str) -> MigrationReply<MigrationView> {
        let mut tx = self.engine.store().read().await?;
        let row = self.migration(&mut tx, project, id).await?;
        let redirects = tx.redirects().await?;
        Ok(self.shown_migration(row, &redirects))
    }

    /// A page of migrations, newest first, and how many match in all (2.2).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_migrations(
        &self,
        project: &str,
        part: &str,
        offset: u64,
        limit: u64,
    ) -> MigrationReply<(Vec<MigrationView>, u64)> {
        let mut tx = self.engine.store().read().await?;
        let (rows, total) = tx.list_migrations(project, part, offset, limit).await?;
        let redirects = tx.redirects().await?;
        Ok((rows.into_iter().map(|row| self.shown_migration(row, &redirects)).collect(), total))
    }

    fn shown_migration(&self, row: MigrationRow, redirects: &[(String, String)]) -> MigrationView {
        let end = |end: &Option<Endpoint>| {
            let end = end.clone()?;
            let node = resolve_node(&end, &seal::Secret::default(), &*self.catalogue, redirects);
            let name = end.id.as_ref().and_then(|id| self.registered(id)).map(|i| i.name);
            Some(EndpointView { end, name, addrs: node.map(|n| n.addrs).unwrap_or_default() })
        };
        let (source, target) = (end(&row.spec.source), end(&row.spec.target));
        MigrationView { row, source, target }
    }

    /// Numbers of a migration (2.12), live where it runs here.
    ///
    /// # Errors
    /// [`MigrationError::NoTask`].
    pub async fn migration_stats(
        &self,
        project: &str,
        id: &str,
    ) -> MigrationReply<(MigrationState, MigrationStats)> {
        use std::sync::atomic::Ordering::Relaxed;
        let mut tx = self.engine.store().read().await?;
        let row = self.migration(&mut tx, project, id).await?;
        let mut stats = row.stats;
        if let Some(live) = self.engine.migration_progress(&row.id)
            && row.state.phase == Phase::Following
        {
            (stats.lag_bytes, stats.lag_ms) = (live.lag_bytes.load(Relaxed), live.lag_ms.load(Relaxed));
        }
        Ok((row.state, stats))
    }

    /// A page of a migration's log, newest first, and how many lines match in all (2.13).
    ///
    /// # Errors
    /// [`MigrationError::NoTask`].
    pub async fn migration_logs(
        &self,
        project: &str,
        id: &str,
        level: &str,
        offset: u64,
        limit: u64,
    ) -> MigrationReply<(Vec<LogLine>, u64)> {
        let mut tx = self.engine.store().read().await?;
        let row = self.migration(&mut tx, project, id).await?;
        Ok(tx.migration_logs(&row.id, level, offset, limit).await?)
    }

    /// Stops a migration (2.5): its phase is `stopping` at once, and `stopped` within a second.
    ///
    /// # Errors
    /// [`MigrationError::State`] when it does not work.
    pub async fn stop_migration(&self, project: &str, id: &str) -> MigrationReply<MigrationView> {
        let mut tx = self.engine.store().write().await?;
        let row = self.migration(&mut tx, project, id).await?;
        self.apply_event(&mut tx, &row, MigrationEvent::Stop).await?;
        if row.state.phase != Phase::Stopping {
            self.log(&mut tx, &row.id, MessageCode::StopAsked, &[]).await?;
        }
        let redirects = tx.redirects().await?;
        let row = tx.migration(&row.id).await?.ok_or(MigrationError::NoTask)?;
        tx.commit().await?;
        self.engine.signal_migration_stop(&row.id);
        Ok(self.shown_migration(row, &redirects))
    }

    /// Stops a migration and waits until it is stopped (2.6).
    ///
    /// # Errors
    /// As [`Control::stop_migration`]; [`MigrationError::StillStopping`] when it has not stopped in time.
    pub async fn stop_migration_sync(&self, project: &str, id: &str) -> MigrationReply<()> {
        let mut changes = self.engine.store().changes();
        self.stop_migration(project, id).await?;
        let rested = async {
            loop {
                let mut tx = self.engine.store().read().await?;
                let row = self.migration(&mut tx, project, id).await?;
                drop(tx);
                if row.state.phase != Phase::Stopping {
                    return Ok(());
                }
                let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
            }
        };
        tokio::time::timeout(STOP_MAX, rested).await.unwrap_or(Err(MigrationError::StillStopping))
    }

    /// The job that made a migration (2.16).
    ///
    /// # Errors
    /// [`MigrationError::NoTask`].
    pub async fn job(&self, project: &str, job: &str) -> MigrationReply<MigrationRow> {
        let job = task_id(job)?;
        let mut tx = self.engine.store().read().await?;
        tx.migration_of_job(project, &job).await?.ok_or(MigrationError::NoTask)
    }

    /// Takes a place for the checks of an online migration or an import.
    fn begin_check(&self, project: &str) -> MigrationReply<OutgoingCall> {
        self.begin_outgoing(project).map_err(|_| {
            let why = "too many other calls are being checked; hint: retry in 30 s";
            MigrationError::UnusableInstance("source_instance, target_instance".into(), why.into())
        })
    }

    /// Instances that a migration names are still its project's.
    fn check_ends(&self, project: &str, spec: &MigrationSpec) -> MigrationReply<()> {
        let own = self.for_project(project);
        let mut ids = [&spec.source, &spec.target].into_iter().flatten().filter_map(|e| e.id.as_ref());
        match ids.find(|id| own.registered(id).is_none()) {
            Some(id) => Err(MigrationError::NoInstance(id.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn registered(&self, id: &str) -> Option<Instance> {
        self.catalogue.registry().instances.iter().find(|i| i.id == id).cloned()
    }

    /// The target must not be that of another active migration.
    async fn check_target(
        &self,
        tx: &mut StoreTx,
        spec: &MigrationSpec,
        secrets: &EndSecrets,
        own: Option<&str>,
    ) -> MigrationReply<()> {
        let redirects = tx.redirects().await?;
        let target = self.node(spec, secrets, Side::Target, &redirects)?;
        for other in tx.open_migrations().await? {
            if own == Some(other.id.as_str()) {
                continue;
            }
            // One server may have several names.
            let known = spec.target_runs.is_some() && spec.target_runs == other.spec.target_runs;
            let there = self.node(&other.spec, &EndSecrets::default(), Side::Target, &redirects);
            if known || there.is_ok_and(|n| n.addrs.iter().any(|a| target.addrs.contains(a))) {
                // It may belong to another project, whose name must not be shown.
                let why = "target_instance: another active task migrates to this instance; hint: stop that task \
                     first";
                return Err(MigrationError::InUse(why.into()));
            }
        }
        Ok(())
    }

    fn node(
        &self,
        spec: &MigrationSpec,
        secrets: &EndSecrets,
        side: Side,
        redirects: &[(String, String)],
    ) -> MigrationReply<Node> {
        let (member, end) = match side {
            Side::Source => ("source_instance", &spec.source),
            _ => ("target_instance", &spec.target),
        };
        let end = end.as_ref().ok_or_else(|| MigrationError::Field(member.into(), "is required".into()))?;
        if let Some(id) = &end.id
            && self.registered(id).is_none()
        {
            return Err(MigrationError::NoInstance(id.clone()));
        }
        resolve_node(end, secrets.for_side(side), &*self.catalogue, redirects)
            .map_err(|f| MigrationError::Field(format!("{member}.addrs"), f.message))
    }
}

/// What a backup import names must be there.
pub(crate) fn backup_of(spec: &MigrationSpec) -> MigrationReply<&Backup> {
    spec.backup.as_ref().ok_or_else(|| MigrationError::Field("backup_files".into(), "is required".into()))
}

/// Illegal events have one sentence each.
pub fn error_of(illegal: MigrationIllegal) -> &'static str {
    use MigrationIllegal as No;
    match illegal {
        No::Import => "a backup import cannot be configured, restarted or cut over; hint: create a new task",
        No::AlreadyRunning => "the task is running; hint: stop it first",
        No::NotRunning => "the task is not running",
        No::NotConfigured => "the task is not configured yet",
        No::NotFollowing => "a cut-over requires a task in incremental migration",
        No::NotCutOver => "there is no cut-over to roll back",
        No::CutoverInProgress => "a cut-over is in progress",
        No::CutOver => "clients use the target since the cut-over; hint: roll back, or create a new task",
        No::Stopping => "the task was stopped",
        No::UnexpectedEvent => "the state of the task has changed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migration_ids_are_uuids_with_and_without_hyphens() {
        let uuid = "2944a563-6f27-4d5b-9c1e-0a1b2c3d4e5f";
        assert_eq!(canonical(uuid).as_deref(), Some(uuid));
        assert_eq!(canonical(&uuid.replace('-', "").to_uppercase()).as_deref(), Some(uuid));
        for wrong in [
            "",
            "x",
            "2944a563",
            "2944a563-6f27-4d5b-9c1e-0a1b2c3d4e5g",
            "2944a5636f274d5b-9c1e-0a1b2c3d4e5f-x",
        ] {
            assert_eq!(canonical(wrong), None, "{wrong}");
        }
    }
}
