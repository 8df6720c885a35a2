//! Lists of tasks for people: pages after a position, counts by state, and failed objects by cause.

use model::error::{Error, Kind, Side};
use model::key::Key;
use model::task::{Desired, Observed, TaskId, Visible};
use store::TaskPageFilter;

use super::TaskView;
use crate::Control;
use crate::task_error::TaskResult;

pub use store::{FailedObject, FailureGroup};

/// Which tasks a page shows.
#[derive(Clone, Debug, Default)]
pub struct TaskQuery {
    /// In this state; none: all.
    pub state: Option<Visible>,
    /// With this text in the name or at the beginning of the id or of a bucket's name.
    pub text: String,
    /// After this task: its instant of creation and its id.
    pub after: Option<(i64, TaskId)>,
    /// At most so many.
    pub limit: u64,
}

/// A page of tasks.
#[derive(Debug)]
pub struct TaskPage {
    /// Newest first.
    pub tasks: Vec<TaskView>,
    /// Where the next page begins; none: this is the last.
    pub next: Option<(i64, TaskId)>,
}

/// Tasks of a project by what a client sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts([u64; 7]);

/// The visible states in the order in which they are counted.
const STATES: [Visible; 7] = [
    Visible::Running,
    Visible::Waiting,
    Visible::Retrying,
    Visible::Pausing,
    Visible::Paused,
    Visible::Failed,
    Visible::Succeeded,
];

impl TaskCounts {
    /// Those in one state.
    pub fn of(&self, state: Visible) -> u64 {
        STATES.iter().position(|s| *s == state).map_or(0, |i| self.0[i])
    }

    /// All of them.
    pub fn all(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// The stored states behind a visible one.
fn stored(state: Visible) -> Vec<(Option<Desired>, Observed)> {
    let (run, pause) = (Some(Desired::Run), Some(Desired::Pause));
    match state {
        Visible::Waiting => vec![(None, Observed::Waiting)],
        Visible::Running => vec![(run, Observed::Running)],
        Visible::Paused => vec![(None, Observed::Paused)],
        Visible::Failed => vec![(None, Observed::Failed)],
        Visible::Succeeded => vec![(None, Observed::Succeeded)],
        Visible::Retrying => vec![(run, Observed::Retrying)],
        Visible::Pausing => vec![(pause, Observed::Running), (pause, Observed::Retrying)],
    }
}

impl Control {
    /// A page of a project's tasks, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn task_page(&self, project: &str, query: &TaskQuery) -> TaskResult<TaskPage> {
        let filter = TaskPageFilter {
            project: project.to_owned(),
            states: query.state.map(stored).unwrap_or_default(),
            text: query.text.clone(),
            after: query.after,
        };
        let mut tx = self.engine.store().read().await?;
        // One more shows whether there is another page.
        let mut rows = tx.task_page(&filter, query.limit + 1).await?;
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let is_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| is_more).map(|t| (t.created_at, t.id));
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            tasks.push(self.shown(&mut tx, row).await?);
        }
        Ok(TaskPage { tasks, next })
    }

    /// How many tasks a project has in each state.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn task_counts(&self, project: &str) -> TaskResult<TaskCounts> {
        let mut counts = TaskCounts::default();
        for (state, n) in self.engine.store().read().await?.task_counts(project).await? {
            let at = STATES.iter().position(|s| *s == state.visible());
            if let Some(slot) = at.and_then(|i| counts.0.get_mut(i)) {
                *slot += n;
            }
        }
        Ok(counts)
    }

    /// The failed objects of a task by cause, the most frequent first.
    ///
    /// # Errors
    /// [`crate::TaskError::NotFound`] when the project has no such task.
    pub async fn failure_groups(&self, project: &str, id: TaskId) -> TaskResult<Vec<FailureGroup>> {
        let mut tx = self.engine.store().read().await?;
        tx.task_of(project, id).await?;
        Ok(tx.failure_groups(id).await?)
    }

    /// A page of failed objects after a key, of one cause or of all.
    ///
    /// # Errors
    /// [`crate::TaskError::NotFound`] when the project has no such task.
    pub async fn failed_objects(
        &self,
        project: &str,
        id: TaskId,
        cause: Option<(Kind, Side)>,
        after: &Key,
        limit: u64,
    ) -> TaskResult<Vec<FailedObject>> {
        let mut tx = self.engine.store().read().await?;
        tx.task_of(project, id).await?;
        Ok(match cause {
            Some(cause) => tx.failures_of(id, cause, after, limit).await?,
            None => tx.failures(id, after, limit).await?,
        })
    }
}

/// Whether trying again may help with a failed object while nothing else changes.
pub fn may_succeed_again(failure: &Error) -> bool {
    !matches!(
        failure.kind,
        Kind::InvalidKey | Kind::TooLarge | Kind::Unsupported | Kind::Archived | Kind::ChecksumRequired
    )
}

#[cfg(test)]
mod tests {
    use model::task::Lifecycle;

    use super::*;

    #[test]
    fn stored_states_are_seen_as_the_state_that_they_are_found_by() {
        for state in STATES {
            for (desired, observed) in stored(state) {
                let each = desired.map_or(vec![Desired::Run, Desired::Pause], |d| vec![d]);
                for desired in each {
                    assert_eq!(Lifecycle { desired, observed }.visible(), state);
                }
            }
        }
    }
}
