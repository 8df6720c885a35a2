//! The embedded backend: SQLite in WAL mode, one thread that writes and four that read.
//!
//! A transaction is a conversation with one thread; whoever drops its end without commit is rolled back.
//!
//! Decision: ADR 0002, `docs/adr/0002-sqlite-on-a-thread-sql-written-once.md`.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use model::error::{Error, Kind, Result};
use rusqlite::{Connection, OpenFlags, types::ValueRef};
use tokio::sync::{mpsc, oneshot};

use crate::{Backend, Mode, Row, Transaction, Value};

/// Reader threads of the embedded database.
const READERS: usize = 4;
/// Numbered migrations; PostgreSQL has the same, in its own types.
pub(crate) const MIGRATIONS: [&str; 17] = [
    include_str!("../migrations/sqlite/0001_init.sql"),
    include_str!("../migrations/sqlite/0002_upload_doubt.sql"),
    include_str!("../migrations/sqlite/0003_sync_and_groups.sql"),
    include_str!("../migrations/sqlite/0004_notices.sql"),
    include_str!("../migrations/sqlite/0005_restores.sql"),
    include_str!("../migrations/sqlite/0006_sweeps.sql"),
    include_str!("../migrations/sqlite/0007_migrations.sql"),
    include_str!("../migrations/sqlite/0008_list_order.sql"),
    include_str!("../migrations/sqlite/0009_sealing.sql"),
    include_str!("../migrations/sqlite/0010_list_index.sql"),
    include_str!("../migrations/sqlite/0011_audit.sql"),
    include_str!("../migrations/sqlite/0012_notices_by_project.sql"),
    include_str!("../migrations/sqlite/0013_run_began.sql"),
    include_str!("../migrations/sqlite/0014_sessions.sql"),
    include_str!("../migrations/sqlite/0015_token_parents.sql"),
    include_str!("../migrations/sqlite/0016_scale.sql"),
    include_str!("../migrations/sqlite/0017_sync_pending.sql"),
];

type Response<T> = oneshot::Sender<Result<T>>;

enum Request {
    Execute(&'static str, Vec<Value>, Response<u64>),
    Query(&'static str, Vec<Value>, Response<Vec<Row>>),
    Commit(Response<()>),
}

type RequestSender = mpsc::Receiver<Request>;

/// The SQLite backend.
#[derive(Debug)]
pub struct Sqlite {
    writer: mpsc::Sender<RequestSender>,
    /// Whichever reader is free takes the next transaction.
    readers: mpsc::Sender<RequestSender>,
    _lock: File,
}

fn failed(e: rusqlite::Error) -> Error {
    let kind = match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Kind::NoSpace,
        Some(rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::CannotOpen) => Kind::ReadOnly,
        Some(rusqlite::ErrorCode::ConstraintViolation) => Kind::Conflict,
        _ => Kind::Internal,
    };
    Error::new(kind, "store", e.to_string())
}

fn gone() -> Error {
    Error::new(Kind::Internal, "store", "the database thread has stopped")
}

impl Sqlite {
    /// Opens or makes `whimbrel.db` in `data_dir` and brings its schema up to date.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when another process has it open; [`Kind::Invalid`] for a newer schema.
    pub async fn open(data_dir: &Path) -> Result<Self> {
        make_dir(data_dir)?;
        let lock =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(data_dir.join("lock"));
        let lock = lock.map_err(|e| open_failure(data_dir, &e))?;
        lock.try_lock().map_err(|_| {
            let m = format!(
                "{} is in use by another whimbrel process; hint: stop it or choose another directory",
                data_dir.display()
            );
            Error::new(Kind::Conflict, "store", m)
        })?;
        let path = data_dir.join("whimbrel.db");
        let mut writer = Connection::open(&path).map_err(failed)?;
        restrict(&path);
        let setup = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA busy_timeout=5000;";
        writer.execute_batch(setup).map_err(failed)?;
        migrate(&mut writer)?;
        let (readers, queue) = queue();
        for _ in 0..READERS {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let reader = Connection::open_with_flags(&path, flags).map_err(failed)?;
            reader.execute_batch("PRAGMA busy_timeout=5000;").map_err(failed)?;
            serve(reader, "BEGIN DEFERRED", queue.clone())?;
        }
        let (writes, queue) = self::queue();
        serve(writer, "BEGIN IMMEDIATE", queue)?;
        Ok(Self { writer: writes, readers, _lock: lock })
    }
}

/// Runs one query on the database of a data directory; another process may have it open.
pub(crate) fn query_file(data_dir: &Path, sql: &str, args: &[Value]) -> Result<Vec<Row>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(data_dir.join("whimbrel.db"), flags).map_err(failed)?;
    db.execute_batch("PRAGMA busy_timeout=5000;").map_err(failed)?;
    query(&db, sql, args)
}

fn open_failure(data_dir: &Path, e: &std::io::Error) -> Error {
    let kind = match e.kind() {
        std::io::ErrorKind::StorageFull => Kind::NoSpace,
        std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => Kind::ReadOnly,
        _ => Kind::Internal,
    };
    Error::new(kind, "store", format!("{}: {e}", data_dir.display()))
}

/// The data directory. Object names are nobody else's business.
pub(crate) fn make_dir(data_dir: &Path) -> Result<()> {
    std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
        .create(data_dir)
        .map_err(|e| open_failure(data_dir, &e))
}

fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
}

