//! Members of a group as sums and states: a group may have 2,000 of them.

use std::sync::OnceLock;

use model::count::{Counters, Tally};
use model::error::Result;
use model::task::{Lifecycle, Observed, TaskId};

use super::open::lifecycle;
use super::row::{COLUMNS, TaskRow, row};
use super::{MEMBERS_MAX, task_select};
use crate::ledger::{SUMS, counters_at};
use crate::value::{from_json, parse_enum};
use crate::{Row, StoreTx, args};

/// Sums of the members of a group that are in one state.
#[derive(Clone, Debug)]
pub struct MemberTally {
    /// Desired and observed state.
    pub state: Lifecycle,
    /// How many.
    pub tasks: u64,
    /// Settled so far.
    pub counters: Counters,
    /// Settled or counted by the precount, whichever is more, of each.
    pub total: Tally,
    /// Sum of their mean speeds, bytes per second.
    pub speed: u64,
}

fn tally(r: &Row) -> Result<MemberTally> {
    Ok(MemberTally {
        state: lifecycle(r, 0)?,
        tasks: r.count(2)?,
        counters: counters_at(r, 3)?,
        total: Tally { objects: r.count(17)?, bytes: r.count(18)? },
        speed: r.count(19)?,
    })
}

/// Sums for each member first, then for all of one state.
fn tallies_sql() -> &'static str {
    static SQL: OnceLock<String> = OnceLock::new();
    SQL.get_or_init(|| {
        let own: Vec<String> =
            (0..SUMS.len()).map(|i| format!("CAST(COALESCE({}, 0) AS BIGINT) AS s{i}", SUMS[i])).collect();
        let sums: Vec<String> = (0..14).map(|i| format!("SUM(s{i})")).collect();
        let total = |done: &str, precounted: &str| {
            format!(
                "SUM(CASE WHEN observed IN ('failed', 'succeeded') OR {done} >= {precounted} THEN {done} ELSE {precounted} END)"
            )
        };
        format!(
            "SELECT desired, observed, COUNT(*), {}, {}, {}, \
             SUM(CASE WHEN running_ms > 0 AND s1 < 1000000000000000 THEN s1 * 1000 / running_ms ELSE 0 END) FROM \
             (SELECT t.id, t.desired, t.observed, t.running_ms, {} FROM tasks t LEFT JOIN ranges r ON r.task_id = t.id \
              WHERE t.member_of = $1 AND t.observed <> 'running' GROUP BY t.id, t.desired, t.observed, t.running_ms) m \
             GROUP BY desired, observed",
            sums.join(", "),
            total("s0 + s2 + s4", "s14"),
            total("s1 + s3 + s5", "s15"),
            own.join(", "),
        )
    })
}

