//! Sync tasks: their events, each key once, and their counts by five minutes.

use model::error::{Error, Kind, Reason, Result};
use model::spec::TaskSpec;
use model::task::TaskId;

use crate::value::{from_json, to_json};
use crate::{Row, StoreTx, args};

/// Width of a count's slot, milliseconds.
pub const SLOT_MS: i64 = 300_000;
/// Keys that may wait in one sync task.
pub const PENDING_MAX: u64 = 1_000_000;

/// A stored sync task.
#[derive(Clone, Debug)]
pub struct SyncRow {
    /// Identity, a UUID.
    pub id: String,
    /// Owner.
    pub project: String,
    /// What its batches do.
    pub spec: TaskSpec,
    /// Events are accepted.
    pub running: bool,
    /// Accepted at, milliseconds.
    pub created_at: i64,
    /// Last start, milliseconds.
    pub started_at: i64,
    /// The task that works off a batch now.
    pub batch_task: Option<TaskId>,
    /// Number of the last event in that batch.
    pub batch_upto: i64,
    /// No batch before this, milliseconds.
    pub retry_at: i64,
    /// The next look through the whole bucket is due then, milliseconds; 0: never.
    pub full_scan_at: i64,
    /// The batch under way is a look through the whole bucket.
    pub full_scan_running: bool,
}

const COLUMNS: &str = "id, project, spec, running, created_at, started_at, batch_task, batch_upto, retry_at, \
                       sweep_at, sweeping";

fn row(r: &Row) -> Result<SyncRow> {
    Ok(SyncRow {
        id: r.text(0)?.to_owned(),
        project: r.text(1)?.to_owned(),
        spec: from_json(r.text(2)?)?,
        running: r.int(3)? != 0,
        created_at: r.int(4)?,
        started_at: r.int(5)?,
        batch_task: r.opt_int(6)?,
        batch_upto: r.int(7)?,
        retry_at: r.int(8)?,
        full_scan_at: r.int(9)?,
        full_scan_running: r.int(10)? != 0,
    })
}

/// Builds `SELECT … FROM sync_tasks …`; made once per distinct text.
macro_rules! select {
    ($tail:literal) => {{
        static SQL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        let sql: &'static str = SQL.get_or_init(|| format!("SELECT {COLUMNS} FROM sync_tasks {}", $tail));
        sql
    }};
}

fn context(id: &str) -> String {
    format!("sync {id}")
}

