//! Redis migrations: rows, leases, logs, and where instances stand after a cut-over.

mod lease;

use model::error::{Error, Kind, Result};
use model::migration::{
    CutoverState, MigrationEvent, MigrationIllegal, MigrationKind, MigrationSpec, MigrationState, Phase, next,
};
use serde::{Deserialize, Serialize};

use crate::value::{enum_text, from_json, parse_enum, to_json};
use crate::{Row, StoreTx, args};

/// Lines of a log that are kept.
const LOG_MAX: i64 = 10_000;

/// A migration about to be accepted.
#[derive(Debug)]
pub struct NewMigration {
    /// Identity, a UUID.
    pub id: String,
    /// Owner.
    pub project: String,
    /// Name; need not be unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Where its data come from.
    pub kind: MigrationKind,
    /// What to do.
    pub spec: MigrationSpec,
    /// Credentials as JSON, in clear; sealed before they are stored.
    pub secrets: String,
    /// [`Phase::Created`] or [`Phase::Loading`].
    pub phase: Phase,
    /// Identity of the job that made it.
    pub job: String,
    /// Now, milliseconds.
    pub now: i64,
}

/// Live numbers as they were written last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MigrationStats {
    /// Of the full phase, percent.
    pub percent: u64,
    /// How far the target is behind, bytes of the stream.
    pub lag_bytes: u64,
    /// How far the target is behind, milliseconds.
    pub lag_ms: u64,
    /// Keys at the source.
    pub source_keys: u64,
    /// Keys at the target.
    pub target_keys: u64,
    /// Written to the target, KiB per second.
    pub kib_per_s: u64,
    /// Commands at the target, per second.
    pub ops_per_s: u64,
    /// Snapshots that were taken.
    pub full_syncs: u64,
    /// Times that the stream went on where it was.
    pub partial_syncs: u64,
}

/// A stored migration.
#[derive(Clone, Debug)]
pub struct MigrationRow {
    /// Identity.
    pub id: String,
    /// Owner.
    pub project: String,
    /// Name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// What to do.
    pub spec: MigrationSpec,
    /// Where it is.
    pub state: MigrationState,
    /// What the cut-over needs to know of itself, as JSON.
    pub cutover: serde_json::Value,
    /// Identity of the job that made it.
    pub job: String,
    /// Its numbers.
    pub stats: MigrationStats,
    /// Why it failed.
    pub error: Option<String>,
    /// Accepted at, milliseconds.
    pub created_at: i64,
    /// When it reached what it was to reach, milliseconds.
    pub updated_at: Option<i64>,
    /// When an import was over, milliseconds.
    pub released_at: Option<i64>,
    /// Lease number.
    pub fence: i64,
    /// Who holds its lease.
    pub owner: Option<String>,
    /// Until when, milliseconds.
    pub lease_until: i64,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Normal progress.
    Info,
    /// Abnormal, and handled.
    Warn,
    /// It failed.
    Error,
}

/// A line of a migration's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When, milliseconds.
    pub at: i64,
    /// How bad.
    pub level: Level,
    /// Stable code, `WB.nnnn`.
    pub code: String,
    /// The sentence; never a secret.
    pub message: String,
    /// Its variable parts.
    pub keywords: Vec<String>,
}

const COLUMNS: &str = "id, project, name, description, kind, spec, phase, switch, cutover, job, stats, error, created_at, \
                       updated_at, released_at, fence, owner, lease_until";

fn row(r: &Row) -> Result<MigrationRow> {
    Ok(MigrationRow {
        id: r.text(0)?.to_owned(),
        project: r.text(1)?.to_owned(),
        name: r.text(2)?.to_owned(),
        description: r.text(3)?.to_owned(),
        spec: from_json(r.text(5)?)?,
        state: MigrationState {
            kind: parse_enum(r.text(4)?)?,
            phase: parse_enum(r.text(6)?)?,
            cutover: r.opt_text(7)?.map(parse_enum).transpose()?,
        },
        cutover: from_json(r.text(8)?)?,
        job: r.text(9)?.to_owned(),
        stats: from_json(r.text(10)?)?,
        error: r.opt_text(11)?.map(str::to_owned),
        created_at: r.int(12)?,
        updated_at: r.opt_int(13)?,
        released_at: r.opt_int(14)?,
        fence: r.int(15)?,
        owner: r.opt_text(16)?.map(str::to_owned),
        lease_until: r.int(17)?,
    })
}

/// `SELECT` of all columns; the text is built once.
macro_rules! select {
    ($tail:literal) => {{
        static SQL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        let sql: &'static str = SQL.get_or_init(|| format!("SELECT {COLUMNS} FROM migrations {}", $tail));
        sql
    }};
}
use select;

fn redirect_key(id: &str) -> String {
    format!("migration {id}")
}

