//! The life of an object migration task: what was asked for, what is so, and the one function between.
//!
//! Desired and observed state are stored side by side; what a client sees is computed from both
//! (OMS §3.1). The recovery of a crashed service needs nothing else: an observed `Running` whose lease
//! has ended is started again.
//!
//! Decision: ADR 0006, `docs/adr/0006-leases-and-desired-state-instead-of-commands.md`.

use serde::{Deserialize, Serialize};

/// A task's identity on the wire: a 15-digit number below 2^53 (OMS §1.5).
pub type TaskId = i64;

/// What the user asked for last. Set by the API, stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Go on until done.
    Run,
    /// Stop and keep the ledger.
    Pause,
}

/// What is so. Set by the runtime, stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// Accepted, not yet started. Set at creation and by start.
    Waiting,
    /// Lent to a worker. Set by the dispatcher.
    Running,
    /// A task-level error occurred; the dispatcher starts the task again later. Set by the worker.
    Retrying,
    /// Stopped on request. Set by the worker when no transfer runs any more.
    Paused,
    /// Ended, with a task-level error or with failed objects. Set by the worker.
    Failed,
    /// Ended, every object copied or skipped. Set by the worker.
    Succeeded,
}

/// What a client sees (OMS §3.1 codes 1 to 7). Computed, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visible {
    /// 1
    Waiting,
    /// 2
    Running,
    /// 3
    Paused,
    /// 4
    Failed,
    /// 5
    Succeeded,
    /// 6
    Retrying,
    /// 7
    Pausing,
}

/// Both columns of a task's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lifecycle {
    /// What the user asked for.
    pub desired: Desired,
    /// What is so.
    pub observed: Observed,
}

/// Something that happened to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The user asked to start or resume.
    Start,
    /// The user asked to stop.
    Stop,
    /// Its group was stopped before it ran.
    Hold,
    /// The user asked to delete.
    Delete,
    /// A worker took the lease.
    Claim,
    /// The worker saved its last checkpoint after a stop and moves no more bytes.
    Drained,
    /// All ranges are done; some objects may have failed.
    Finish {
        /// Objects that ended as failed.
        failed: u64,
    },
    /// The task as a whole cannot go on.
    Fail,
    /// A temporary task-level error occurred; the task will be started again.
    Postpone,
    /// It waited longer than the limit (OMS §3.1 note 7).
    Expire,
}

/// Why an event is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Illegal {
    /// Start of a task that is waiting, running, retrying or pausing.
    AlreadyStarted,
    /// Stop of a task that is not running.
    NotRunning,
    /// Start of a succeeded task.
    Complete,
    /// Delete of a task that moves bytes.
    InProgress,
    /// A worker's event that does not fit: a sign of a lost lease.
    UnexpectedEvent,
}

impl Lifecycle {
    /// The state of a task just accepted.
    pub const NEW: Lifecycle = Lifecycle { desired: Desired::Run, observed: Observed::Waiting };

    /// What a client sees.
    pub fn visible(self) -> Visible {
        match (self.desired, self.observed) {
            (Desired::Pause, Observed::Running | Observed::Retrying) => Visible::Pausing,
            (_, Observed::Waiting) => Visible::Waiting,
            (_, Observed::Running) => Visible::Running,
            (_, Observed::Retrying) => Visible::Retrying,
            (_, Observed::Paused) => Visible::Paused,
            (_, Observed::Failed) => Visible::Failed,
            (_, Observed::Succeeded) => Visible::Succeeded,
        }
    }
}

