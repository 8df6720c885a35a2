//! Redis migrations in the service: run under a lease like tasks, by the Redis engine.
//!
//! ```text
//! store ──> step (who should run?) ──> run ──> redis_migration::Migration | import
//!   ^                                   │ events, numbers, stops, changed limits
//!   └── phase, log, stats ──────────────┘ cut-over, when asked
//! ```

mod cutover;
mod endpoints;
mod identity;
mod import;
mod lease;
mod log;
mod log_messages;
mod run;
mod statistics;

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard};

use model::error::{Result, Side};
use model::migration::{MigrationEvent, MigrationState, Phase, ResumeMode};
use redis_migration::Progress;
use store::{MigrationRow, StoreTx};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, RunningMigration};
use crate::migrations::log::fail;

pub use crate::environment::{Hook, Instance, OpenedBackup};
pub use endpoints::{EndSecrets, resolve_node};
pub use identity::route;
pub use import::check as check_backup;
pub use log::append_log;
pub use log_messages::{MessageCode, log_line};

/// What a process does with a migration that it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Lend it to a runner.
    Run,
    /// Stop it.
    Stop,
    /// No process works on it and it should be stopped: store that.
    MarkStopped,
    Nothing,
}

/// Pure: what to do about one migration.
fn plan(state: MigrationState, here: bool, leased_elsewhere: bool) -> Action {
    let switching = state.cutover.is_some_and(model::migration::CutoverState::is_in_progress);
    match (state.phase, here) {
        (Phase::Stopping, true) => Action::Stop,
        (_, true) => Action::Nothing,
        _ if leased_elsewhere => Action::Nothing,
        (Phase::Stopping, false) => Action::MarkStopped,
        (phase, false) if phase.is_open() || switching => Action::Run,
        _ => Action::Nothing,
    }
}

/// Pure: whether a project that holds some places may have another. As long as others may come, one that holds many leaves
/// at least as many to them as it holds.
fn may_start(held: usize, free: usize, alone: bool) -> bool {
    free > 0 && (alone || held < free)
}

impl Engine {
    /// So many projects share the places of migrations.
    pub fn share_between(&self, projects: usize) {
        self.project_count.store(projects, std::sync::atomic::Ordering::Relaxed);
    }

    /// Starts what should run, and stops what should not.
    pub(crate) async fn step_migrations(
        self: &Arc<Self>,
        now: i64,
        runs: &mut JoinSet<String>,
    ) -> Result<()> {
        let mut tx = self.store.read().await?;
        let open = tx.open_migrations().await?;
        drop(tx);
        for m in open {
            let here = self.migrations().contains_key(&m.id);
            let elsewhere = m.owner.as_ref().is_some_and(|o| *o != self.owner) && m.lease_until >= now;
            let alone = self.project_count.load(std::sync::atomic::Ordering::Relaxed) <= 1;
            let (held, free) = {
                let moving = self.migrations();
                let held = moving.values().filter(|other| other.project == m.project).count();
                (held, self.migrations_max.saturating_sub(moving.len()))
            };
            match plan(m.state, here, elsewhere) {
                Action::Run if !self.takes_work() => {}
                Action::Run if !may_start(held, free, alone) => {
                    let first = self
                        .queued_migrations
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .insert(m.id.clone());
                    if first {
                        let (code, running) = match free {
                            0 => (MessageCode::Queued, self.migrations_max),
                            _ => (MessageCode::QueuedBehindProject, held),
                        };
                        let mut tx = self.store.write().await?;
                        append_log(&mut tx, &m.id, code, now, &[running.to_string()]).await?;
                        tx.commit().await?;
                    }
                }
                Action::Run => {
                    self.queued_migrations
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .remove(&m.id);
                    let moving = RunningMigration {
                        project: m.project.clone(),
                        progress: Arc::default(),
                        stop: CancellationToken::new(),
                    };
                    self.migrations().insert(m.id.clone(), moving.clone());
                    runs.spawn(run::run(self.clone(), m.id, moving));
                }
                Action::Stop => self.signal_migration_stop(&m.id),
                Action::MarkStopped => {
                    let mut tx = self.store.write().await?;
                    if mark_stopped(&mut tx, &m, now).await? {
                        tx.commit().await?;
                    }
                }
                Action::Nothing => {}
            }
        }
        Ok(())
    }

    /// What an earlier process left when it was killed: what is to be resumed by a person fails, the rest goes on.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn recover_migrations(&self) -> Result<()> {
        let now = self.clock.now_ms();
        let mut tx = self.store.write().await?;
        let left = tx.end_migration_leases().await?;
        for m in left.iter().filter(|m| m.spec.resume == ResumeMode::Manual) {
            let by_person = m.state.kind == model::migration::MigrationKind::Online
                && !m.state.cutover.is_some_and(model::migration::CutoverState::is_in_progress);
            if by_person && matches!(m.state.phase, Phase::Loading | Phase::Following) {
                let why = "the service stopped while the migration was running and its resume mode is manual; hint: \
                     restart the migration";
                fail(&mut tx, &m.id, why, now).await?;
            }
        }
        tx.fail_open_backups(now).await?;
        tx.commit().await?;
        let left = std::fs::read_dir(self.spool_dir()?).into_iter().flatten().flatten();
        for entry in left.filter(|e| e.file_name().to_string_lossy().starts_with(import::TEMPORARY)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
        Ok(())
    }

