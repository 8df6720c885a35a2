//! Pure: operations become transactions at one server, each with the checkpoint of the stream.
//!
//! ```text
//! MULTI ─ SELECT ─ commands … ─ SELECT 0 ─ SET checkpoint ─ EXEC
//! ```

use std::collections::BTreeSet;

use redis_proto::resp::{command, text};

use crate::checkpoint::keys::KeyNames;
use crate::operation::{
    CommandForm, Operation, ServerCommand, encode_cleared, encode_suspects, encode_swapped,
};
use crate::target::functions::LibraryCommand;

/// Commands of one transaction; the source's own transactions are never divided.
const TRANSACTION_COMMANDS: u64 = 500;
/// Bytes of one transaction.
const TRANSACTION_BYTES: usize = 256 << 10;
/// Commands of one `MSET`.
const SETS_PER_MSET: u64 = 64;
/// A key and a value that are longer than this together are not sent within an `MSET`, bytes.
pub(crate) const SET_VALUE_MAX: usize = 4 << 10;

/// What is sent around the operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Grouping {
    /// Transactions.
    #[default]
    Transactions,
    /// Nothing: the target has no transactions, and one database.
    Single,
}

/// A transaction that is being written.
#[derive(Clone, Debug)]
struct OpenTransaction {
    /// Where it begins in the buffer.
    start: usize,
    /// Replies that come before that of its `EXEC`.
    replies: u64,
    /// Which of them are to `SELECT`.
    selects: Vec<u64>,
}

/// A transaction that is complete in the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClosedTransaction {
    /// Its replies, those to `MULTI` and `EXEC` included.
    pub(crate) replies: u64,
    /// Its length, bytes. It is the end of the buffer.
    pub(crate) bytes: usize,
    /// Which of its replies are to `SELECT`.
    pub(crate) selects: Vec<u64>,
}

/// Consecutive `SET`s without options: sent as one `MSET` they cost the target half.
#[derive(Clone, Copy, Debug, Default)]
struct PendingSets {
    /// Where the first of their keys begins in the buffer.
    start: usize,
    count: u64,
}

/// Writes operations into the buffer of a connection to one server.
#[derive(Debug, Default)]
pub(crate) struct TransactionEncoder {
    grouping: Grouping,
    /// None: nothing is kept at the target, as for an import.
    names: Option<KeyNames>,
    /// Commands about libraries are executed outside of transactions.
    separates_libraries: bool,
    /// The database of the connection, when everything that was written is executed; none: not known.
    selected: Option<u32>,
    /// Databases of the target that are known to exist.
    known_dbs: BTreeSet<u32>,
    /// Databases that the open transaction also needs: to be verified before it is sent.
    pub(crate) dbs_to_verify: Vec<u32>,
    open: Option<OpenTransaction>,
    /// The open transaction may remove the checkpoint itself, as `FLUSHALL` does.
    removes_checkpoint: bool,
    sets: PendingSets,
    /// Within a transaction of the source.
    in_source_transaction: bool,
    /// A command about libraries: everything before it is applied first.
    pub(crate) barrier: Option<LibraryCommand>,
}

impl TransactionEncoder {
    /// Begins; `names` are those of the keys that the migration keeps at the target, if it keeps any.
    pub(crate) fn new(grouping: Grouping, names: Option<KeyNames>, separates_libraries: bool) -> Self {
        Self { grouping, names, separates_libraries, known_dbs: BTreeSet::from([0]), ..Self::default() }
    }

    /// Removes the part of a transaction that will not end; the source sends it again.
    pub(crate) fn abandon(&mut self, out: &mut Vec<u8>) {
        (self.sets.count, self.removes_checkpoint) = (0, false);
        if let Some(open) = self.open.take() {
            out.truncate(open.start);
            // Its `SELECT`s are not sent.
            self.selected = None;
        }
        self.in_source_transaction = false;
    }

    /// True when the transaction should be closed.
    pub(crate) fn is_full(&self, out: &[u8]) -> bool {
        let full = |open: &OpenTransaction| {
            open.replies >= TRANSACTION_COMMANDS || out.len().saturating_sub(open.start) >= TRANSACTION_BYTES
        };
        !self.in_source_transaction && self.open.as_ref().is_some_and(full)
    }

