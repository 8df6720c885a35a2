//! Changing bandwidth and priority, of one task or of many at once.

use model::policy::{Window, check_windows};
use model::task::{Priority, TaskId, Visible};

use crate::Control;
use crate::task_error::{TaskError, TaskResult};

/// Bytes per second that a window of API v2 may have (OMS §4.10).
pub const RANGE_V2: (u64, u64) = (1 << 20, 200 << 20);
/// The same for v1 (OMS §6.2).
pub const RANGE_V1: (u64, u64) = (5 << 20, 10 << 30);

impl Control {
    /// Replaces the windows of one task; in force at once when it runs.
    ///
    /// # Errors
    /// [`TaskError::BandwidthClosed`] once it has succeeded.
    pub async fn set_windows(
        &self,
        project: &str,
        id: TaskId,
        windows: Vec<Window>,
        range: (u64, u64),
    ) -> TaskResult<()> {
        check_windows(&windows, range).map_err(TaskError::Windows)?;
        let mut tx = self.engine.store().write().await?;
        let mut task = tx.task_of(project, id).await?;
        if task.state.visible() == Visible::Succeeded {
            return Err(TaskError::BandwidthClosed);
        }
        task.spec.windows = windows;
        tx.set_spec(id, &task.spec).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Changes many tasks, all or none.
    ///
    /// # Errors
    /// The first refusal; then nothing was changed.
    pub async fn set_many(
        &self,
        project: &str,
        ids: &[TaskId],
        windows: Vec<Window>,
        priority: Option<Priority>,
    ) -> TaskResult<()> {
        check_windows(&windows, RANGE_V2).map_err(TaskError::Windows)?;
        let mut tx = self.engine.store().write().await?;
        for id in ids {
            let mut task = tx.task_of(project, *id).await?;
            let state = task.state.visible();
            if state == Visible::Succeeded {
                return Err(TaskError::BandwidthClosed);
            }
            if let Some(priority) = priority {
                if !matches!(state, Visible::Waiting | Visible::Paused | Visible::Failed) {
                    let why = format!("task {id} is not waiting, paused or failed");
                    return Err(TaskError::Invalid("task_priority".into(), why));
                }
                tx.set_priority(*id, priority).await?;
            }
            task.spec.windows = windows.clone();
            tx.set_spec(*id, &task.spec).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
