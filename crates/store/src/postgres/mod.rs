//! The backend for several processes: PostgreSQL 13 or later.
//!
//! Statements are sent unnamed, in one round trip each, so that a pgbouncer in transaction mode may stand between. Nothing
//! depends on the session: locks are those of a transaction. Only `listen` needs a connection of its own, which
//! `database_direct` may name.
//!
//! Decision: ADR 0015, `docs/adr/0015-changes-one-after-another.md`.

mod error;
pub(crate) mod listen;
mod pool;
pub mod schema;
mod values;

use async_trait::async_trait;
use model::error::Result;

use crate::{Backend, Mode, Row, Transaction, Value};
use error::failed;
use pool::{Pool, Pooled};

/// Connections for requests and changes.
const CONNECTIONS: usize = 8;
/// Connections for the work of leases, which a burst of requests cannot take.
const WORK_CONNECTIONS: usize = 4;

/// Key of the advisory lock of changes: `wbchange` as a number.
const CHANGE_LOCK: i64 = 0x7762_6368_616e_6765;

/// The name of the channel that tells of changes.
const CHANNEL: &str = "whimbrel";

/// The PostgreSQL backend.
#[derive(Debug)]
pub struct Postgres {
    pool: Pool,
    work: Pool,
}

impl Postgres {
    /// A backend for the database of a `postgres://` URL. Connects once.
    ///
    /// # Errors
    /// When the URL cannot be read, or the database cannot be reached.
    pub async fn connect(url: &str) -> Result<Self> {
        let target = pool::Target::parse(url)?;
        let backend =
            Self { pool: Pool::new(target.clone(), CONNECTIONS), work: Pool::new(target, WORK_CONNECTIONS) };
        drop(backend.pool.get().await?);
        Ok(backend)
    }
}

/// Where a listener connects to.
pub(crate) fn target(url: &str) -> Result<pool::Target> {
    pool::Target::parse(url)
}

/// The statements that begin a transaction. The snapshot of a change must be younger than its lock: at READ COMMITTED each
/// statement has its own.
fn begin_sql(mode: Mode) -> String {
    match mode {
        Mode::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(),
        Mode::Change => {
            format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = 5000; \
             SET LOCAL lock_timeout = 10000; SELECT pg_advisory_xact_lock({CHANGE_LOCK})"
            )
        }
        Mode::Work => "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned(),
    }
}

#[async_trait]
impl Backend for Postgres {
    async fn begin(&self, mode: Mode) -> Result<Box<dyn Transaction>> {
        let pool = if mode == Mode::Work { &self.work } else { &self.pool };
        let connection = pool.get().await?;
        // A cancelled begin leaves a connection in an unknown state: it is only returned from a known one.
        let mut tx = Tx { connection: Some(connection) };
        tx.batch(&begin_sql(mode)).await?;
        Ok(Box::new(tx))
    }

    async fn now_ms(&self) -> Result<Option<i64>> {
        let mut tx = self.begin(Mode::Work).await?;
        let sql = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT";
        let rows = tx.query(sql, vec![]).await?;
        rows.first().map(|row| row.int(0)).transpose()
    }
}

struct Tx {
    connection: Option<Pooled>,
}

impl Tx {
    fn client(&self) -> Result<&tokio_postgres::Client> {
        self.connection.as_deref().ok_or_else(error::gone)
    }

    async fn batch(&mut self, sql: &str) -> Result<()> {
        self.client()?.batch_execute(sql).await.map_err(|e| failed(&e))
    }
}

#[async_trait]
impl Transaction for Tx {
    async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64> {
        let bound = values::Bound::new(args);
        self.client()?.execute_typed(sql, &bound.params()).await.map_err(|e| failed(&e))
    }

    async fn query(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>> {
        let bound = values::Bound::new(args);
        let rows = self.client()?.query_typed(sql, &bound.params()).await.map_err(|e| failed(&e))?;
        rows.iter().map(values::row).collect()
    }

    async fn commit(mut self: Box<Self>, wake: bool) -> Result<()> {
        // The commit itself sends the message: nothing is sent for a transaction that fails.
        let sql = match wake {
            true => format!("SELECT pg_notify('{CHANNEL}', ''); COMMIT"),
            false => "COMMIT".to_owned(),
        };
        let done = self.client()?.batch_execute(&sql).await;
        match done {
            Ok(()) => {
                if let Some(connection) = self.connection.take() {
                    connection.give_back();
                }
                Ok(())
            }
            Err(e) => Err(error::commit_failed(&e)),
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let (Some(connection), Ok(runtime)) = (self.connection.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            // Whatever the connection was doing, its statements are answered in order.
            let ended = tokio::time::timeout(pool::TIMEOUT, connection.batch_execute("ROLLBACK")).await;
            if let Ok(Ok(())) = ended {
                connection.give_back();
            }
        });
    }
}
