//! Failed objects: rows, so that "retry failed only" is a query.

use model::error::{Error, Kind, Result, Side};
use model::key::Key;
use model::task::TaskId;

use crate::value::{enum_text, parse_enum};
use crate::{Row, StoreTx, args};

/// Rows kept per task; beyond that the list is incomplete and says so (OMS §4.7).
pub(crate) const FAILURES_MAX: u64 = 100_000;

/// One failed object.
#[derive(Clone, Debug)]
pub struct FailedObject {
    /// Its key at the source.
    pub key: Key,
    /// Its size, bytes.
    pub size: u64,
    /// Why.
    pub failure: Error,
    /// When, milliseconds.
    pub at: i64,
}

/// Failed objects of one task with the same cause.
#[derive(Clone, Debug)]
pub struct FailureGroup {
    /// How many.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// The first of them in the order of keys.
    pub example: FailedObject,
}

/// Causes of one task that are told apart; a task has few.
const GROUPS_MAX: u64 = 50;

fn failed_object(r: &Row) -> Result<FailedObject> {
    let kind: Kind = parse_enum(r.text(2)?)?;
    let side: Side = parse_enum(r.text(3)?)?;
    let failure = Error::new(kind, operation(r.text(4)?), r.text(5)?).at(side);
    Ok(FailedObject {
        key: Key::new(r.opt_blob(0)?.unwrap_or_default()),
        size: r.count(1)?,
        failure,
        at: r.int(6)?,
    })
}

impl StoreTx {
    /// Notes failed objects, up to 100,000 per task.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_failures(&mut self, task: TaskId, failed: &[FailedObject]) -> Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        let have = self.count_failures(task).await?;
        let room = usize::try_from(FAILURES_MAX.saturating_sub(have)).unwrap_or(0);
        let sql = "INSERT INTO failures (task_id, key, size, kind, side, op, message, at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (task_id, key) DO UPDATE SET \
                   kind = excluded.kind, side = excluded.side, op = excluded.op, message = excluded.message, \
                   at = excluded.at, size = excluded.size";
        for f in failed.iter().take(room) {
            let args = args![
                task,
                f.key.as_bytes(),
                f.size,
                enum_text(f.failure.kind),
                enum_text(f.failure.side),
                f.failure.op,
                f.failure.message.as_str(),
                f.at,
            ];
            self.tx.execute(sql, args).await?;
        }
        Ok(())
    }

    /// Forgets the failures of objects that have succeeded since.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drop_failures(&mut self, task: TaskId) -> Result<()> {
        self.tx.execute("DELETE FROM failures WHERE task_id = $1", args![task]).await?;
        Ok(())
    }

    /// Forgets failures noted before an instant: those of an earlier run.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn drop_failures_before(&mut self, task: TaskId, at: i64) -> Result<()> {
        self.tx.execute("DELETE FROM failures WHERE task_id = $1 AND at < $2", args![task, at]).await?;
        Ok(())
    }

    /// How many failed objects are noted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_failures(&mut self, task: TaskId) -> Result<u64> {
        let rows = self.tx.query("SELECT COUNT(*) FROM failures WHERE task_id = $1", args![task]).await?;
        rows.first().map_or(Ok(0), |r| r.count(0))
    }

    /// A page of failed objects after a key.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn failures(&mut self, task: TaskId, after: &Key, limit: u64) -> Result<Vec<FailedObject>> {
        let sql = "SELECT key, size, kind, side, op, message, at FROM failures \
                   WHERE task_id = $1 AND key > $2 ORDER BY key LIMIT $3";
        let rows = self.tx.query(sql, args![task, after.as_bytes(), limit]).await?;
        rows.iter().map(failed_object).collect()
    }

    /// A page of failed objects of one cause after a key.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn failures_of(
        &mut self,
        task: TaskId,
        (kind, side): (Kind, Side),
        after: &Key,
        limit: u64,
    ) -> Result<Vec<FailedObject>> {
        let sql = "SELECT key, size, kind, side, op, message, at FROM failures \
                   WHERE task_id = $1 AND kind = $2 AND side = $3 AND key > $4 ORDER BY key LIMIT $5";
        let args = args![task, enum_text(kind), enum_text(side), after.as_bytes(), limit];
        self.tx.query(sql, args).await?.iter().map(failed_object).collect()
    }

    /// The failed objects of a task by kind and side, the most frequent cause first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn failure_groups(&mut self, task: TaskId) -> Result<Vec<FailureGroup>> {
        let sql = "SELECT kind, side, COUNT(*), SUM(size) FROM failures WHERE task_id = $1 \
                   GROUP BY kind, side ORDER BY COUNT(*) DESC, kind, side LIMIT $2";
        let rows = self.tx.query(sql, args![task, GROUPS_MAX]).await?;
        let mut groups = Vec::with_capacity(rows.len());
        for r in &rows {
            let cause = (parse_enum(r.text(0)?)?, parse_enum(r.text(1)?)?);
            let first = self.failures_of(task, cause, &Key::default(), 1).await?.pop();
            // The smallest key is the empty one, which no object has.
            let Some(example) = first else { continue };
            groups.push(FailureGroup { objects: r.count(2)?, bytes: r.count(3)?, example });
        }
        Ok(groups)
    }
}

/// The static name of a stored operation.
fn operation(text: &str) -> &'static str {
    const KNOWN: [&str; 9] =
        ["head", "read", "write", "write_part", "begin_upload", "complete_upload", "tags", "verify", "list"];
    KNOWN.into_iter().find(|k| *k == text).unwrap_or("copy")
}
