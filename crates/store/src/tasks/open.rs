//! What the dispatcher reads: identities and states of open tasks, never their specs. Their number is bounded for each
//! project, so the tasks of one project do not keep those of another from being seen.

use model::error::Result;
use model::parent::Parent;
use model::policy::Window;
use model::task::{Lifecycle, Priority, TaskId};
use serde::Deserialize;

use crate::value::{from_json, parse_enum};
use crate::{Row, StoreTx, args};

/// Tasks at work that are read at once.
const ACTIVE_TASKS_MAX: u64 = 10_000;

/// An open task as the dispatcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTask {
    /// Identity.
    pub id: TaskId,
    /// Owner.
    pub project: String,
    /// Desired and observed state.
    pub state: Lifecycle,
    /// Urgency.
    pub priority: Priority,
    /// Waiting since, milliseconds.
    pub queued_at: i64,
    /// When its next attempt is due, milliseconds.
    pub retry_at: i64,
    /// What it belongs to.
    pub parent: Parent,
    /// Somebody else holds a valid lease.
    pub leased_elsewhere: bool,
}

/// Bandwidth of a running task.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TaskBandwidth {
    /// Daily windows.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// Bytes per second outside of them; 0: no limit.
    #[serde(default)]
    pub bandwidth: u64,
}

fn open_task(r: &Row) -> Result<OpenTask> {
    Ok(OpenTask {
        id: r.int(0)?,
        project: r.text(1)?.to_owned(),
        state: Lifecycle { desired: parse_enum(r.text(2)?)?, observed: parse_enum(r.text(3)?)? },
        priority: super::row::priority(r.int(4)?),
        queued_at: r.int(5)?,
        retry_at: r.int(6)?,
        parent: Parent::parse(r.text(7)?, r.text(8)?),
        leased_elsewhere: r.int(9)? != 0,
    })
}

/// Waiting tasks in the order in which each project starts them; all of it stands in the index.
const WAITING: &str = "SELECT id, project, desired, 'waiting', priority, queued_at, 0, member_kind, member_of, 0 FROM \
    (SELECT id, project, desired, priority, queued_at, member_kind, member_of, ROW_NUMBER() OVER \
     (PARTITION BY project, member_kind ORDER BY priority, queued_at, id) AS place \
     FROM tasks WHERE observed = 'waiting') w WHERE place <= $1 OR queued_at < $2";

const ACTIVE: &str = "SELECT id, project, desired, observed, priority, queued_at, retry_at, member_kind, member_of, \
    CASE WHEN owner IS NOT NULL AND owner <> $1 AND lease_until >= $2 THEN 1 ELSE 0 END FROM tasks \
    WHERE observed IN ('running', 'retrying') AND (observed = 'running' OR retry_at <= $2 OR desired = 'pause') \
    ORDER BY priority, queued_at, id LIMIT $3";

impl StoreTx {
    /// Tasks that are at work or due for another attempt, in the order in which they are started.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn active_tasks(&mut self, owner: &str, now: i64) -> Result<Vec<OpenTask>> {
        self.tx.query(ACTIVE, args![owner, now, ACTIVE_TASKS_MAX]).await?.iter().map(open_task).collect()
    }

    /// The first `per_project` waiting tasks of each project, of its groups and of its sync tasks, and all that wait since
    /// before `expired`, milliseconds; in the order in which they are started.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting_tasks(&mut self, per_project: u64, expired: i64) -> Result<Vec<OpenTask>> {
        let rows = self.tx.query(WAITING, args![per_project, expired]).await?;
        let mut tasks: Vec<OpenTask> = rows.iter().map(open_task).collect::<Result<_>>()?;
        tasks.sort_by_key(|t| (super::priority_number(t.priority), t.queued_at, t.id));
        Ok(tasks)
    }

    /// How many tasks have not ended and are not paused.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_open_tasks(&mut self) -> Result<u64> {
        let sql = "SELECT COUNT(*) FROM tasks WHERE observed IN ('waiting', 'running', 'retrying')";
        let rows = self.tx.query(sql, vec![]).await?;
        rows.first().map_or(Ok(0), |r| r.count(0))
    }

    /// Bandwidth of the running tasks whose lease `owner` holds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn task_bandwidths(&mut self, owner: &str) -> Result<Vec<(TaskId, TaskBandwidth)>> {
        let sql = "SELECT id, spec FROM tasks WHERE observed = 'running' AND owner = $1 LIMIT $2";
        let rows = self.tx.query(sql, args![owner, ACTIVE_TASKS_MAX]).await?;
        rows.iter().map(|r| Ok((r.int(0)?, from_json(r.text(1)?)?))).collect()
    }

    /// The state of one task; none when it does not exist.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn task_state(&mut self, id: TaskId) -> Result<Option<Lifecycle>> {
        let rows = self.tx.query("SELECT desired, observed FROM tasks WHERE id = $1", args![id]).await?;
        rows.first().map(|r| lifecycle(r, 0)).transpose()
    }
}

pub(super) fn lifecycle(r: &Row, at: usize) -> Result<Lifecycle> {
    Ok(Lifecycle { desired: parse_enum(r.text(at)?)?, observed: parse_enum(r.text(at + 1)?)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    const SPEC: &str = r#"{"face":"v2","selection":{"kind":"prefix","entries":[""]},"source":{"region":"r"},"target":{"region":"r"}}"#;

    async fn insert(tx: &mut StoreTx, id: i64, project: &str, priority: i64) {
        let sql = "INSERT INTO tasks (id, project, name, spec, priority, desired, observed, created_at, queued_at) \
                   VALUES ($1, $2, $3, $4, $5, 'run', 'waiting', $1, $1)";
        tx.tx.execute(sql, args![id, project, format!("t{id}"), SPEC, priority]).await.unwrap();
    }

    #[tokio::test]
    async fn h5_waiting_tasks_of_one_project_do_not_hide_those_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        // More urgent and older ones of another project, as many as were once read for all projects together.
        for id in 0..10_000 {
            insert(&mut tx, id, "many", 0).await;
        }
        insert(&mut tx, 20_000, "few", 1).await;
        let seen = tx.waiting_tasks(10, 0).await.unwrap();
        let ids: Vec<TaskId> = seen.iter().map(|t| t.id).collect();
        assert_eq!(ids, (0..10).chain([20_000]).collect::<Vec<_>>());
        assert_eq!(tx.waiting_tasks(1, 5).await.unwrap().len(), 6, "those that wait too long are seen too");
        assert_eq!(tx.count_open_tasks().await.unwrap(), 10_001);
    }

    #[tokio::test]
    async fn h1_waiting_tasks_are_read_from_the_index_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let plan: &'static str = Box::leak(format!("EXPLAIN QUERY PLAN {WAITING}").into_boxed_str());
        let rows = tx.tx.query(plan, args![10u64, 0i64]).await.unwrap();
        let steps: Vec<String> = rows.iter().map(|r| r.text(3).unwrap().to_owned()).collect();
        assert!(
            steps.iter().any(|s| s.contains("SEARCH tasks USING COVERING INDEX tasks_by_state")),
            "{steps:?}"
        );
        assert!(steps.iter().all(|s| !s.contains("TEMP B-TREE")), "{steps:?}");
    }
}
