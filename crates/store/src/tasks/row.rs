//! Rows of the table of tasks.

use model::count::{Counters, Tally};
use model::error::Result;
use model::parent::Parent;
use model::spec::TaskSpec;
use model::task::{Lifecycle, Priority, TaskId};

use super::ErrorNote;
use crate::Row;
use crate::ledger::counters_at;
use crate::value::{from_json, parse_enum};

/// A stored task with its counters.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Identity.
    pub id: TaskId,
    /// Owner.
    pub project: String,
    /// Unique name.
    pub name: String,
    /// What to do.
    pub spec: TaskSpec,
    /// Urgency.
    pub priority: Priority,
    /// Desired and observed state.
    pub state: Lifecycle,
    /// Accepted at, milliseconds.
    pub created_at: i64,
    /// Waiting since, milliseconds.
    pub queued_at: i64,
    /// When the present run began, milliseconds: a resume after a pause goes on with the same run.
    pub run_began_at: i64,
    /// Last start or resume, milliseconds.
    pub started_at: Option<i64>,
    /// Last end, milliseconds.
    pub ended_at: Option<i64>,
    /// Time spent running before the last start, milliseconds.
    pub running_ms: i64,
    /// Only failed objects are to be copied.
    pub failed_only: bool,
    /// The precount is complete.
    pub precount_done: bool,
    /// Task-level attempts since the last start.
    pub attempts: u32,
    /// Why it failed.
    pub error: Option<ErrorNote>,
    /// A visible note, such as a fallback that was taken.
    pub note: String,
    /// What became of the record files, as JSON.
    pub records: serde_json::Value,
    /// Settled so far.
    pub counters: Counters,
    /// Counted by the precount so far.
    pub precounted: Tally,
    /// What it belongs to.
    pub parent: Parent,
    /// Lease number.
    pub fence: i64,
    /// Length of the outcome file that belongs to the ledger, bytes.
    pub outcome_len: u64,
}

pub(super) const COLUMNS: &str = "t.id, t.project, t.name, t.spec, t.priority, t.desired, t.observed, t.created_at, \
  t.queued_at, t.started_at, t.ended_at, t.running_ms, t.failed_only, t.scan_over, t.attempts, t.error_kind, \
  t.error_side, t.error_msg, t.note, t.records, t.fence, t.outcome_len, t.member_kind, t.member_of, t.run_began_at, t.shortened";

/// Columns of a task in `COLUMNS`, and its identity again, before the sums.
const N: usize = 27;
/// Place of the mark that the spec stands elsewhere.
const SHORTENED: usize = 25;

pub(super) fn priority_number(p: Priority) -> i64 {
    match p {
        Priority::High => 0,
        Priority::Medium => 1,
        Priority::Low => 2,
    }
}

pub(super) fn priority(n: i64) -> Priority {
    match n {
        0 => Priority::High,
        2 => Priority::Low,
        _ => Priority::Medium,
    }
}

/// Whether the row has the beginning of its spec only.
pub(super) fn is_shortened(r: &Row) -> Result<bool> {
    Ok(r.int(SHORTENED)? != 0)
}

pub(super) fn row(r: &Row) -> Result<TaskRow> {
    let error = match r.opt_text(15)? {
        None => None,
        Some(kind) => Some(ErrorNote {
            kind: parse_enum(kind)?,
            side: parse_enum(r.opt_text(16)?.unwrap_or("here"))?,
            message: r.opt_text(17)?.unwrap_or_default().to_owned(),
        }),
    };
    Ok(TaskRow {
        id: r.int(0)?,
        project: r.text(1)?.to_owned(),
        name: r.text(2)?.to_owned(),
        spec: from_json(r.text(3)?)?,
        priority: priority(r.int(4)?),
        state: Lifecycle { desired: parse_enum(r.text(5)?)?, observed: parse_enum(r.text(6)?)? },
        created_at: r.int(7)?,
        queued_at: r.int(8)?,
        run_began_at: r.int(24)?,
        started_at: r.opt_int(9)?,
        ended_at: r.opt_int(10)?,
        running_ms: r.int(11)?,
        failed_only: r.int(12)? != 0,
        precount_done: r.int(13)? != 0,
        attempts: u32::try_from(r.int(14)?).unwrap_or(0),
        error,
        note: r.text(18)?.to_owned(),
        records: from_json(r.text(19)?)?,
        fence: r.int(20)?,
        outcome_len: r.count(21)?,
        parent: Parent::parse(r.text(22)?, r.text(23)?),
        counters: counters_at(r, N)?,
        precounted: Tally { objects: r.count(N + 14)?, bytes: r.count(N + 15)? },
    })
}