/// The state after `event`, or why the event is not legal now. Deletion leaves the state as it is: the
/// row goes away instead.
pub fn next(state: Lifecycle, event: Event) -> Result<Lifecycle, Illegal> {
    use Observed::*;
    let run = |observed| Ok(Lifecycle { desired: Desired::Run, observed });
    let pause = |observed| Ok(Lifecycle { desired: Desired::Pause, observed });
    match (event, state.visible()) {
        (Event::Start, Visible::Paused | Visible::Failed) => run(Waiting),
        (Event::Start, Visible::Succeeded) => Err(Illegal::Complete),
        (Event::Start, _) => Err(Illegal::AlreadyStarted),

        (Event::Stop, Visible::Running | Visible::Retrying) => pause(state.observed),
        (Event::Stop, _) => Err(Illegal::NotRunning),

        (Event::Hold, Visible::Waiting) => pause(Paused),
        (Event::Hold, _) => Err(Illegal::UnexpectedEvent),

        (Event::Delete, Visible::Running | Visible::Retrying | Visible::Pausing) => Err(Illegal::InProgress),
        (Event::Delete, _) => Ok(state),

        (Event::Claim, Visible::Waiting | Visible::Running | Visible::Retrying) => run(Running),
        // A stop that finds no worker (crash, or a task between two attempts) is complete at once.
        (Event::Drained, Visible::Pausing) => pause(Paused),
        // From pausing always to paused, even if the last object finished meanwhile (OMS §3.1 note 4).
        (Event::Finish { .. } | Event::Fail | Event::Postpone, Visible::Pausing) => pause(Paused),
        (Event::Finish { failed: 0 }, Visible::Running) => run(Succeeded),
        (Event::Finish { .. }, Visible::Running) => run(Failed),
        (Event::Fail, Visible::Running | Visible::Retrying) => run(Failed),
        (Event::Postpone, Visible::Running) => run(Retrying),
        (Event::Expire, Visible::Waiting) => run(Failed),
        _ => Err(Illegal::UnexpectedEvent),
    }
}

/// Priority of a waiting task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Priority {
    /// Before all others.
    High,
    /// The default.
    #[default]
    Medium,
    /// After all others.
    Low,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(v: Visible) -> Lifecycle {
        let (desired, observed) = match v {
            Visible::Waiting => (Desired::Run, Observed::Waiting),
            Visible::Running => (Desired::Run, Observed::Running),
            Visible::Paused => (Desired::Pause, Observed::Paused),
            Visible::Failed => (Desired::Run, Observed::Failed),
            Visible::Succeeded => (Desired::Run, Observed::Succeeded),
            Visible::Retrying => (Desired::Run, Observed::Retrying),
            Visible::Pausing => (Desired::Pause, Observed::Running),
        };
        Lifecycle { desired, observed }
    }

    const ALL: [Visible; 7] = [
        Visible::Waiting,
        Visible::Running,
        Visible::Paused,
        Visible::Failed,
        Visible::Succeeded,
        Visible::Retrying,
        Visible::Pausing,
    ];

    /// The user's actions of OMS §3.1, column by column.
    #[test]
    fn task_actions_match_the_table() {
        use Illegal::*;
        let start = [
            Err(AlreadyStarted),
            Err(AlreadyStarted),
            Ok(Visible::Waiting),
            Ok(Visible::Waiting),
            Err(Complete),
            Err(AlreadyStarted),
            Err(AlreadyStarted),
        ];
        let stop = [
            Err(NotRunning),
            Ok(Visible::Pausing),
            Err(NotRunning),
            Err(NotRunning),
            Err(NotRunning),
            Ok(Visible::Pausing),
            Err(NotRunning),
        ];
        let delete = [
            Ok(Visible::Waiting),
            Err(InProgress),
            Ok(Visible::Paused),
            Ok(Visible::Failed),
            Ok(Visible::Succeeded),
            Err(InProgress),
            Err(InProgress),
        ];
        for (event, row) in [(Event::Start, start), (Event::Stop, stop), (Event::Delete, delete)] {
            for (from, want) in ALL.into_iter().zip(row) {
                assert_eq!(next(state(from), event).map(Lifecycle::visible), want, "{event:?} in {from:?}");
            }
        }
    }

    #[test]
    fn pausing_task_always_ends_paused() {
        for event in [Event::Drained, Event::Finish { failed: 0 }, Event::Finish { failed: 3 }, Event::Fail] {
            let after = next(state(Visible::Pausing), event).map(Lifecycle::visible);
            assert_eq!(after, Ok(Visible::Paused), "{event:?}");
        }
    }

    /// Whatever happens in whatever order, an ended task is never running again without a start.
    #[test]
    fn task_state_machine_has_no_illegal_path() {
        let events = [
            Event::Stop,
            Event::Claim,
            Event::Drained,
            Event::Finish { failed: 0 },
            Event::Finish { failed: 1 },
            Event::Fail,
            Event::Postpone,
            Event::Expire,
        ];
        for ended in [Visible::Paused, Visible::Failed, Visible::Succeeded] {
            for event in events {
                assert!(next(state(ended), event).is_err(), "{event:?} in {ended:?}");
            }
        }
    }
}
