//! Tasks: what was asked for and what is so.

mod members;
mod open;
mod page;
mod row;

use model::error::{Error, Kind, Result, Side};
use model::key::Order;
use model::parent::Parent;
use model::spec::TaskSpec;
use model::task::{Desired, Event, Illegal, Lifecycle, Observed, Priority, TaskId, next};

use crate::ledger::SUMS;
use crate::long_specs::SpecOwner;
use crate::value::{enum_text, parse_enum, to_json};
use crate::{StoreTx, args};
pub use members::MemberTally;
pub use open::{OpenTask, TaskBandwidth};
pub use page::TaskPageFilter;
pub use row::TaskRow;
use row::{COLUMNS, is_shortened, priority_number, row};

/// A task about to be accepted.
#[derive(Debug)]
pub struct NewTask {
    /// Identity.
    pub id: TaskId,
    /// Owner.
    pub project: String,
    /// Unique name (OMS §1.5).
    pub name: String,
    /// What to do.
    pub spec: TaskSpec,
    /// Credentials as JSON, in clear; sealed before they are stored.
    pub secrets: String,
    /// Urgency.
    pub priority: Priority,
    /// What it belongs to.
    pub parent: Parent,
    /// Now, milliseconds.
    pub now: i64,
}

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorNote {
    /// Kind of the failure.
    pub kind: Kind,
    /// At which end.
    pub side: Side,
    /// The sentence.
    pub message: String,
}

/// Which tasks a list shows.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Of this project.
    pub project: String,
    /// In one of these visible states, as (desired, observed) words; empty: all.
    pub states: Vec<(Option<Desired>, Observed)>,
    /// With this text in the name.
    pub name_part: String,
    /// Members of this group or sync task; empty: all tasks.
    pub member_of: String,
}

/// Members of a group or sync task that are read at once.
const MEMBERS_MAX: u64 = 2000;

fn illegal(id: TaskId, why: Illegal) -> Error {
    let text = match why {
        Illegal::AlreadyStarted => "is already started",
        Illegal::NotRunning => "is not running",
        Illegal::Complete => "is complete",
        Illegal::InProgress => "is in progress; stop it first",
        Illegal::UnexpectedEvent => "has changed its state",
    };
    Error::new(Kind::Conflict, "task", format!("task {id} {text}"))
}

/// Builds `SELECT … FROM tasks …` with the sums of the ledger; leaked once per distinct text. `chosen` selects the tasks by
/// `id` and `created_at` alone: rows are not read before their number is known, nor carried through the sums.
macro_rules! task_select {
    ($chosen:expr, $order:literal) => {{
        static SQL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        let sql: &'static str = SQL.get_or_init(|| {
            format!(
                "SELECT {COLUMNS}, s.* FROM (SELECT c.id AS chosen, {} FROM ({}) c \
                 LEFT JOIN ranges r ON r.task_id = c.id GROUP BY c.id) s JOIN tasks t ON t.id = s.chosen {}",
                SUMS.join(", "),
                $chosen,
                $order
            )
        });
        sql
    }};
}

pub(crate) use task_select;

/// Which tasks a list shows; all of it stands in the index.
const MATCHING: &str = "WHERE t.project = $1 AND ($3 = '%%' OR LOWER(t.name) LIKE LOWER($3) ESCAPE '\\') AND ($4 = '' OR t.member_of = $4) \
    AND ($2 = '' OR $2 LIKE '%|' || t.desired || ':' || t.observed || '|%' OR $2 LIKE '%|*:' || t.observed || '|%')";

fn count_sql() -> &'static str {
    static SQL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    SQL.get_or_init(|| format!("SELECT COUNT(*) FROM tasks t {MATCHING}"))
}

fn list_sql() -> &'static str {
    task_select!(
        format!(
            "SELECT t.id FROM tasks t {MATCHING} ORDER BY t.created_at DESC, t.id DESC LIMIT $5 OFFSET $6"
        ),
        "ORDER BY t.created_at DESC, t.id DESC"
    )
}

impl StoreTx {
    /// Accepts a task: the row, its sealed secrets, and the wake-up.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when the id or name exists.
    pub async fn insert_task(&mut self, task: NewTask) -> Result<()> {
        let sealed = self.keys.seal(&format!("task {}", task.id), task.secrets.as_bytes())?;
        let (spec, shortened) = self.put_spec(SpecOwner::Task(task.id), &task.spec).await?;
        let sql = "INSERT INTO tasks (id, project, name, spec, secrets, priority, desired, observed, created_at, queued_at, \
                   member_kind, member_of, run_began_at, shortened) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $9, $12)";
        let state = Lifecycle::NEW;
        let args = args![
            task.id,
            task.project,
            task.name,
            spec,
            sealed,
            priority_number(task.priority),
            enum_text(state.desired),
            enum_text(state.observed),
            task.now,
            task.parent.kind(),
            task.parent.id(),
            shortened,
        ];
        self.tx.execute(sql, args).await?;
        self.wakes = true;
        Ok(())
    }

