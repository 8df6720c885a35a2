//! Registered instances, where they stand now, and their backups (dcs-migration.md §2.18, §2.20).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flow_control::clock::SharedClock;
use model::error::{Error, Kind, Result, Side};
use redis_migration::Node;
use redis_migration::connection::query_client::QueryClient;
use redis_migration::connection::server::ServerInfo;
use redis_migration::snapshot::backup;
use runtime::engine::Engine;
use runtime::migrations::Instance;
use runtime::naming::uuid;
use store::BackupRow;

use super::{MigrationError, MigrationReply, canonical};
use crate::Control;

/// An instance that does not answer within this is not running.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// An instance and what it says of itself.
#[derive(Clone, Debug)]
pub struct InstanceView {
    /// Identity.
    pub id: String,
    /// Name.
    pub name: String,
    /// Where it stands now.
    pub node: Node,
    /// Its own words; none: it does not answer.
    pub server: Option<ServerInfo>,
}

impl InstanceView {
    /// The status word of DCS.
    pub fn status(&self) -> &'static str {
        if self.server.is_some() { "RUNNING" } else { "ERROR" }
    }
}

async fn seen(instance: Instance, node: Node) -> InstanceView {
    let asked = tokio::time::timeout(HEALTH_TIMEOUT, QueryClient::open(&node, Side::Target)).await;
    let server = asked.ok().and_then(|opened| opened.ok()).map(|(_, server, _)| server);
    InstanceView { id: instance.id, name: instance.name, node, server }
}

fn instance_id(text: &str) -> MigrationReply<String> {
    canonical(text).ok_or_else(|| MigrationError::InstanceId(text.chars().take(64).collect()))
}

