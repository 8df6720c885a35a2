//! The resources of one process: threads, memory, limits, and the tasks that run in it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use flow_control::backoff::Backoff;
use flow_control::budget::Memory;
use flow_control::clock::SharedClock;
use flow_control::io_threads::IoThreads;
use flow_control::limit::{Limit, LimitBounds};
use model::error::{Error, Kind, Result};
use model::task::TaskId;
use object_migration::Progress;
use redis_migration::Progress as MigrationProgress;
use redis_migration::source::spool::COMMAND_MAX;
use store::Store;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::environment::StoreResolver;

/// A task that works in this process.
pub(crate) struct RunningTask {
    /// Whose it is.
    pub(crate) project: String,
    pub(crate) progress: Arc<Progress>,
    pub(crate) stop: CancellationToken,
}

/// A migration that works in this process.
#[derive(Clone)]
pub(crate) struct RunningMigration {
    /// Whose it is.
    pub(crate) project: String,
    /// Its live numbers.
    pub(crate) progress: Arc<MigrationProgress>,
    /// Cancelled: stop.
    pub(crate) stop: CancellationToken,
}

/// Tasks of one project, those of its groups included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskQuota {
    /// Created within 24 hours.
    pub per_day: u64,
    /// Waiting at once.
    pub waiting: u64,
}

impl Default for TaskQuota {
    /// No limit.
    fn default() -> Self {
        Self { per_day: u64::MAX, waiting: u64::MAX }
    }
}

impl TaskQuota {
    /// Why a project that has created `made` tasks within 24 hours, of which `waiting` wait, may not have another; none when
    /// it may.
    pub fn exceeded(self, made: u64, waiting: u64) -> Option<String> {
        match () {
            () if made >= self.per_day => Some(format!("{made} tasks were created within 24 hours")),
            () if waiting >= self.waiting => Some(format!("{waiting} tasks are waiting")),
            () => None,
        }
    }
}

/// What one Redis migration may take at the most: what waits in memory on both sides, and one long value.
const MIGRATION_MEMORY: u64 = 96 << 20;

/// Limits of endpoints that are kept while no task uses them.
const KEPT_LIMITS: usize = 1024;

/// One process's share of the work.
pub struct Engine {
    pub(crate) store: Store,
    pub(crate) clock: SharedClock,
    pub(crate) io_threads: Arc<IoThreads>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) resolver: Arc<dyn StoreResolver>,
    pub(crate) data_dir: PathBuf,
    pub(crate) owner: String,
    /// Whether tasks and migrations run here; else this process only serves the API.
    pub(crate) works: bool,
    remembers_keys: AtomicBool,
    /// Asked to take no more work and to give back what runs here.
    pub(crate) draining: std::sync::atomic::AtomicBool,
    pub(crate) backoff: Backoff,
    pub(crate) running_tasks: AtomicU32,
    task_quota: Mutex<TaskQuota>,
    pub(crate) zone_minutes: i32,
    running: Mutex<HashMap<TaskId, RunningTask>>,
    /// Tasks that were given to runners of this process, from that moment on.
    dispatched: Mutex<HashSet<TaskId>>,
    limits: Mutex<HashMap<String, Arc<Limit>>>,
    /// Redis migrations that work here.
    pub(crate) migrations: Mutex<HashMap<String, RunningMigration>>,
    /// Redis migrations that may work here at once, by the bound of memory.
    pub(crate) migrations_max: usize,
    /// Bytes that one command of a stream may have, by the same bound.
    pub(crate) command_max: usize,
    /// Migrations that wait for others, and were told so.
    pub(crate) queued_migrations: Mutex<HashSet<String>>,
    /// Projects that share the slots of migrations.
    pub(crate) project_count: AtomicUsize,
    /// Counts cut-overs, for those who redirect clients.
    redirect_changes: watch::Sender<u64>,
    /// Groups whose tasks are being created here, by id, and notifications that are being posted, as `notification ID`.
    in_progress: Mutex<HashSet<String>>,
    /// Told when a task ends here, so that the next is started without waiting.
    pub(crate) ended: Notify,
}