    /// One task, whatever its project.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn task(&mut self, id: TaskId) -> Result<Option<TaskRow>> {
        let sql = task_select!("SELECT id FROM tasks WHERE id = $1", "");
        let rows = self.tx.query(sql, args![id]).await?;
        let Some(found) = rows.first() else { return Ok(None) };
        let mut task = row(found)?;
        if is_shortened(found)? {
            task.spec = self.long_spec(SpecOwner::Task(id)).await?;
        }
        Ok(Some(task))
    }

    /// True when a task has this identity or this name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_task(&mut self, id: TaskId, name: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM tasks WHERE id = $1 OR name = $2 LIMIT 1";
        Ok(!self.tx.query(sql, args![id, name]).await?.is_empty())
    }

    /// One task of a project.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the project has no such task.
    pub async fn task_of(&mut self, project: &str, id: TaskId) -> Result<TaskRow> {
        let found = self.task(id).await?.filter(|t| t.project == project);
        found.ok_or_else(|| Error::new(Kind::NotFound, "task", format!("task {id} does not exist")))
    }

    /// The credentials of a task, as JSON; none when they were erased.
    ///
    /// # Errors
    /// When the key that sealed them is gone.
    pub async fn task_secrets(&mut self, id: TaskId) -> Result<Option<String>> {
        let rows = self.tx.query("SELECT secrets FROM tasks WHERE id = $1", args![id]).await?;
        let Some(sealed) = rows.first().and_then(|r| r.opt_text(0).ok().flatten()) else { return Ok(None) };
        let plain = self.keys.open(&format!("task {id}"), sealed)?;
        Ok(Some(String::from_utf8_lossy(&plain).into_owned()))
    }

    /// True when credentials are stored with a task: those of an ended one are erased.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_secrets(&mut self, id: TaskId) -> Result<bool> {
        let sql = "SELECT 1 FROM tasks WHERE id = $1 AND secrets IS NOT NULL";
        Ok(!self.tx.query(sql, args![id]).await?.is_empty())
    }

    /// Replaces the credentials of a task.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_secrets(&mut self, id: TaskId, secrets: &str) -> Result<()> {
        let sealed = self.keys.seal(&format!("task {id}"), secrets.as_bytes())?;
        self.tx.execute("UPDATE tasks SET secrets = $2 WHERE id = $1", args![id, sealed]).await?;
        Ok(())
    }

    /// One page of tasks, newest first, and how many match in all. Long lists of keys are shortened
    /// ([`crate::LISTED_KEYS_BYTES`]).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_tasks(
        &mut self,
        filter: &TaskFilter,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<TaskRow>, u64)> {
        // The states as one text that LIKE can search: `|desired:observed|…`, `*` for any desired.
        let states: String = filter
            .states
            .iter()
            .map(|(d, o)| format!("|{}:{}|", d.map_or("*".to_owned(), enum_text), enum_text(*o)))
            .collect();
        let like = filter.name_part.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let args = args![
            filter.project.as_str(),
            states,
            format!("%{like}%"),
            filter.member_of.as_str(),
            limit,
            offset
        ];
        let total = self.tx.query(count_sql(), args[..4].to_vec()).await?;
        let total = total.first().map_or(Ok(0), |r| r.count(0))?;
        let rows = self.tx.query(list_sql(), args).await?;
        Ok((rows.iter().map(row).collect::<Result<_>>()?, total))
    }

    /// The members of a group or sync task, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn members(&mut self, of: &str) -> Result<Vec<TaskRow>> {
        let sql = task_select!(
            "SELECT id FROM tasks WHERE member_of = $1 ORDER BY created_at, id LIMIT $2",
            "ORDER BY t.created_at, t.id"
        );
        self.tx.query(sql, args![of, MEMBERS_MAX]).await?.iter().map(row).collect()
    }

    /// Applies an event to a task by [`next`] and stores the result; answers the new state.
    ///
    /// # Errors
    /// [`Kind::NotFound`], or [`Kind::Conflict`] when the event is not legal now.
    pub async fn apply(
        &mut self,
        id: TaskId,
        event: Event,
        now: i64,
    ) -> Result<std::result::Result<Lifecycle, Illegal>> {
        let rows = self.tx.query("SELECT desired, observed FROM tasks WHERE id = $1", args![id]).await?;
        let Some(r) = rows.first() else {
            return Err(Error::new(Kind::NotFound, "task", format!("task {id} does not exist")));
        };
        let state = Lifecycle { desired: parse_enum(r.text(0)?)?, observed: parse_enum(r.text(1)?)? };
        let after = match next(state, event) {
            Ok(after) => after,
            Err(why) => return Ok(Err(why)),
        };
        let ended = matches!(after.observed, Observed::Paused | Observed::Failed | Observed::Succeeded);
        let was_running = matches!(state.observed, Observed::Running | Observed::Retrying);
        let sql = "UPDATE tasks SET desired = $2, observed = $3, \
            queued_at = CASE WHEN $4 = 1 THEN $5 ELSE queued_at END, \
            ended_at = CASE WHEN $6 = 1 THEN $5 ELSE NULL END, \
            running_ms = CASE WHEN $7 = 1 AND started_at IS NOT NULL THEN running_ms + $5 - started_at ELSE running_ms END \
            WHERE id = $1";
        let args = args![
            id,
            enum_text(after.desired),
            enum_text(after.observed),
            event == Event::Start,
            now,
            ended,
            ended && was_running,
        ];
        self.tx.execute(sql, args).await?;
        self.wakes = true;
        Ok(Ok(after))
    }

    /// As [`StoreTx::apply`], with an illegal event as a failure.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when the event is not legal now.
    pub async fn must_apply(&mut self, id: TaskId, event: Event, now: i64) -> Result<Lifecycle> {
        self.apply(id, event, now).await?.map_err(|why| illegal(id, why))
    }

    /// Sets what a start resets (OMS §3.1 note 6). A new run after failure forgets the ledger; a resume keeps it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reset_task(
        &mut self,
        id: TaskId,
        failed_only: bool,
        keep_ledger: bool,
        now: i64,
    ) -> Result<()> {
        let sql = "UPDATE tasks SET error_kind = NULL, error_side = NULL, error_msg = NULL, attempts = 0, \
                   retry_at = 0, failed_only = $2, records = '{}' WHERE id = $1";
        self.tx.execute(sql, args![id, failed_only]).await?;
        self.drop_notification(&id.to_string()).await?;
        if !keep_ledger {
            self.tx.execute("DELETE FROM ranges WHERE task_id = $1", args![id]).await?;
            self.put_outcomes(id, 0, &[]).await?;
            self.tx.execute("DELETE FROM restores WHERE task_id = $1", args![id]).await?;
            self.tx
                .execute(
                    "UPDATE tasks SET scan_over = 0, note = '', outcome_len = 0, source_order = '', \
                     target_order = '', run_began_at = $2 WHERE id = $1",
                    args![id, now],
                )
                .await?;
        }
        Ok(())
    }

    /// Notes the start of a run.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mark_started(&mut self, id: TaskId, now: i64) -> Result<()> {
        self.tx.execute("UPDATE tasks SET started_at = $2 WHERE id = $1", args![id, now]).await?;
        Ok(())
    }

    /// Notes why a task failed or waits for another attempt.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_error(&mut self, id: TaskId, failure: &Error, retry_at: i64) -> Result<()> {
        let sql = "UPDATE tasks SET error_kind = $2, error_side = $3, error_msg = $4, retry_at = $5, \
                   attempts = attempts + 1 WHERE id = $1";
        let args = args![id, enum_text(failure.kind), enum_text(failure.side), failure.to_string(), retry_at];
        self.tx.execute(sql, args).await?;
        Ok(())
    }

    /// Gives up a task that waited too long; false when it does not wait any more, and nothing was changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire(&mut self, id: TaskId, late: &Error, now: i64) -> Result<bool> {
        if self.apply(id, Event::Expire, now).await?.is_err() {
            return Ok(false);
        }
        self.set_error(id, late, 0).await?;
        self.erase_secrets(id).await?;
        Ok(true)
    }

    /// Lets a task wait until `retry_at`, milliseconds; that is no attempt that failed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn wait_until(&mut self, id: TaskId, retry_at: i64) -> Result<()> {
        self.tx.execute("UPDATE tasks SET retry_at = $2 WHERE id = $1", args![id, retry_at]).await?;
        Ok(())
    }

    /// When a retrying task is due, milliseconds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retry_at(&mut self, id: TaskId) -> Result<i64> {
        let rows = self.tx.query("SELECT retry_at FROM tasks WHERE id = $1", args![id]).await?;
        rows.first().map_or(Ok(0), |r| r.int(0))
    }

    /// Stores a changed spec (bandwidth windows).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_spec(&mut self, id: TaskId, spec: &TaskSpec) -> Result<()> {
        let (spec, shortened) = self.put_spec(SpecOwner::Task(id), spec).await?;
        let sql = "UPDATE tasks SET spec = $2, shortened = $3 WHERE id = $1";
        self.tx.execute(sql, args![id, spec, shortened]).await?;
        self.wakes = true;
        Ok(())
    }

    /// Stores a changed priority.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_priority(&mut self, id: TaskId, priority: Priority) -> Result<()> {
        let args = args![id, priority_number(priority)];
        self.tx.execute("UPDATE tasks SET priority = $2 WHERE id = $1", args).await?;
        self.wakes = true;
        Ok(())
    }

    /// Stores that the precount is complete.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_precount_done(&mut self, id: TaskId) -> Result<()> {
        self.tx.execute("UPDATE tasks SET scan_over = 1 WHERE id = $1", args![id]).await?;
        Ok(())
    }

    /// The orders that listings of the two ends were found to keep, source first; none where the declared one holds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_orders(&mut self, id: TaskId) -> Result<[Option<Order>; 2]> {
        let sql = "SELECT source_order, target_order FROM tasks WHERE id = $1";
        let rows = self.tx.query(sql, args![id]).await?;
        let Some(r) = rows.first() else { return Ok([None, None]) };
        let read = |text: &str| if text.is_empty() { Ok(None) } else { parse_enum(text).map(Some) };
        Ok([read(r.text(0)?)?, read(r.text(1)?)?])
    }

    /// Stores the orders that listings were found to keep.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_list_orders(&mut self, id: TaskId, source: Order, target: Order) -> Result<()> {
        let sql = "UPDATE tasks SET source_order = $2, target_order = $3 WHERE id = $1";
        self.tx.execute(sql, args![id, enum_text(source), enum_text(target)]).await?;
        Ok(())
    }

    /// Stores how much of the outcome file belongs to the ledger.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_outcome_len(&mut self, id: TaskId, len: u64) -> Result<()> {
        self.tx.execute("UPDATE tasks SET outcome_len = $2 WHERE id = $1", args![id, len]).await?;
        Ok(())
    }

    /// Leaves a visible note on a task.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_note(&mut self, id: TaskId, note: &str) -> Result<()> {
        self.tx.execute("UPDATE tasks SET note = $2 WHERE id = $1", args![id, note]).await?;
        Ok(())
    }

    /// Stores what became of the record files.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_records(&mut self, id: TaskId, records: &serde_json::Value) -> Result<()> {
        self.tx.execute("UPDATE tasks SET records = $2 WHERE id = $1", args![id, to_json(records)?]).await?;
        Ok(())
    }

    /// Erases the credentials of an ended task (OMS §3.1 note 8).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn erase_secrets(&mut self, id: TaskId) -> Result<()> {
        self.tx.execute("UPDATE tasks SET secrets = NULL WHERE id = $1", args![id]).await?;
        Ok(())
    }

    /// Removes a task and everything that belongs to it, but never what it migrated.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_task(&mut self, id: TaskId) -> Result<()> {
        for sql in [
            "DELETE FROM failures WHERE task_id = $1",
            "DELETE FROM uploads WHERE task_id = $1",
            "DELETE FROM restores WHERE task_id = $1",
            "DELETE FROM outcome_chunks WHERE task_id = $1",
            "DELETE FROM ranges WHERE task_id = $1",
            "DELETE FROM tasks WHERE id = $1",
        ] {
            self.tx.execute(sql, args![id]).await?;
        }
        self.drop_spec(SpecOwner::Task(id)).await?;
        self.drop_notification(&id.to_string()).await?;
        self.wakes = true;
        Ok(())
    }

    /// Tasks of a project created since an instant, and those waiting now: what quotas need.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn task_quota(&mut self, project: &str, since: i64) -> Result<(u64, u64)> {
        let sql = "SELECT COUNT(*), COALESCE(SUM(CASE WHEN observed = 'waiting' THEN 1 ELSE 0 END), 0) \
                   FROM tasks WHERE project = $1 AND (created_at >= $2 OR observed = 'waiting')";
        let rows = self.tx.query(sql, args![project, since]).await?;
        rows.first().map_or(Ok((0, 0)), |r| Ok((r.count(0)?, r.count(1)?)))
    }
}

#[cfg(test)]
mod tests;
