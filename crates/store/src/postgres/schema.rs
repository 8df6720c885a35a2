//! The schema on PostgreSQL: the numbered files that SQLite has, with the types of PostgreSQL, and what only it needs.
//!
//! The version that a database has and the least version that a program must know to write stand in `schema_version`.
//! Migrations run by `whimbrel db migrate`, or by the first `serve` on an empty database; one transaction each, one process
//! at a time.

use model::error::{Error, Kind, Result};

use super::error::failed;
use super::pool::Target;
use crate::sqlite::MIGRATIONS;

/// Key of the advisory lock of migrations: `wbschema` as a number.
const SCHEMA_LOCK: i64 = 0x7762_7363_6865_6d61;

/// What is done beyond a file of SQLite: the number of the file, and SQL to run after it.
const STORAGE: [(usize, &str); 1] = [(
    1,
    // Checkpoints rewrite these rows every half second: free space in their pages keeps indexes untouched.
    "ALTER TABLE ranges SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01); \
     ALTER TABLE tasks SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);",
)];

/// The version of a database, and what this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// Migrations that the database has.
    pub database: usize,
    /// Migrations that this program has.
    pub program: usize,
}

impl SchemaVersion {
    /// Nothing is left to do.
    pub fn is_current(self) -> bool {
        self.database == self.program
    }
}

/// A file of SQLite in the words of PostgreSQL. Keys and names are compared by bytes, whatever the database's language.
fn translate(sql: &str) -> String {
    let words = |line: &str| {
        let code = line.split("--").next().unwrap_or_default();
        code.replace("BLOB", "BYTEA")
            .replace(" TEXT ", " TEXT COLLATE \"C\" ")
            .replace(" TEXT,", " TEXT COLLATE \"C\",")
    };
    sql.lines().map(words).collect::<Vec<_>>().join("\n")
}

fn migration(number: usize) -> String {
    let storage = STORAGE.iter().filter(|(of, _)| *of == number).map(|(_, sql)| *sql);
    let mut sql = translate(MIGRATIONS[number - 1]);
    sql.extend(storage);
    sql
}

/// The version of the database of a URL.
///
/// # Errors
/// When the database cannot be reached.
pub async fn version(url: &str) -> Result<SchemaVersion> {
    let client = connect(url).await?;
    Ok(SchemaVersion { database: read(&client).await?, program: MIGRATIONS.len() })
}

/// Brings the database of a URL up to date; the version that it had.
///
/// # Errors
/// [`Kind::Invalid`] when it is of a newer program; when the database cannot be reached, or refuses.
pub async fn migrate(url: &str) -> Result<SchemaVersion> {
    let mut client = connect(url).await?;
    let mut began = None;
    loop {
        let tx = client.transaction().await.map_err(|e| failed(&e))?;
        tx.batch_execute(&format!(
            "SELECT pg_advisory_xact_lock({SCHEMA_LOCK}); SET LOCAL client_min_messages = warning; \
             CREATE TABLE IF NOT EXISTS schema_version (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)"
        ))
        .await
        .map_err(|e| failed(&e))?;
        let have = read(tx.client()).await?;
        let had = *began.get_or_insert(have);
        check_known(have)?;
        if have == MIGRATIONS.len() {
            tx.commit().await.map_err(|e| failed(&e))?;
            return Ok(SchemaVersion { database: had, program: MIGRATIONS.len() });
        }
        let record = "INSERT INTO schema_version (id, version) VALUES (1, $1) \
                      ON CONFLICT (id) DO UPDATE SET version = excluded.version";
        tx.batch_execute(&migration(have + 1)).await.map_err(|e| failed(&e))?;
        let number = i64::try_from(have + 1).unwrap_or(i64::MAX);
        tx.execute(record, &[&number]).await.map_err(|e| failed(&e))?;
        tx.commit().await.map_err(|e| failed(&e))?;
    }
}

/// Brings an empty database up to date; any other stays as it is.
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_empty(url: &str) -> Result<SchemaVersion> {
    let found = version(url).await?;
    check_known(found.database)?;
    if found.database > 0 {
        return Ok(found);
    }
    migrate(url).await?;
    version(url).await
}

/// Refuses a database of a newer program.
pub(crate) fn check_known(have: usize) -> Result<()> {
    if have <= MIGRATIONS.len() {
        return Ok(());
    }
    let m = format!(
        "the database has schema version {have}, this program supports up to {}; hint: use a newer program",
        MIGRATIONS.len()
    );
    Err(Error::new(Kind::Invalid, "store", m))
}

async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = Target::parse(url)?.connect().await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn read(client: &tokio_postgres::Client) -> Result<usize> {
    let there = client.query("SELECT to_regclass('schema_version') IS NOT NULL", &[]).await;
    if !there.map_err(|e| failed(&e))?.first().is_some_and(|row| row.get(0)) {
        return Ok(0);
    }
    let rows = client.query("SELECT version FROM schema_version WHERE id = 1", &[]).await;
    let version = rows.map_err(|e| failed(&e))?.first().map_or(0i64, |row| row.get(0));
    Ok(usize::try_from(version).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_sqlite_have_types_of_postgres() {
        let sql = translate(
            "CREATE TABLE t ( -- TEXT of t\n  a TEXT PRIMARY KEY,\n  b BLOB NOT NULL,\n  c TEXT,\n  d BIGINT\n);",
        );
        assert_eq!(
            sql,
            "CREATE TABLE t ( \n  a TEXT COLLATE \"C\" PRIMARY KEY,\n  b BYTEA NOT NULL,\n  c TEXT COLLATE \"C\",\n  d BIGINT\n);"
        );
    }
}