impl StoreTx {
    /// Accepts a migration.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_migration(&mut self, m: NewMigration) -> Result<()> {
        let sealed = self.keys.seal(&redirect_key(&m.id), m.secrets.as_bytes())?;
        let sql = "INSERT INTO migrations (id, project, name, description, kind, spec, secrets, phase, job, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let args = args![
            m.id,
            m.project,
            m.name,
            m.description,
            enum_text(m.kind),
            to_json(&m.spec)?,
            sealed,
            enum_text(m.phase),
            m.job,
            m.now
        ];
        self.tx.execute(sql, args).await?;
        self.wakes = true;
        Ok(())
    }

    /// One migration, whoever owns it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn migration(&mut self, id: &str) -> Result<Option<MigrationRow>> {
        let rows = self.tx.query(select!("WHERE id = $1"), args![id]).await?;
        rows.first().map(row).transpose()
    }

    /// One migration of a project.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn migration_of(&mut self, project: &str, id: &str) -> Result<Option<MigrationRow>> {
        Ok(self.migration(id).await?.filter(|m| m.project == project))
    }

    /// The migration that a job made.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn migration_of_job(&mut self, project: &str, job: &str) -> Result<Option<MigrationRow>> {
        let rows = self.tx.query(select!("WHERE job = $1 AND project = $2"), args![job, project]).await?;
        rows.first().map(row).transpose()
    }

    /// One page of a project's migrations with `part` in their names, newest first, and how many there are in all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_migrations(
        &mut self,
        project: &str,
        part: &str,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<MigrationRow>, u64)> {
        // This looks at case, which LIKE does not everywhere.
        let count = "SELECT COUNT(*) FROM migrations WHERE project = $1 AND ($2 = '' OR REPLACE(name, $2, '') <> name)";
        let total = self.tx.query(count, args![project, part]).await?;
        let total = total.first().map_or(Ok(0), |r| r.count(0))?;
        let sql = select!(
            "WHERE project = $1 AND ($2 = '' OR REPLACE(name, $2, '') <> name) ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4"
        );
        let rows = self.tx.query(sql, args![project, part, limit, offset]).await?;
        Ok((rows.iter().map(row).collect::<Result<_>>()?, total))
    }

    /// Migrations that somebody works on, or should: at most 1,000, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open_migrations(&mut self) -> Result<Vec<MigrationRow>> {
        let sql = select!(
            "WHERE phase IN ('loading', 'following', 'stopping') OR switch IN ('exchanging', 'decided', 'returning') \
             ORDER BY created_at, id LIMIT 1000"
        );
        self.tx.query(sql, vec![]).await?.iter().map(row).collect()
    }

    /// How many migrations of a project have not ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unended_migrations(&mut self, project: &str) -> Result<u64> {
        let sql = "SELECT COUNT(*) FROM migrations WHERE project = $1 \
                   AND phase IN ('created', 'loading', 'following', 'stopping')";
        let rows = self.tx.query(sql, args![project]).await?;
        rows.first().map_or(Ok(0), |r| r.count(0))
    }

    /// Credentials of a migration, in clear.
    ///
    /// # Errors
    /// When the database fails, or they were sealed by a key that is gone.
    pub async fn migration_secrets(&mut self, id: &str) -> Result<Option<String>> {
        let rows = self.tx.query("SELECT secrets FROM migrations WHERE id = $1", args![id]).await?;
        let Some(sealed) = rows.first().map(|r| r.opt_text(0)).transpose()?.flatten() else {
            return Ok(None);
        };
        let plain = self.keys.open(&redirect_key(id), sealed)?;
        Ok(Some(String::from_utf8_lossy(&plain).into_owned()))
    }

    /// Takes the new configuration of a migration, and forgets what came of the one before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn configure_migration(&mut self, id: &str, spec: &MigrationSpec, secrets: &str) -> Result<()> {
        let sealed = self.keys.seal(&redirect_key(id), secrets.as_bytes())?;
        let sql = "UPDATE migrations SET spec = $2, secrets = $3 WHERE id = $1";
        self.tx.execute(sql, args![id, to_json(spec)?, sealed]).await?;
        self.wakes = true;
        Ok(())
    }

    /// Changes what may change while it runs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_migration_spec(&mut self, id: &str, spec: &MigrationSpec) -> Result<()> {
        self.tx.execute("UPDATE migrations SET spec = $2 WHERE id = $1", args![id, to_json(spec)?]).await?;
        self.wakes = true;
        Ok(())
    }

    /// Applies an event by [`next`] and stores the result; answers the new state.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub async fn apply_migration(
        &mut self,
        id: &str,
        event: MigrationEvent,
        now: i64,
    ) -> Result<std::result::Result<MigrationState, MigrationIllegal>> {
        let Some(m) = self.migration(id).await? else {
            return Err(Error::new(Kind::NotFound, "migration", format!("migration {id} does not exist")));
        };
        let after = match next(m.state, event) {
            Ok(after) => after,
            Err(why) => return Ok(Err(why)),
        };
        let begins = matches!(event, MigrationEvent::Configure | MigrationEvent::Restart);
        if begins {
            let sql = "UPDATE migrations SET error = NULL, updated_at = NULL, released_at = NULL, stats = '{}', \
                       cutover = '{}' WHERE id = $1";
            self.tx.execute(sql, args![id]).await?;
        }
        let arrived = after.phase != m.state.phase
            && matches!(after.phase, Phase::Following | Phase::Stopped | Phase::Succeeded | Phase::Failed);
        if arrived {
            self.tx.execute("UPDATE migrations SET updated_at = $2 WHERE id = $1", args![id, now]).await?;
            if after.kind == MigrationKind::Import {
                self.tx
                    .execute("UPDATE migrations SET released_at = $2 WHERE id = $1", args![id, now])
                    .await?;
            }
        }
        let sql = "UPDATE migrations SET phase = $2, switch = $3 WHERE id = $1";
        self.tx
            .execute(sql, args![id, enum_text(after.phase), after.cutover.map(enum_text::<CutoverState>)])
            .await?;
        self.wakes = true;
        Ok(Ok(after))
    }

    /// Notes why a migration failed; none: it did not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_migration_error(&mut self, id: &str, error: Option<&str>) -> Result<()> {
        self.tx.execute("UPDATE migrations SET error = $2 WHERE id = $1", args![id, error]).await?;
        Ok(())
    }

    /// Stores its numbers.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_migration_stats(&mut self, id: &str, stats: &MigrationStats) -> Result<()> {
        self.tx.execute("UPDATE migrations SET stats = $2 WHERE id = $1", args![id, to_json(stats)?]).await?;
        Ok(())
    }

    /// Stores what a cut-over needs to know of itself after a crash.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_cutover(&mut self, id: &str, cutover: &serde_json::Value) -> Result<()> {
        self.tx
            .execute("UPDATE migrations SET cutover = $2 WHERE id = $1", args![id, to_json(cutover)?])
            .await?;
        Ok(())
    }

    /// Removes a migration and its log; never data at either end.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_migration(&mut self, id: &str) -> Result<()> {
        self.tx.execute("DELETE FROM migration_logs WHERE migration_id = $1", args![id]).await?;
        self.tx.execute("DELETE FROM migrations WHERE id = $1", args![id]).await?;
        Ok(())
    }

    /// Adds a line to a migration's log, and forgets the oldest when there are more than `LOG_MAX`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn log_migration(&mut self, id: &str, line: &LogLine) -> Result<()> {
        let rows = self
            .tx
            .query("SELECT COALESCE(MAX(seq), 0) FROM migration_logs WHERE migration_id = $1", args![id])
            .await?;
        let seq = rows.first().map_or(Ok(0), |r| r.int(0))? + 1;
        let sql = "INSERT INTO migration_logs (migration_id, seq, at, level, code, message, keywords) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let args = args![
            id,
            seq,
            line.at,
            enum_text(line.level),
            line.code.as_str(),
            line.message.as_str(),
            to_json(&line.keywords)?
        ];
        self.tx.execute(sql, args).await?;
        let old = "DELETE FROM migration_logs WHERE migration_id = $1 AND seq <= $2";
        self.tx.execute(old, args![id, seq - LOG_MAX]).await?;
        Ok(())
    }

    /// One page of a log, newest first, and how many lines there are in all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn migration_logs(
        &mut self,
        id: &str,
        level: &str,
        offset: u64,
        limit: u64,
    ) -> Result<(Vec<LogLine>, u64)> {
        let count = "SELECT COUNT(*) FROM migration_logs WHERE migration_id = $1 AND ($2 = '' OR level = $2)";
        let total = self.tx.query(count, args![id, level]).await?;
        let total = total.first().map_or(Ok(0), |r| r.count(0))?;
        let sql = "SELECT at, level, code, message, keywords FROM migration_logs \
                   WHERE migration_id = $1 AND ($2 = '' OR level = $2) ORDER BY seq DESC LIMIT $3 OFFSET $4";
        let rows = self.tx.query(sql, args![id, level, limit, offset]).await?;
        let line = |r: &Row| {
            Ok(LogLine {
                at: r.int(0)?,
                level: parse_enum(r.text(1)?)?,
                code: r.text(2)?.to_owned(),
                message: r.text(3)?.to_owned(),
                keywords: from_json(r.text(4)?)?,
            })
        };
        Ok((rows.iter().map(line).collect::<Result<_>>()?, total))
    }

    /// Where instances stand after cut-overs: the id of each that moved, and of the one in whose place it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn redirects(&mut self) -> Result<Vec<(String, String)>> {
        let rows = self.tx.query("SELECT id, stands FROM instances", vec![]).await?;
        rows.iter().map(|r| Ok((r.text(0)?.to_owned(), r.text(1)?.to_owned()))).collect()
    }

    /// Two instances change places.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn swap_redirects(&mut self, a: &str, b: &str) -> Result<()> {
        let moved = self.redirects().await?;
        let stands = |id: &str| moved.iter().find(|(i, _)| i == id).map_or(id, |(_, s)| s).to_owned();
        let (at_a, at_b) = (stands(a), stands(b));
        for (id, place) in [(a, at_b), (b, at_a)] {
            self.tx.execute("DELETE FROM instances WHERE id = $1", args![id]).await?;
            if id != place {
                self.tx
                    .execute("INSERT INTO instances (id, stands) VALUES ($1, $2)", args![id, place])
                    .await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
