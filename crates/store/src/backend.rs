//! What a database must be able to do for the store: begin transactions of three modes, run SQL, tell of changes.
//!
//! | mode | what for | with others of its mode | on PostgreSQL |
//! |---|---|---|---|
//! | [`Mode::Read`] | pages and numbers that agree with each other | at once | one snapshot, read only |
//! | [`Mode::Change`] | what the API, the scheduler and the end of a task decide | one after another, in all processes | an advisory lock |
//! | [`Mode::Work`] | what the holder of a lease writes about it | at once | rows are guarded by their fences |
//!
//! SQLite has one writer, so both modes that write are the same there.
//!
//! Decision: ADR 0015, `docs/adr/0015-changes-one-after-another.md`.

use async_trait::async_trait;
use model::error::Result;

use crate::{Row, Value};

/// What a transaction is begun for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To read one state of the database.
    Read,
    /// To read and write, with no other change in between.
    Change,
    /// To write under a lease: each statement or the first of them says which, and changes nothing without it.
    Work,
}

/// Runs SQL; knows no table.
#[async_trait]
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// Begins a transaction.
    async fn begin(&self, mode: Mode) -> Result<Box<dyn Transaction>>;
    /// The time of the database, milliseconds; none where it is that of this machine.
    async fn now_ms(&self) -> Result<Option<i64>> {
        Ok(None)
    }
}

/// An open transaction; dropped without commit, it is rolled back.
#[async_trait]
pub trait Transaction: Send {
    /// Runs a statement and gives the number of rows it changed.
    async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64>;
    /// Runs a query. Bounded by its own LIMIT, or by what one task can have.
    async fn query(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>>;
    /// Makes it durable. With `wake`, other processes on the same database are told that something changed.
    async fn commit(self: Box<Self>, wake: bool) -> Result<()>;
}