impl StoreTx {
    /// Accepts a sync task, running.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_sync(
        &mut self,
        id: &str,
        project: &str,
        spec: &TaskSpec,
        secrets: &str,
        now: i64,
    ) -> Result<()> {
        let sealed = self.keys.seal(&context(id), secrets.as_bytes())?;
        let sql = "INSERT INTO sync_tasks (id, project, spec, secrets, running, created_at, started_at, sweep_at) \
                   VALUES ($1, $2, $3, $4, 1, $5, $5, $6)";
        // The first sweep is due at once: it finds what was there before the first event.
        let sweep_at = if spec.extensions.full_scan_interval_minutes > 0 { now } else { 0 };
        self.tx.execute(sql, args![id, project, to_json(spec)?, sealed, now, sweep_at]).await?;
        Ok(())
    }

    /// One sync task of a project.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the project has no such sync task.
    pub async fn sync_of(&mut self, project: &str, id: &str) -> Result<SyncRow> {
        let rows = self.tx.query(select!("WHERE id = $1 AND project = $2"), args![id, project]).await?;
        let found = rows.first().map(row).transpose()?;
        found.ok_or_else(|| {
            Error::new(Kind::NotFound, "sync_task", format!("sync task {id} does not exist"))
                .because(Reason::NoSuchSyncTask)
        })
    }

    /// A page of sync tasks, newest first, and how many there are in all; `running` picks one state.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_syncs(
        &mut self,
        project: &str,
        running: Option<bool>,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<SyncRow>, u64)> {
        let state = running.map_or(-1i64, i64::from);
        let sql = "SELECT COUNT(*) FROM sync_tasks WHERE project = $1 AND ($2 = -1 OR running = $2)";
        let total = self.tx.query(sql, args![project, state]).await?;
        let total = total.first().map_or(Ok(0), |r| r.count(0))?;
        let sql = select!(
            "WHERE project = $1 AND ($2 = -1 OR running = $2) ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4"
        );
        let rows = self.tx.query(sql, args![project, state, limit, offset]).await?;
        Ok((rows.iter().map(row).collect::<Result<_>>()?, total))
    }

    /// How many sync tasks a project has, and how many of them, without `id`, accept events or still work off those that they
    /// accepted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sync_usage(&mut self, project: &str, id: &str) -> Result<(u64, u64)> {
        let sql = "SELECT COUNT(*), COALESCE(SUM(CASE WHEN id <> $2 AND (running = 1 OR batch_task IS NOT NULL OR pending > 0) \
                   THEN 1 ELSE 0 END), 0) FROM sync_tasks WHERE project = $1";
        let rows = self.tx.query(sql, args![project, id]).await?;
        rows.first().map_or(Ok((0, 0)), |r| Ok((r.count(0)?, r.count(1)?)))
    }

    /// Sync tasks with something to do: a batch under way, events that wait, or a sweep that is due.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn busy_syncs(&mut self, now: i64) -> Result<Vec<SyncRow>> {
        let sql = select!(
            "WHERE batch_task IS NOT NULL OR (running = 1 AND sweep_at > 0 AND sweep_at <= $1) OR pending > 0 LIMIT 1000"
        );
        self.tx.query(sql, args![now]).await?.iter().map(row).collect()
    }

    /// A look through the whole bucket has become a task.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_full_scan(&mut self, id: &str, task: TaskId) -> Result<()> {
        let sql = "UPDATE sync_tasks SET batch_task = $2, sweeping = 1 WHERE id = $1";
        self.tx.execute(sql, args![id, task]).await?;
        Ok(())
    }

    /// A look through the whole bucket has ended; the next one is due at `next`, milliseconds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_full_scan(&mut self, id: &str, next: i64) -> Result<()> {
        let sql = "UPDATE sync_tasks SET batch_task = NULL, sweeping = 0, sweep_at = $2 WHERE id = $1";
        self.tx.execute(sql, args![id, next]).await?;
        Ok(())
    }

    /// Its credentials, as JSON.
    ///
    /// # Errors
    /// When the key that sealed them is gone.
    pub async fn sync_secrets(&mut self, id: &str) -> Result<String> {
        let rows = self.tx.query("SELECT secrets FROM sync_tasks WHERE id = $1", args![id]).await?;
        let sealed = rows.first().and_then(|r| r.opt_text(0).ok().flatten()).unwrap_or_default();
        let plain = self.keys.open(&context(id), sealed)?;
        Ok(String::from_utf8_lossy(&plain).into_owned())
    }

    /// Starts with new credentials.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn start_sync(&mut self, id: &str, secrets: &str, now: i64) -> Result<()> {
        let sealed = self.keys.seal(&context(id), secrets.as_bytes())?;
        let sql =
            "UPDATE sync_tasks SET running = 1, started_at = $2, secrets = $3, retry_at = 0 WHERE id = $1";
        self.tx.execute(sql, args![id, now, sealed]).await?;
        self.wakes = true;
        Ok(())
    }

    /// Stops: no more events; those accepted are still worked off.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn stop_sync(&mut self, id: &str) -> Result<()> {
        self.tx.execute("UPDATE sync_tasks SET running = 0 WHERE id = $1", args![id]).await?;
        Ok(())
    }

    /// Removes a sync task with its events and counts.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_sync(&mut self, id: &str) -> Result<()> {
        for sql in [
            "DELETE FROM sync_events WHERE sync_id = $1",
            "DELETE FROM sync_counts WHERE sync_id = $1",
            "DELETE FROM sync_tasks WHERE id = $1",
        ] {
            self.tx.execute(sql, args![id]).await?;
        }
        Ok(())
    }

    /// Takes events: a key that waits already waits once, with its newest number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_events(&mut self, id: &str, keys: &[String], now: i64) -> Result<()> {
        let n = keys.len() as u64;
        let rows = self.tx.query("SELECT next_event FROM sync_tasks WHERE id = $1", args![id]).await?;
        let first = rows.first().map_or(Ok(1), |r| r.int(0))?;
        self.tx
            .execute("UPDATE sync_tasks SET next_event = next_event + $2 WHERE id = $1", args![id, n])
            .await?;
        let mut added = 0;
        for (number, key) in (first..).zip(keys) {
            let sql = "INSERT INTO sync_events (sync_id, key, number) VALUES ($1, $2, $3) ON CONFLICT (sync_id, key) DO NOTHING";
            let is_new = self.tx.execute(sql, args![id, key.as_str(), number]).await?;
            if is_new == 0 {
                let sql = "UPDATE sync_events SET number = $3 WHERE sync_id = $1 AND key = $2";
                self.tx.execute(sql, args![id, key.as_str(), number]).await?;
            }
            added += is_new;
        }
        let sql = "UPDATE sync_tasks SET pending = pending + $2 WHERE id = $1";
        self.tx.execute(sql, args![id, added]).await?;
        self.count_sync(id, "REQUEST", now, n).await?;
        self.wakes = true;
        Ok(())
    }

    /// How many keys wait.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_events(&mut self, id: &str) -> Result<u64> {
        let rows = self.tx.query("SELECT pending FROM sync_tasks WHERE id = $1", args![id]).await?;
        rows.first().map_or(Ok(0), |r| r.count(0))
    }

    /// The keys that wait longest, and the number of the last of them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_events(&mut self, id: &str, max: u64) -> Result<(Vec<String>, i64)> {
        let sql = "SELECT key, number FROM sync_events WHERE sync_id = $1 ORDER BY number LIMIT $2";
        let rows = self.tx.query(sql, args![id, max]).await?;
        let upto = rows.last().map_or(Ok(0), |r| r.int(1))?;
        let keys = rows.iter().map(|r| r.text(0).map(str::to_owned)).collect::<Result<_>>()?;
        Ok((keys, upto))
    }

    /// A task works off the events up to `upto` from now on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_batch(&mut self, id: &str, task: TaskId, upto: i64) -> Result<()> {
        let sql = "UPDATE sync_tasks SET batch_task = $2, batch_upto = $3 WHERE id = $1";
        self.tx.execute(sql, args![id, task, upto]).await?;
        Ok(())
    }

    /// The batch has ended; with `done` its events are settled, else they wait until `retry_at`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_batch(&mut self, sync: &SyncRow, done: bool, retry_at: i64) -> Result<()> {
        if done {
            // A key that was named again meanwhile has a higher number, and stays.
            let sql = "DELETE FROM sync_events WHERE sync_id = $1 AND number <= $2";
            let settled = self.tx.execute(sql, args![sync.id.as_str(), sync.batch_upto]).await?;
            let sql = "UPDATE sync_tasks SET pending = pending - $2 WHERE id = $1";
            self.tx.execute(sql, args![sync.id.as_str(), settled]).await?;
        }
        let sql = "UPDATE sync_tasks SET batch_task = NULL, retry_at = $2 WHERE id = $1";
        self.tx.execute(sql, args![sync.id.as_str(), retry_at]).await?;
        self.wakes = true;
        Ok(())
    }

    /// Batches whose sync task was deleted and that move nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn orphan_batches(&mut self) -> Result<Vec<TaskId>> {
        let sql = "SELECT id FROM tasks WHERE member_kind = 'sync' \
                   AND observed IN ('waiting', 'paused', 'failed', 'succeeded') \
                   AND NOT EXISTS (SELECT 1 FROM sync_tasks s WHERE s.id = tasks.member_of) LIMIT 1000";
        self.tx.query(sql, vec![]).await?.iter().map(|r| r.int(0)).collect()
    }

    /// Adds to a count.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_sync(&mut self, id: &str, kind: &'static str, now: i64, n: u64) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let sql = "INSERT INTO sync_counts (sync_id, kind, slot, n) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (sync_id, kind, slot) DO UPDATE SET n = sync_counts.n + excluded.n";
        self.tx.execute(sql, args![id, kind, now - now.rem_euclid(SLOT_MS), n]).await?;
        Ok(())
    }

    /// Counts in slots that begin in `from..until`, milliseconds, as (kind, slot, n), oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sync_counts(&mut self, id: &str, from: i64, until: i64) -> Result<Vec<(String, i64, u64)>> {
        let sql = "SELECT kind, slot, n FROM sync_counts WHERE sync_id = $1 AND slot >= $2 AND slot < $3 \
                   ORDER BY slot, kind LIMIT 100000";
        let rows = self.tx.query(sql, args![id, from, until]).await?;
        rows.iter().map(|r| Ok((r.text(0)?.to_owned(), r.int(1)?, r.count(2)?))).collect()
    }
}
