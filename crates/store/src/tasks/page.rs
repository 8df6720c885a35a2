//! Pages of tasks after a position, and how many there are in each state.

use model::error::Result;
use model::task::{Desired, Lifecycle, Observed, TaskId};

use super::row::{COLUMNS, TaskRow, row};
use super::task_select;
use crate::ledger::SUMS;
use crate::value::{enum_text, parse_enum};
use crate::{StoreTx, args};

/// Which tasks a page shows, newest first.
#[derive(Clone, Debug, Default)]
pub struct TaskPageFilter {
    /// Of this project.
    pub project: String,
    /// In one of these states; empty: all. No desired state: whatever it is.
    pub states: Vec<(Option<Desired>, Observed)>,
    /// With this text in the name or at the beginning of the id or of a bucket's name; empty: all.
    pub text: String,
    /// Created before this task: its instant of creation and its id. None: the first page.
    pub after: Option<(i64, TaskId)>,
}

fn page_sql() -> &'static str {
    task_select!(
        "SELECT t.id FROM tasks t \
         WHERE t.project = $1 AND (t.created_at < $2 OR (t.created_at = $2 AND t.id < $3)) \
         AND ($4 = '' OR $4 LIKE '%|' || t.desired || ':' || t.observed || '|%' OR $4 LIKE '%|*:' || t.observed || '|%') \
         AND ($5 = '' OR LOWER(t.name) LIKE '%' || $5 || '%' ESCAPE '\\' OR CAST(t.id AS TEXT) LIKE $5 || '%' ESCAPE '\\' \
         OR LOWER(t.spec) LIKE '%\"bucket\":\"' || $5 || '%' ESCAPE '\\') \
         ORDER BY t.created_at DESC, t.id DESC LIMIT $6",
        "ORDER BY t.created_at DESC, t.id DESC"
    )
}

impl StoreTx {
    /// A page of tasks, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn task_page(&mut self, filter: &TaskPageFilter, limit: u64) -> Result<Vec<TaskRow>> {
        let (at, id) = filter.after.unwrap_or((i64::MAX, i64::MAX));
        let states: String = filter
            .states
            .iter()
            .map(|(d, o)| format!("|{}:{}|", d.map_or("*".to_owned(), enum_text), enum_text(*o)))
            .collect();
        let text = filter.text.to_lowercase();
        let like = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let args = args![filter.project.as_str(), at, id, states, like, limit];
        self.tx.query(page_sql(), args).await?.iter().map(row).collect()
    }

    /// How many tasks a project has in each state.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn task_counts(&mut self, project: &str) -> Result<Vec<(Lifecycle, u64)>> {
        let sql =
            "SELECT desired, observed, COUNT(*) FROM tasks WHERE project = $1 GROUP BY desired, observed";
        let rows = self.tx.query(sql, args![project]).await?;
        rows.iter()
            .map(|r| {
                let state = Lifecycle { desired: parse_enum(r.text(0)?)?, observed: parse_enum(r.text(1)?)? };
                Ok((state, r.count(2)?))
            })
            .collect()
    }
}