impl Control {
    /// A project's registered instances, as the configuration orders them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn instances(&self, project: &str) -> MigrationReply<Vec<InstanceView>> {
        let redirects = self.engine.store().read().await?.redirects().await?;
        let all: Vec<Instance> = self.catalogue.for_project(project).registry().instances.clone();
        let mut asked = tokio::task::JoinSet::new();
        for (i, instance) in all.into_iter().enumerate() {
            let node = self.current_node(&instance, &redirects);
            asked.spawn(async move { (i, seen(instance, node).await) });
        }
        let mut out = asked.join_all().await;
        out.sort_by_key(|(i, _)| *i);
        Ok(out.into_iter().map(|(_, seen)| seen).collect())
    }

    fn current_node(&self, instance: &Instance, redirects: &[(String, String)]) -> Node {
        let at = redirects.iter().find(|(i, _)| *i == instance.id).and_then(|(_, s)| self.registered(s));
        at.map_or_else(|| instance.node.clone(), |i| i.node)
    }

    /// One instance.
    ///
    /// # Errors
    /// [`MigrationError::NoInstance`].
    pub async fn instance(&self, project: &str, id: &str) -> MigrationReply<InstanceView> {
        let id = instance_id(id)?;
        let redirects = self.engine.store().read().await?.redirects().await?;
        let instance = self.for_project(project).registered(&id).ok_or(MigrationError::NoInstance(id))?;
        let node = self.current_node(&instance, &redirects);
        Ok(seen(instance, node).await)
    }

    /// Begins a backup of an instance; its record says when it is done.
    ///
    /// # Errors
    /// [`MigrationError::NoInstance`], [`MigrationError::NotRunning`].
    pub async fn create_backup(
        &self,
        project: &str,
        instance: &str,
        remark: String,
    ) -> MigrationReply<String> {
        let seen = self.instance(project, instance).await?;
        if seen.server.is_none() {
            return Err(MigrationError::NotRunning(format!("{} ({})", seen.name, seen.node.display_url())));
        }
        if seen.server.as_ref().is_some_and(|s| s.cluster) {
            let why = "backups of a cluster are not supported; hint: back up a standalone target";
            return Err(MigrationError::NotOnThisNode(why.into()));
        }
        let (id, now) = (uuid()?, self.clock.now_ms());
        let path = self.engine.backup_path(&id);
        create_parent(&path)?;
        let row = BackupRow {
            id: id.clone(),
            project: project.to_owned(),
            instance: seen.id,
            remark,
            status: "backuping".into(),
            size: 0,
            error: None,
            created_at: now,
            updated_at: now,
        };
        self.accept_backup(&row).await?;
        tokio::spawn(run_backup(self.engine.clone(), self.clock.clone(), seen.node, row.id, path));
        Ok(id)
    }

    /// Stores the row of a backup, if the project may have one more.
    async fn accept_backup(&self, row: &BackupRow) -> MigrationReply<()> {
        let mut tx = self.engine.store().write().await?;
        let (running, kept) = tx.count_backups(&row.project).await?;
        let limits = self.limits.current();
        if running >= limits.running_backups {
            return Err(MigrationError::Quota(format!(
                "{running} backups are running; hint: wait until one has finished"
            )));
        }
        if kept >= limits.kept_backups {
            return Err(MigrationError::Quota(format!("{kept} backups exist; hint: delete some")));
        }
        tx.insert_backup(row).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A page of an instance's backups, newest first, and how many there are in all.
    ///
    /// # Errors
    /// [`MigrationError::NoInstance`].
    pub async fn list_backups(
        &self,
        project: &str,
        instance: &str,
        between: (i64, i64),
        offset: u64,
        limit: u64,
    ) -> MigrationReply<(Vec<BackupRow>, u64)> {
        let id = instance_id(instance)?;
        self.for_project(project).registered(&id).ok_or_else(|| MigrationError::NoInstance(id.clone()))?;
        let mut tx = self.engine.store().read().await?;
        Ok(tx.list_backups(project, &id, between, offset, limit).await?)
    }

    /// Deletes a backup and its file.
    ///
    /// # Errors
    /// [`MigrationError::NoBackup`] when there is none of that id, [`MigrationError::BackupRuns`] while it is being made.
    pub async fn delete_backup(&self, project: &str, instance: &str, id: &str) -> MigrationReply<()> {
        let instance = instance_id(instance)?;
        let unknown = || MigrationError::NoBackup(format!("`{id:.64}` is not a backup of this instance"));
        let id = canonical(id).ok_or_else(unknown)?;
        let mut tx = self.engine.store().write().await?;
        let found = tx.backup_of(project, &id).await?.filter(|b| b.instance == instance);
        if found.ok_or_else(unknown)?.status == "backuping" {
            return Err(MigrationError::BackupRuns(
                "the backup is running; hint: retry when it has finished".into(),
            ));
        }
        tx.delete_backup(&id).await?;
        tx.commit().await?;
        let _ = std::fs::remove_file(self.engine.backup_path(&id));
        Ok(())
    }
}

/// Saves the keys of a server to a file, and records the result.
async fn run_backup(engine: Arc<Engine>, clock: SharedClock, node: Node, id: String, path: PathBuf) {
    let saved = async { backup::save(&node, &path, &engine.spool_dir()?).await };
    let saved = saved.await;
    let recorded = async {
        let mut tx = engine.store().write().await?;
        let (size, error) = match &saved {
            Ok(size) => (*size, None),
            Err(failure) => (0, Some(failure.to_string())),
        };
        tx.end_backup(&id, size, error.as_deref(), clock.now_ms()).await?;
        tx.commit().await
    };
    if let Err(failure) = recorded.await {
        tracing::error!(backup = %id, "cannot record the result of the backup: {failure}");
    }
}

fn create_parent(path: &Path) -> Result<()> {
    let Some(dir) = path.parent() else { return Ok(()) };
    seal::private_dir(dir)
        .map_err(|e| Error::new(Kind::NoSpace, "backup", format!("{}: {e}", dir.display())).caused_by(e))
}
