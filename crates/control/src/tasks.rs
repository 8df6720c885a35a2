//! Showing, starting, stopping and deleting tasks.

mod again;
mod numbers;
mod pages;

use model::key::Key;
use model::parent::Parent;
use model::task::{Event, TaskId, Visible};
use object_migration::progress::Snapshot;
use object_migration::report::records::Records;
use store::{Notification, StoreTx, TaskFilter, TaskRow};

use crate::Control;
use crate::secrets::TaskSecrets;
use crate::task_error::{TaskError, TaskResult};

pub use again::MissingCredentials;
pub use numbers::TaskNumbers;
pub use pages::{FailedObject, FailureGroup, TaskCounts, TaskPage, TaskQuery, may_succeed_again};

/// A task and, when it runs in this process, its live numbers.
#[derive(Debug)]
pub struct TaskView {
    /// As stored.
    pub task: TaskRow,
    /// Live.
    pub live: Option<Snapshot>,
    /// Its record files.
    pub records: Records,
    /// Of a task that failed for single objects: the first of them, as the example of what went wrong.
    pub first_failure: Option<FailedObject>,
    /// The notification about its end.
    pub notification: Option<Notification>,
}

impl Control {
    pub(crate) async fn shown(&self, tx: &mut StoreTx, task: TaskRow) -> TaskResult<TaskView> {
        let first_failure = match task.state.visible() == Visible::Failed && task.error.is_none() {
            true => tx.failures(task.id, &Key::default(), 1).await?.pop(),
            false => None,
        };
        let notification = match task.spec.notify {
            Some(_) => tx.notification(&task.id.to_string()).await?,
            None => None,
        };
        let live = self.engine.progress(task.id).map(|p| p.snapshot());
        let records = serde_json::from_value(task.records.clone()).unwrap_or_default();
        Ok(TaskView { task, live, records, first_failure, notification })
    }

    /// One task.
    ///
    /// # Errors
    /// [`TaskError::NotFound`] when the project has none of that identity.
    pub async fn show(&self, project: &str, id: TaskId) -> TaskResult<TaskView> {
        let mut tx = self.engine.store().read().await?;
        let task = tx.task_of(project, id).await?;
        self.shown(&mut tx, task).await
    }

    /// A page of tasks, newest first, and how many match in all.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        filter: &TaskFilter,
        offset: u64,
        limit: u64,
    ) -> TaskResult<(Vec<TaskView>, u64)> {
        let mut tx = self.engine.store().read().await?;
        let (tasks, total) = tx.list_tasks(filter, offset, limit).await?;
        let mut shown = Vec::with_capacity(tasks.len());
        for task in tasks {
            shown.push(self.shown(&mut tx, task).await?);
        }
        Ok((shown, total))
    }

    /// Stops a task. The answer does not wait: the state is `pausing` at once, `paused` within a second.
    ///
    /// # Errors
    /// [`TaskError::Illegal`] when it does not run.
    pub async fn stop(&self, project: &str, id: TaskId) -> TaskResult<()> {
        let mut tx = self.engine.store().write().await?;
        tx.task_of(project, id).await?;
        let applied = tx.apply(id, Event::Stop, self.clock.now_ms()).await?;
        applied.map_err(|why| TaskError::Illegal(Event::Stop, why))?;
        tx.commit().await?;
        self.engine.signal_stop(id);
        Ok(())
    }

    /// Starts a paused or failed task with new credentials. A paused task goes on where it stopped; a failed
    /// one begins again, or with its failed objects only.
    ///
    /// # Errors
    /// [`TaskError::Illegal`] in another state; [`TaskError::NoFailedList`] when there is nothing to retry.
    pub async fn start(
        &self,
        project: &str,
        id: TaskId,
        secrets: &TaskSecrets,
        failed_only: bool,
    ) -> TaskResult<()> {
        let mut tx = self.engine.store().write().await?;
        let task = tx.task_of(project, id).await?;
        restart(&mut tx, &task, secrets, failed_only, self.clock.now_ms()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Deletes a task that does not run. What it migrated and recorded stays.
    ///
    /// # Errors
    /// [`TaskError::Illegal`] while it moves bytes.
    pub async fn delete(&self, project: &str, id: TaskId) -> TaskResult<()> {
        let mut tx = self.engine.store().write().await?;
        let task = tx.task_of(project, id).await?;
        if matches!(task.parent, Parent::Group(_)) {
            return Err(TaskError::Member);
        }
        let applied = tx.apply(id, Event::Delete, self.clock.now_ms()).await?;
        applied.map_err(|why| TaskError::Illegal(Event::Delete, why))?;
        tx.delete_task(id).await?;
        tx.commit().await?;
        self.engine.delete_files(id);
        Ok(())
    }
}

/// Starts a paused or failed task in a unit that is still open.
pub(crate) async fn restart(
    tx: &mut StoreTx,
    task: &TaskRow,
    secrets: &TaskSecrets,
    failed_only: bool,
    now: i64,
) -> TaskResult<()> {
    let (id, was) = (task.id, task.state.visible());
    let applied = tx.apply(id, Event::Start, now).await?;
    applied.map_err(|why| TaskError::Illegal(Event::Start, why))?;
    if failed_only {
        if !task.spec.record_failures {
            return Err(TaskError::NoFailedList);
        }
        let have = tx.count_failures(id).await?;
        if have == 0 {
            return Err(TaskError::NoFailedList);
        }
        if have < task.counters.failed.objects {
            return Err(TaskError::FailedListIncomplete);
        }
    }
    let is_resumable = was == Visible::Failed && task.error.as_ref().is_some_and(|e| e.kind.is_resumable());
    let resumes = (was == Visible::Paused || is_resumable) && task.failed_only == failed_only;
    tx.reset_task(id, failed_only, resumes, now).await?;
    if !resumes && !failed_only {
        tx.drop_failures(id).await?;
    }
    tx.set_secrets(id, &secrets.to_json()).await?;
    Ok(())
}
