//! Transactions at the target: what opens, fills and closes one, and the checkpoint that each of them carries.

use super::{
    Applier, OpenTransaction, PendingSets, SET_HEADER, SET_VALUE_MAX, SETS_PER_MSET, TRANSACTION_BYTES,
    TRANSACTION_COMMANDS,
};
use crate::checkpoint::Checkpoint;
use crate::source::psync::Position;
use crate::target::pipeline::PendingReply;

impl Applier {
    /// Takes back what was written of a transaction that will not end; the source sends it again.
    pub fn abandon(&mut self, out: &mut Vec<u8>) {
        self.sets.count = 0;
        if let Some(open) = self.open.take() {
            out.truncate(open.start);
            // Until somebody says where the connection is, what it had selected is not known.
            self.selected = None;
        }
        self.in_source_transaction = false;
    }

    /// True when the transaction should be closed.
    pub fn is_full(&self, out: &[u8]) -> bool {
        let full = |open: OpenTransaction| {
            open.replies >= TRANSACTION_COMMANDS || out.len().saturating_sub(open.start) >= TRANSACTION_BYTES
        };
        !self.in_source_transaction && self.open.is_some_and(full)
    }

    /// True when commands wait for the end of their transaction.
    pub fn is_open(&self) -> bool {
        self.open.is_some() || self.in_source_transaction
    }

    fn begin_transaction(&mut self, out: &mut Vec<u8>) {
        if self.open.is_none() && !self.changes_only {
            self.open = Some(OpenTransaction { start: out.len(), replies: 1 });
            out.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
        }
    }

    /// A server checks the number of a database only when the transaction is executed, and then goes on in the one
    /// before: no database is used that nobody has seen.
    pub(super) fn require_db(&mut self, db: u32) {
        if !self.changes_only && !self.known_dbs.contains(&db) && !self.dbs_to_verify.contains(&db) {
            self.dbs_to_verify.push(db);
        }
    }

    /// What was to be proven is there.
    pub(crate) fn confirm_dbs(&mut self) {
        self.known_dbs.extend(self.dbs_to_verify.drain(..));
    }

    fn count_reply(&mut self) {
        if let Some(open) = &mut self.open {
            open.replies += 1;
        }
    }

    fn select(&mut self, db: u32, out: &mut Vec<u8>) {
        if self.selected != Some(db) || self.open.is_none() {
            self.flush_sets(out);
        }
        self.begin_transaction(out);
        if self.selected != Some(db) && !self.changes_only {
            self.require_db(db);
            redis_proto::resp::command(out, &[b"SELECT", db.to_string().as_bytes()]);
            self.selected = Some(db);
            self.count_reply();
        }
    }

    pub(super) fn write(&mut self, db: u32, raw: &[u8], out: &mut Vec<u8>) {
        self.select(db, out);
        self.commands += 1;
        let set =
            raw.split_at_checked(SET_HEADER.len()).filter(|(head, _)| head.eq_ignore_ascii_case(SET_HEADER));
        match set.filter(|(_, pair)| pair.len() <= SET_VALUE_MAX && !self.changes_only) {
            Some((_, pair)) => {
                if self.sets.count == 0 {
                    self.sets.start = out.len();
                    self.count_reply();
                }
                out.extend_from_slice(pair);
                self.sets.count += 1;
                if self.sets.count == SETS_PER_MSET {
                    self.flush_sets(out);
                }
            }
            None => {
                self.flush_sets(out);
                out.extend_from_slice(raw);
                self.count_reply();
            }
        }
    }

    /// What the `SET`s so far become stands before their keys and values.
    fn flush_sets(&mut self, out: &mut Vec<u8>) {
        let PendingSets { start, count } = std::mem::take(&mut self.sets);
        match count {
            0 => {}
            1 => drop(out.splice(start..start, SET_HEADER.iter().copied())),
            _ => {
                let head = format!("*{}\r\n$4\r\nMSET\r\n", 1 + 2 * count);
                drop(out.splice(start..start, head.into_bytes()));
            }
        }
    }

    /// The same of what is no change of the source's; nothing where there are no words.
    pub(super) fn append_internal(&mut self, db: u32, args: &[&[u8]], out: &mut Vec<u8>) {
        if !args.is_empty() {
            self.write_args(db, args, out);
            self.commands -= 1;
        }
    }

    pub(super) fn write_args(&mut self, db: u32, args: &[&[u8]], out: &mut Vec<u8>) {
        self.select(db, out);
        self.flush_sets(out);
        redis_proto::resp::command(out, args);
        self.count_reply();
        self.commands += 1;
    }

    /// Commands that stand in bytes already.
    pub(super) fn write_built(&mut self, db: u32, bytes: &[u8], count: u64, out: &mut Vec<u8>) {
        if count == 0 {
            return;
        }
        self.select(db, out);
        self.flush_sets(out);
        out.extend_from_slice(bytes);
        for _ in 0..count {
            self.count_reply();
        }
        self.commands += count;
    }

    /// Ends the transaction, if there is one that may end: what is to be expected of it, and how long it is, bytes.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Option<(PendingReply, usize)> {
        if self.in_source_transaction || self.open.is_none() {
            return None;
        }
        self.flush_sets(out);
        if let Some(names) = &self.names {
            let position = Position { replid: self.replid.clone(), offset: self.offset };
            let (key, text) = (names.checkpoint.clone(), Checkpoint::Applied(position, self.db, None).text());
            self.select(0, out);
            redis_proto::resp::command(out, &[b"SET", &key, text.as_bytes()]);
            self.count_reply();
        }
        let open = self.open.take()?;
        out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
        Some((
            PendingReply::Transaction { replies: open.replies + 1, offset: self.offset },
            out.len() - open.start,
        ))
    }
}