    /// True when commands wait for the end of their transaction.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some() || self.in_source_transaction
    }

    /// True while what is in the buffer must not be sent.
    pub(crate) fn is_unsendable(&self) -> bool {
        self.grouping == Grouping::Transactions && self.is_open()
    }

    /// True when there is a transaction that may end.
    pub(crate) fn can_close(&self) -> bool {
        self.grouping == Grouping::Transactions && !self.in_source_transaction && self.open.is_some()
    }

    /// The connection was used for other commands, and is in this database; none: not known.
    pub(crate) fn set_selected(&mut self, db: Option<u32>) {
        self.selected = db;
    }

    /// The database of the connection behind the last transaction.
    pub(crate) fn selected(&self) -> Option<u32> {
        self.selected
    }

    /// The databases to be verified exist.
    pub(crate) fn confirm_dbs(&mut self) {
        self.known_dbs.extend(self.dbs_to_verify.drain(..));
    }

    /// Ends the transaction, if there is one that may end; the checkpoint is stored with it.
    pub(crate) fn close(&mut self, checkpoint: Option<&str>, out: &mut Vec<u8>) -> Option<ClosedTransaction> {
        if !self.can_close() {
            return None;
        }
        self.flush_sets(out);
        if let (Some(names), Some(checkpoint)) = (self.names.take(), checkpoint) {
            self.select(0, out);
            // Each transaction needs the checkpoint of the one before: somebody who flushes the target removes both.
            let words: [&[u8]; 4] = [b"SET", &names.checkpoint, checkpoint.as_bytes(), b"XX"];
            command(out, if std::mem::take(&mut self.removes_checkpoint) { &words[..3] } else { &words });
            self.count_replies(1);
            self.names = Some(names);
        }
        let open = self.open.take()?;
        out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
        Some(ClosedTransaction {
            replies: open.replies + 1,
            bytes: out.len() - open.start,
            selects: open.selects,
        })
    }

    /// Commands that were written without a transaction: their replies and their length, bytes.
    pub(crate) fn take_single(&mut self, out: &[u8]) -> Option<ClosedTransaction> {
        let open = self.open.take_if(|_| self.grouping == Grouping::Single)?;
        Some(ClosedTransaction { replies: open.replies, bytes: out.len() - open.start, selects: Vec::new() })
    }

    /// Writes the next operation.
    pub(crate) fn encode(&mut self, operation: Operation<'_>, out: &mut Vec<u8>) {
        match operation {
            Operation::Begin => self.in_source_transaction = true,
            Operation::End => self.in_source_transaction = false,
            Operation::RequireDb(db) => self.require_db(db),
            Operation::Set { db, key, value } => self.set(db, key, value, out),
            Operation::Data { db, command, name } => {
                self.removes_checkpoint |= matches!(name, b"SWAPDB" | b"EVAL" | b"EVALSHA" | b"FCALL");
                self.begin_command(db, out);
                command.encode(out);
            }
            Operation::Value { count: 0, .. } => {}
            Operation::Value { db, bytes, count, .. } => {
                self.begin_command(db, out);
                out.extend_from_slice(bytes);
                self.count_replies(count - 1);
            }
            Operation::Server { db, command } => self.server(db, command, out),
            Operation::Internal { db, args, .. } => {
                self.begin_command(db, out);
                command(out, args);
            }
            other => self.expiry(other, out),
        }
    }

    /// Operations about keys that may expire early.
    fn expiry(&mut self, operation: Operation<'_>, out: &mut Vec<u8>) {
        let Some(names) = self.names.take() else { return };
        let list = &names.suspects;
        match operation {
            Operation::Check { db, check } => {
                self.begin_command(db, out);
                check.encode(db, list, &[], out);
            }
            Operation::CheckedChange { db, check, change } => {
                self.begin_command(db, out);
                check.encode(db, list, change, out);
            }
            Operation::Suspect { key_refs, always_refetch } => {
                self.begin_command(0, out);
                encode_suspects(list, key_refs, always_refetch, out);
            }
            Operation::ClearSuspects(key_refs) => {
                self.begin_command(0, out);
                encode_cleared(list, key_refs, out);
            }
            Operation::SwapSuspects(a, b) => {
                self.begin_command(0, out);
                encode_swapped(list, (a, b), out);
            }
            _ => {}
        }
        self.names = Some(names);
    }

    fn server(&mut self, db: Option<u32>, command: ServerCommand<'_>, out: &mut Vec<u8>) {
        let db = db.or(self.selected).unwrap_or(0);
        match command {
            ServerCommand::Libraries(library)
                if self.separates_libraries
                    && self.grouping == Grouping::Transactions
                    && !self.in_source_transaction =>
            {
                self.barrier = Some(library.clone());
            }
            ServerCommand::Libraries(library) => {
                self.begin_command(db, out);
                CommandForm::Built(&library.args()).encode(out);
            }
            ServerCommand::Flush(command) | ServerCommand::Scripts(command) => {
                self.removes_checkpoint = true;
                self.begin_command(db, out);
                command.encode(out);
            }
        }
    }

    fn begin_transaction(&mut self, out: &mut Vec<u8>) {
        if self.open.is_none() {
            let in_transaction = self.grouping == Grouping::Transactions;
            let (start, replies) = (out.len(), u64::from(in_transaction));
            self.open = Some(OpenTransaction { start, replies, selects: Vec::new() });
            if in_transaction {
                out.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
            }
        }
    }

    /// A server checks the number of a database only when the transaction is executed, and continues in the one before:
    /// a database is used only after it was verified.
    fn require_db(&mut self, db: u32) {
        let may_select = self.grouping == Grouping::Transactions;
        if may_select && !self.known_dbs.contains(&db) && !self.dbs_to_verify.contains(&db) {
            self.dbs_to_verify.push(db);
        }
    }

    fn count_replies(&mut self, count: u64) {
        if let Some(open) = &mut self.open {
            open.replies += count;
        }
    }

    fn select(&mut self, db: u32, out: &mut Vec<u8>) {
        if self.selected != Some(db) || self.open.is_none() {
            self.flush_sets(out);
        }
        self.begin_transaction(out);
        if self.selected != Some(db) && self.grouping == Grouping::Transactions {
            self.require_db(db);
            command(out, &[b"SELECT", db.to_string().as_bytes()]);
            self.selected = Some(db);
            if let Some(open) = &mut self.open {
                open.selects.push(open.replies);
                open.replies += 1;
            }
        }
    }

    /// A command with one reply follows.
    fn begin_command(&mut self, db: u32, out: &mut Vec<u8>) {
        self.select(db, out);
        self.flush_sets(out);
        self.count_replies(1);
    }

    fn set(&mut self, db: u32, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if self.grouping == Grouping::Single || key.len() + value.len() > SET_VALUE_MAX {
            self.begin_command(db, out);
            return command(out, &[b"SET", key, value]);
        }
        self.select(db, out);
        if self.sets.count == 0 {
            self.sets.start = out.len();
            self.count_replies(1);
        }
        text(out, key);
        text(out, value);
        self.sets.count += 1;
        if self.sets.count == SETS_PER_MSET {
            self.flush_sets(out);
        }
    }

    /// Inserts the header of the command that the `SET`s so far become before their keys and values.
    fn flush_sets(&mut self, out: &mut Vec<u8>) {
        let PendingSets { start, count } = std::mem::take(&mut self.sets);
        match count {
            0 => {}
            1 => drop(out.splice(start..start, *b"*3\r\n$3\r\nSET\r\n")),
            _ => {
                let head = format!("*{}\r\n$4\r\nMSET\r\n", 1 + 2 * count);
                drop(out.splice(start..start, head.into_bytes()));
            }
        }
    }
}

/// An encoder and the buffer that it writes to.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct EncodedTransactions {
    pub(crate) encoder: TransactionEncoder,
    pub(crate) out: Vec<u8>,
}

#[cfg(test)]
impl crate::operation::Encoder for EncodedTransactions {
    fn push(&mut self, operation: Operation<'_>) -> model::error::Result<()> {
        self.encoder.encode(operation, &mut self.out);
        Ok(())
    }
}
