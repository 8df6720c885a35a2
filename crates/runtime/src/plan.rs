//! Pure: from the tasks as they stand, what to do next. The same plan serves a fresh start, a crash and every
//! day: there is one code path.
//!
//! Decision: ADR 0006, `docs/adr/0006-leases-and-desired-state-instead-of-commands.md`.

use std::collections::{HashMap, HashSet};

use model::parent::Parent;
use model::task::{Desired, Observed, TaskId};
use store::OpenTask;

/// A task waits at most so long before it fails, milliseconds (OMS §3.1 note 7).
pub const WAIT_MAX_MS: i64 = 30 * 24 * 3600 * 1000;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take the lease and work.
    Run(TaskId),
    /// No process works on it and it should be paused: store that.
    MarkPaused(TaskId),
    /// It runs here and should be paused.
    Stop(TaskId),
    /// It waited too long.
    Expire(TaskId),
}

/// Plans, in the order given: by priority, then by age.
pub fn plan(tasks: &[OpenTask], here: &HashSet<TaskId>, now: i64, per_project: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut running: HashMap<&str, u32> = HashMap::new();
    for task in tasks {
        let counts = !matches!(task.parent, Parent::Sync(_));
        // What is dispatched here counts from that moment on, not only once it is claimed.
        let runs = matches!(task.state.observed, Observed::Running) || here.contains(&task.id);
        if counts && runs {
            *running.entry(&task.project).or_default() += 1;
        }
    }
    for task in tasks {
        let works_here = here.contains(&task.id);
        match (task.state.desired, task.state.observed) {
            (Desired::Pause, Observed::Running | Observed::Retrying) if works_here => {
                steps.push(Step::Stop(task.id))
            }
            (Desired::Pause, Observed::Running | Observed::Retrying) if !task.leased_elsewhere => {
                steps.push(Step::MarkPaused(task.id));
            }
            (Desired::Run, Observed::Running) if !works_here && !task.leased_elsewhere => {
                steps.push(Step::Run(task.id));
            }
            (Desired::Run, Observed::Retrying)
                if !works_here && !task.leased_elsewhere && task.retry_at <= now =>
            {
                steps.push(Step::Run(task.id));
            }
            (_, Observed::Waiting) if !works_here && now - task.queued_at > WAIT_MAX_MS => {
                steps.push(Step::Expire(task.id))
            }
            // Batches of sync tasks are small and somebody waits for them: no long task keeps them out.
            (_, Observed::Waiting) if !works_here && matches!(task.parent, Parent::Sync(_)) => {
                steps.push(Step::Run(task.id));
            }
            (_, Observed::Waiting) if !works_here => {
                let count = running.entry(&task.project).or_default();
                if *count < per_project {
                    *count += 1;
                    steps.push(Step::Run(task.id));
                }
            }
            _ => {}
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::task::{Lifecycle, Priority};

    fn task(id: TaskId, desired: Desired, observed: Observed) -> OpenTask {
        OpenTask {
            id,
            project: "p".into(),
            state: Lifecycle { desired, observed },
            priority: Priority::Medium,
            queued_at: 0,
            retry_at: 50,
            parent: Parent::None,
            leased_elsewhere: false,
        }
    }

    fn steps(tasks: &[OpenTask], here: &[TaskId], now: i64) -> Vec<Step> {
        plan(tasks, &here.iter().copied().collect(), now, 2)
    }

    #[test]
    fn limit_counts_running_tasks_and_the_rest_waits() {
        use {Desired::Run, Observed::*};
        let tasks = [task(1, Run, Running), task(2, Run, Waiting), task(3, Run, Waiting)];
        assert_eq!(steps(&tasks, &[1], 0), [Step::Run(2)]);
    }

    #[test]
    fn running_task_without_a_worker_is_run_or_marked_paused() {
        use Observed::*;
        let tasks = [task(1, Desired::Run, Running), task(2, Desired::Pause, Running)];
        assert_eq!(steps(&tasks, &[], 0), [Step::Run(1), Step::MarkPaused(2)]);
        assert_eq!(steps(&tasks, &[1, 2], 0), [Step::Stop(2)]);
    }

    #[test]
    fn retries_wait_until_due_and_old_waiters_expire() {
        let tasks = [task(1, Desired::Run, Observed::Retrying), task(2, Desired::Run, Observed::Waiting)];
        assert_eq!(steps(&tasks[..1], &[], 49), []);
        assert_eq!(steps(&tasks[..1], &[], 50), [Step::Run(1)]);
        assert_eq!(steps(&tasks[1..], &[], WAIT_MAX_MS + 1), [Step::Expire(2)]);
        // A task that is dispatched here is about to run.
        assert_eq!(steps(&tasks[1..], &[2], WAIT_MAX_MS + 1), []);
    }
}