/// How an engine is set up.
pub struct EngineConfig {
    /// The store.
    pub store: Store,
    /// Time.
    pub clock: SharedClock,
    /// Opens the ends of tasks.
    pub resolver: Arc<dyn StoreResolver>,
    /// Directory for outcome files.
    pub data_dir: PathBuf,
    /// Bound of all engine buffers, bytes.
    pub memory: u64,
    /// Running tasks per project.
    pub running_tasks: u32,
    /// Zone of bandwidth windows, minutes east of UTC.
    pub zone_minutes: i32,
    /// Whether tasks and migrations run in this process.
    pub works: bool,
    /// Threads that move bytes; 0: one per core.
    pub threads: usize,
    /// Retries of one transfer.
    pub backoff: Backoff,
}

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(setup: EngineConfig) -> Result<Arc<Self>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if setup.threads == 0 { cores } else { setup.threads };
        let io_threads =
            IoThreads::start(threads).map_err(|e| Error::new(Kind::Internal, "start", e.to_string()))?;
        // Part of the bound is for what is not buffers: pages, windows, the ledger's gathering.
        let buffers = setup.memory.saturating_sub(32 << 20).max(setup.memory / 2);
        Ok(Arc::new(Self {
            store: setup.store,
            clock: setup.clock,
            io_threads: Arc::new(io_threads),
            memory: Arc::new(Memory::new(buffers)),
            resolver: setup.resolver,
            data_dir: setup.data_dir,
            owner: format!("{:016x}", random_u64()?),
            works: setup.works,
            remembers_keys: AtomicBool::new(false),
            draining: false.into(),
            backoff: setup.backoff,
            running_tasks: AtomicU32::new(setup.running_tasks),
            task_quota: Mutex::default(),
            zone_minutes: setup.zone_minutes,
            running: Mutex::default(),
            dispatched: Mutex::default(),
            limits: Mutex::default(),
            migrations: Mutex::default(),
            migrations_max: usize::try_from(setup.memory / MIGRATION_MEMORY).unwrap_or(usize::MAX).max(1),
            command_max: usize::try_from(setup.memory / 4)
                .unwrap_or(COMMAND_MAX)
                .clamp(64 << 20, COMMAND_MAX),
            queued_migrations: Mutex::default(),
            project_count: AtomicUsize::new(1),
            redirect_changes: watch::Sender::new(0),
            in_progress: Mutex::default(),
            ended: Notify::new(),
        }))
    }

    /// So many tasks of each project run at once from here on.
    pub fn set_running_tasks(&self, tasks: u32) {
        self.running_tasks.store(tasks.max(1), Ordering::Relaxed);
        self.ended.notify_one();
    }

    /// So many tasks may a project have from here on.
    pub fn set_task_quota(&self, quota: TaskQuota) {
        *self.task_quota.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = quota;
    }

    pub(crate) fn task_quota(&self) -> TaskQuota {
        *self.task_quota.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Identity of this process among those that share the database.
    pub fn session(&self) -> &str {
        &self.owner
    }

    /// Takes no more work and lets what runs here stop, for other processes to go on with.
    pub fn drain(&self) {
        if self.draining.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::info!("draining: running tasks stop at a checkpoint; other processes resume them");
        for running in self.running().values() {
            running.stop.cancel();
        }
        for moving in self.migrations().values() {
            moving.stop.cancel();
        }
    }

    /// Whether this process takes work.
    pub(crate) fn takes_work(&self) -> bool {
        self.works && !self.draining.load(Ordering::Relaxed)
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Directory of outcome files and spools.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    /// What opens the ends of tasks.
    pub fn resolver(&self) -> &dyn StoreResolver {
        &*self.resolver
    }

    /// Where what waits between two ends of a Redis migration is spilled to.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn spool_dir(&self) -> Result<PathBuf> {
        let dir = self.data_dir.join("spool");
        seal::private_dir(&dir).map_err(|e| {
            Error::new(Kind::NoSpace, "spool", format!("{}: {e}", dir.display())).caused_by(e)
        })?;
        Ok(dir)
    }

    /// Where a backup that this service made is kept.
    pub fn backup_path(&self, id: &str) -> PathBuf {
        self.data_dir.join("backups").join(format!("{id}.rdb"))
    }

    /// Instances have changed places.
    pub(crate) fn redirect_clients(&self) {
        self.redirect_changes.send_modify(|n| *n += 1);
    }

    /// Tells whenever instances have changed places.
    pub fn redirect_changes(&self) -> watch::Receiver<u64> {
        self.redirect_changes.subscribe()
    }

    /// Live numbers of a task, when it runs here.
    pub fn progress(&self, task: TaskId) -> Option<Arc<Progress>> {
        self.running().get(&task).map(|r| r.progress.clone())
    }

    /// The tasks that run here: identity and project, oldest first.
    pub fn tasks_here(&self) -> Vec<(TaskId, String)> {
        let mut here: Vec<_> = self.running().iter().map(|(id, r)| (*id, r.project.clone())).collect();
        here.sort_unstable();
        here
    }

    /// Stops a task that runs here at once, without waiting for the store's signal.
    pub fn signal_stop(&self, task: TaskId) {
        if let Some(running) = self.running().get(&task) {
            running.stop.cancel();
        }
    }

    /// The sorted list of a task that has ended: its next start reads the list file again.
    pub(crate) fn delete_list(&self, task: TaskId) {
        let _ = std::fs::remove_file(storage::key_list::path_in(&self.data_dir, task));
    }

    /// Takes away the files of a deleted task.
    pub fn delete_files(&self, task: TaskId) {
        self.delete_list(task);
        let _ = std::fs::remove_file(object_migration::ledger::outcome::path_in(&self.data_dir, task));
    }

    /// Tasks remember the keys that they settle, so that a removal after them keeps what they listed.
    pub fn remember_keys(&self) {
        self.remembers_keys.store(true, Ordering::Relaxed);
    }

    pub(crate) fn remembers_keys(&self) -> bool {
        self.remembers_keys.load(Ordering::Relaxed)
    }

    pub(crate) fn dispatched(&self) -> MutexGuard<'_, HashSet<TaskId>> {
        self.dispatched.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn in_progress(&self) -> MutexGuard<'_, HashSet<String>> {
        self.in_progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn running(&self) -> MutexGuard<'_, HashMap<TaskId, RunningTask>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The limit of a project at an endpoint. Each project has its own: transfers that read a slow source hold permits of
    /// their target, and would keep all others from it.
    pub(crate) fn limit(&self, project: &str, key: &str, bounds: LimitBounds) -> Arc<Limit> {
        let mut limits = self.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if limits.len() >= KEPT_LIMITS {
            limits.retain(|_, limit| Arc::strong_count(limit) > 1);
        }
        limits
            .entry(format!("{project} {key} {} {:?}", bounds.max, bounds.quick))
            .or_insert_with(|| Arc::new(Limit::new(bounds)))
            .clone()
    }
}

fn random_u64() -> Result<u64> {
    Ok(u64::from_le_bytes(seal::random::<8>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn h4_project_that_holds_all_permits_of_an_endpoint_leaves_those_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let engine = crate::test_support::engine(dir.path()).await;
        let bounds = LimitBounds::at_most(4);
        let of = |project: &str| engine.limit(project, "store.example:443", bounds);
        let held: Vec<_> = (0..4).map(|_| of("a").try_acquire().unwrap()).collect();
        assert!(of("a").try_acquire().is_none(), "tasks of one project share a limit");
        assert!(of("b").try_acquire().is_some());
        drop(held);
        for i in 0..2 * KEPT_LIMITS {
            drop(engine.limit("a", &format!("{i}.example"), bounds));
        }
        assert!(
            engine.limits.lock().unwrap().len() <= KEPT_LIMITS,
            "endpoints that callers name are not kept"
        );
    }
}