impl StoreTx {
    /// Sums of the members of a group by state, without those that run ([`StoreTx::running_members`]).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn member_tallies(&mut self, of: &str) -> Result<Vec<MemberTally>> {
        self.tx.query(tallies_sql(), args![of]).await?.iter().map(tally).collect()
    }

    /// The members of a group that run, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn running_members(&mut self, of: &str) -> Result<Vec<TaskRow>> {
        let sql = task_select!(
            "SELECT id FROM tasks WHERE member_of = $1 AND observed = 'running' ORDER BY created_at, id LIMIT $2",
            "ORDER BY t.created_at, t.id"
        );
        self.tx.query(sql, args![of, MEMBERS_MAX]).await?.iter().map(row).collect()
    }

    /// The first member of a group that failed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn first_failed_member(&mut self, of: &str) -> Result<Option<TaskRow>> {
        let sql = task_select!(
            "SELECT id FROM tasks WHERE member_of = $1 AND observed = 'failed' ORDER BY created_at, id LIMIT 1",
            ""
        );
        self.tx.query(sql, args![of]).await?.first().map(row).transpose()
    }

    /// What became of the lists of failed objects of the members of a group, as JSON, oldest member first; without members
    /// that have none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn member_records(&mut self, of: &str) -> Result<Vec<serde_json::Value>> {
        let sql = "SELECT records FROM tasks WHERE member_of = $1 AND (records LIKE '%\"failed_key\":\"%' \
                   OR records LIKE '%\"failed_complete\":false%' OR records LIKE '%\"failed_error\":\"%') \
                   ORDER BY created_at, id LIMIT $2";
        let rows = self.tx.query(sql, args![of, MEMBERS_MAX]).await?;
        rows.iter().map(|r| from_json(r.text(0)?)).collect()
    }

    /// The first notes on members of a group.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn member_notes(&mut self, of: &str, max: u64) -> Result<Vec<String>> {
        let sql =
            "SELECT note FROM tasks WHERE member_of = $1 AND note <> '' ORDER BY created_at, id LIMIT $2";
        let rows = self.tx.query(sql, args![of, max]).await?;
        rows.iter().map(|r| r.text(0).map(str::to_owned)).collect()
    }

    /// The states of the members of a group or sync task, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn member_states(&mut self, of: &str) -> Result<Vec<(TaskId, Lifecycle)>> {
        let sql =
            "SELECT id, desired, observed FROM tasks WHERE member_of = $1 ORDER BY created_at, id LIMIT $2";
        let rows = self.tx.query(sql, args![of, MEMBERS_MAX]).await?;
        rows.iter().map(|r| Ok((r.int(0)?, lifecycle(r, 1)?))).collect()
    }

    /// Whether a group has a member that has not ended, and whether it has one that failed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn member_ends(&mut self, of: &str) -> Result<(bool, bool)> {
        let sql = "SELECT observed FROM tasks WHERE member_of = $1 GROUP BY observed";
        let states = self.tx.query(sql, args![of]).await?;
        let states: Vec<Observed> = states.iter().map(|r| parse_enum(r.text(0)?)).collect::<Result<_>>()?;
        let is_open = |s: &Observed| !matches!(s, Observed::Succeeded | Observed::Failed);
        Ok((states.iter().any(is_open), states.contains(&Observed::Failed)))
    }

    /// Bytes that the members of a group have copied.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn copied_bytes(&mut self, of: &str) -> Result<u64> {
        let sql = "SELECT SUM(r.copied_bytes) FROM tasks t JOIN ranges r ON r.task_id = t.id \
                   WHERE t.member_of = $1 AND r.pass = 'copy'";
        let rows = self.tx.query(sql, args![of]).await?;
        rows.first().map_or(Ok(0), |r| r.count(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[tokio::test]
    async fn h3_members_of_a_group_are_summed_by_state() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::embedded(dir.path()).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let spec = r#"{"face":"v2","selection":{"kind":"prefix","entries":[""]},"source":{"region":"r"},"target":{"region":"r"}}"#;
        for (id, observed) in ["succeeded", "waiting", "failed", "failed", "running"].into_iter().enumerate()
        {
            let records = if observed == "failed" { r#"{"failed_key":"f"}"# } else { "{}" };
            let sql = "INSERT INTO tasks (id, project, name, spec, priority, desired, observed, created_at, queued_at, \
                       member_kind, member_of, running_ms, records, note) \
                       VALUES ($1, 'p', $2, $3, 1, 'run', $4, $1, $1, 'group', 'g', 2000, $5, $2)";
            tx.tx.execute(sql, args![id as i64, format!("t{id}"), spec, observed, records]).await.unwrap();
            for (pass, copied) in [("copy", 2i64), ("survey", 7)] {
                let sql = "INSERT INTO ranges (task_id, id, pass, scope, cursor, ahead, copied, copied_bytes) \
                           VALUES ($1, $2, $3, '', $4, $4, $2, 10)";
                tx.tx.execute(sql, args![id as i64, copied, pass, Vec::<u8>::new()]).await.unwrap();
            }
        }
        let mut tallies = tx.member_tallies("g").await.unwrap();
        tallies.sort_by_key(|t| t.tasks);
        let seen: Vec<_> =
            tallies.iter().map(|t| (t.state.observed, t.tasks, t.total.objects, t.speed)).collect();
        let failed = seen.iter().find(|t| t.0 == Observed::Failed);
        assert_eq!(failed, Some(&(Observed::Failed, 2, 4, 10)), "what ended has no more than it settled");
        assert!(seen.contains(&(Observed::Waiting, 1, 7, 5)), "the precount is more: {seen:?}");
        assert_eq!(seen.len(), 3, "members that run are read one by one: {seen:?}");
        assert_eq!(tx.running_members("g").await.unwrap()[0].counters.copied.objects, 2);
        assert_eq!(tx.first_failed_member("g").await.unwrap().unwrap().id, 2);
        assert_eq!(tx.member_records("g").await.unwrap().len(), 2);
        assert_eq!(tx.member_notes("g", 2).await.unwrap(), ["t0", "t1"]);
        assert_eq!(tx.member_ends("g").await.unwrap(), (true, true));
        assert_eq!(tx.copied_bytes("g").await.unwrap(), 50);
    }
}