    /// A migration is deleted: what stands at its target about it goes too, where that answers. Its data stay.
    pub fn forget_migration(
        self: &Arc<Self>,
        m: &MigrationRow,
        secrets: &str,
        redirects: &[(String, String)],
    ) {
        let secrets = EndSecrets::from_json(secrets);
        let node = |end: &Option<model::migration::Endpoint>, side| {
            resolve_node(end.as_ref()?, secrets.for_side(side), &*self.resolver, redirects).ok()
        };
        let (source, target) = (node(&m.spec.source, Side::Source), node(&m.spec.target, Side::Target));
        // After a cut-over the ends stand elsewhere, and the checkpoint is gone already.
        if let (Some(source), Some(target), None) = (source, target, m.state.cutover) {
            tokio::spawn(identity::forget(m.id.clone(), source, target, route(&m.spec)));
        }
    }

    /// Live numbers of a migration that runs here.
    pub fn migration_progress(&self, id: &str) -> Option<Arc<Progress>> {
        self.migrations().get(id).map(|m| m.progress.clone())
    }

    /// Stops a migration that runs here at once.
    pub fn signal_migration_stop(&self, id: &str) {
        if let Some(moving) = self.migrations().get(id) {
            moving.stop.cancel();
        }
    }

    pub(crate) fn migrations(&self) -> MutexGuard<'_, HashMap<String, RunningMigration>> {
        self.migrations.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Marks a migration as stopped on which no process works; false, and nothing is to be saved, when it is another's or in another phase by now.
async fn mark_stopped(tx: &mut StoreTx, seen: &MigrationRow, now: i64) -> Result<bool> {
    let is_as_seen = |m: &MigrationRow| m.fence == seen.fence && m.state.phase == Phase::Stopping;
    if !tx.migration(&seen.id).await?.is_some_and(|m| is_as_seen(&m)) {
        return Ok(false);
    }
    let _ = tx.apply_migration(&seen.id, MigrationEvent::Drained, now).await?;
    append_log(tx, &seen.id, MessageCode::Stopped, now, &[]).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::migration::{CutoverState, MigrationKind, MigrationSpec};
    use store::{NewMigration, Store};

    #[tokio::test]
    async fn f4_migration_claimed_by_another_worker_is_not_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let made = NewMigration {
            id: "m".into(),
            project: "p".into(),
            name: String::new(),
            description: String::new(),
            kind: MigrationKind::Online,
            spec: MigrationSpec::default(),
            secrets: "{}".into(),
            phase: Phase::Loading,
            job: "j".into(),
            now: 1,
        };
        tx.insert_migration(made).await.unwrap();
        tx.apply_migration("m", MigrationEvent::Stop, 2).await.unwrap().unwrap();
        let seen = tx.migration("m").await.unwrap().unwrap();
        tx.claim_migration("m", "another", 3, 4).await.unwrap().unwrap();
        assert!(!mark_stopped(&mut tx, &seen, 3).await.unwrap());
        let seen = tx.migration("m").await.unwrap().unwrap();
        assert!(mark_stopped(&mut tx, &seen, 5).await.unwrap());
        // It stops once, and its log says so once.
        assert!(!mark_stopped(&mut tx, &seen, 6).await.unwrap());
        assert_eq!(tx.migration("m").await.unwrap().unwrap().state.phase, Phase::Stopped);
        assert_eq!(tx.migration_logs("m", "", 0, 10).await.unwrap().1, 1);
    }

    #[test]
    fn sec_f16_one_project_cannot_use_all_slots() {
        for places in 1..=20usize {
            // A comes first and wants everything; B and then C come when A has what it gets.
            let mut held = [0usize; 3];
            for who in [0, 1, 2] {
                while may_start(held[who], places - held.iter().sum::<usize>(), false) {
                    held[who] += 1;
                }
            }
            assert!(held[0] <= places.div_ceil(2), "{places}: {held:?}");
            assert!(places < 2 || held[1] >= 1, "{places}: {held:?}");
            assert!(places < 4 || held[2] >= 1, "{places}: {held:?}");
        }
        assert!(may_start(4, 1, true) && !may_start(4, 0, true), "one project alone has them all");
    }

    #[test]
    fn runnable_migrations_are_leased_and_others_are_stopped() {
        let state = |phase, switch| MigrationState { kind: MigrationKind::Online, phase, cutover: switch };
        assert_eq!(plan(state(Phase::Loading, None), false, false), Action::Run);
        assert_eq!(plan(state(Phase::Following, None), false, true), Action::Nothing);
        assert_eq!(plan(state(Phase::Following, None), true, false), Action::Nothing);
        assert_eq!(plan(state(Phase::Stopping, None), true, false), Action::Stop);
        assert_eq!(plan(state(Phase::Stopping, None), false, false), Action::MarkStopped);
        assert_eq!(plan(state(Phase::Succeeded, None), false, false), Action::Nothing);
        assert_eq!(plan(state(Phase::Succeeded, Some(CutoverState::RollingBack)), false, false), Action::Run);
    }
}