fn migrate(db: &mut Connection) -> Result<()> {
    let have: usize = db.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(failed)?;
    if have > MIGRATIONS.len() {
        let m = format!(
            "the database has schema version {have}, this program supports up to {}; hint: use a newer program",
            MIGRATIONS.len()
        );
        return Err(Error::new(Kind::Invalid, "store", m));
    }
    for (i, sql) in MIGRATIONS.iter().enumerate().skip(have) {
        let tx = db.transaction().map_err(failed)?;
        tx.execute_batch(sql).map_err(failed)?;
        tx.pragma_update(None, "user_version", i + 1).map_err(failed)?;
        tx.commit().map_err(failed)?;
    }
    Ok(())
}

/// Conversations that wait for a thread. The thread that waits for the next one holds the lock.
type Queue = Arc<Mutex<mpsc::Receiver<RequestSender>>>;

fn queue() -> (mpsc::Sender<RequestSender>, Queue) {
    let (talks, queue) = mpsc::channel(64);
    (talks, Arc::new(Mutex::new(queue)))
}

/// Starts a thread that holds one connection and has one conversation at a time.
fn serve(db: Connection, begin: &'static str, queue: Queue) -> Result<()> {
    let next = move || queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
    let run = move || {
        db.set_prepared_statement_cache_capacity(128);
        while let Some(mut talk) = next() {
            let begun = db.execute_batch(begin).map_err(failed);
            let mut open = begun.is_ok();
            while let Some(ask) = talk.blocking_recv() {
                let ready = begun.clone();
                match ask {
                    Request::Execute(sql, args, answer) => {
                        let _ = answer.send(ready.and_then(|()| execute(&db, sql, &args)));
                    }
                    Request::Query(sql, args, answer) => {
                        let _ = answer.send(ready.and_then(|()| query(&db, sql, &args)));
                    }
                    Request::Commit(answer) => {
                        let done = ready.and_then(|()| db.execute_batch("COMMIT").map_err(failed));
                        open = open && done.is_err();
                        let _ = answer.send(done);
                        break;
                    }
                }
            }
            if open {
                let _ = db.execute_batch("ROLLBACK");
            }
        }
    };
    let thread = std::thread::Builder::new().name("store".into()).spawn(run);
    thread.map(drop).map_err(|e| Error::new(Kind::Internal, "store", e.to_string()))
}

fn bind<'c>(db: &'c Connection, sql: &str, args: &[Value]) -> Result<rusqlite::CachedStatement<'c>> {
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    for (i, value) in args.iter().enumerate() {
        let Some(at) = statement.parameter_index(&format!("${}", i + 1)).map_err(failed)? else { continue };
        let bound = match value {
            Value::Null => statement.raw_bind_parameter(at, rusqlite::types::Null),
            Value::Int(v) => statement.raw_bind_parameter(at, v),
            Value::Text(v) => statement.raw_bind_parameter(at, v),
            Value::Blob(v) => statement.raw_bind_parameter(at, v),
        };
        bound.map_err(failed)?;
    }
    Ok(statement)
}

fn execute(db: &Connection, sql: &str, args: &[Value]) -> Result<u64> {
    bind(db, sql, args)?.raw_execute().map(|n| n as u64).map_err(failed)
}

fn query(db: &Connection, sql: &str, args: &[Value]) -> Result<Vec<Row>> {
    let mut statement = bind(db, sql, args)?;
    let width = statement.column_count();
    let mut rows = statement.raw_query();
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let mut values = Vec::with_capacity(width);
        for i in 0..width {
            values.push(match row.get_ref(i).map_err(failed)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(v) => Value::Int(v),
                ValueRef::Real(v) => Value::Int(v as i64),
                ValueRef::Text(v) => Value::Text(String::from_utf8_lossy(v).into_owned()),
                ValueRef::Blob(v) => Value::Blob(v.to_vec()),
            });
        }
        out.push(Row(values));
    }
    Ok(out)
}

#[async_trait]
impl Backend for Sqlite {
    async fn begin(&self, mode: Mode) -> Result<Box<dyn Transaction>> {
        let (ask, talk) = mpsc::channel(1);
        let thread = if mode == Mode::Read { &self.readers } else { &self.writer };
        thread.send(talk).await.map_err(|_| gone())?;
        Ok(Box::new(Tx(ask)))
    }
}

struct Tx(mpsc::Sender<Request>);

impl Tx {
    async fn request<T>(&self, ask: impl FnOnce(Response<T>) -> Request) -> Result<T> {
        let (tx, rx) = oneshot::channel();
        self.0.send(ask(tx)).await.map_err(|_| gone())?;
        rx.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl Transaction for Tx {
    async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64> {
        self.request(|answer| Request::Execute(sql, args, answer)).await
    }

    async fn query(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>> {
        self.request(|answer| Request::Query(sql, args, answer)).await
    }

    async fn commit(self: Box<Self>, _wake: bool) -> Result<()> {
        // No other process has this database open.
        self.request(Request::Commit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn h3_readers_that_are_busy_delay_no_other_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let db = Sqlite::open(dir.path()).await.unwrap();
        let mut busy = Vec::new();
        for _ in 1..READERS {
            let mut tx = db.begin(Mode::Read).await.unwrap();
            tx.query("SELECT 1", vec![]).await.unwrap();
            busy.push(tx);
        }
        for _ in 0..2 * READERS {
            let mut tx = db.begin(Mode::Read).await.unwrap();
            assert_eq!(tx.query("SELECT 1", vec![]).await.unwrap().len(), 1);
        }
    }
}
