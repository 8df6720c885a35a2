//! One connection that is kept full: commands go out in large writes, answers are counted by the other half.

mod replies;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::Commands;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use crate::checkpoint::Checkpoint;
use crate::connection::client::{Client, KEEP_ALIVE_INTERVAL, Outgoing};
use crate::connection::reply_error::{ReplyError, classify, reply_failure};
use crate::operation::{Encoder, Operation};
use crate::target::replies::diverged;
use crate::target::transaction::{Grouping, TransactionEncoder};
use replies::read;

/// One write is about this long.
const WRITE_BYTES: usize = 256 << 10;
/// Bytes that may be sent and not answered.
const UNANSWERED_MAX: u64 = 8 << 20;
/// Keys that failed alone and are named.
pub const FAILED_MAX: usize = 1000;
/// Bytes of one read of replies.
const READ_BYTES: usize = 64 << 10;

/// What an answer is about.
#[derive(Debug)]
pub enum PendingReply {
    /// A key of the snapshot; a key that exists already is not an error if it is to be skipped.
    Key {
        /// Its name, for messages.
        key: Box<[u8]>,
        /// `BUSYKEY` means that it is skipped.
        may_exist: bool,
        /// The target may refuse what it holds: it fails alone.
        may_fail: bool,
    },
    /// So many keys of the snapshot that were written by one command.
    Keys(u64),
    /// A command of several that make one key of the snapshot.
    KeyPart {
        /// Its name, for messages.
        key: Arc<[u8]>,
    },
    /// Something whose error ends the migration.
    Required(&'static str),
    /// A change that was sent alone; the stream is applied up to here.
    Change {
        /// Offset in the source's stream.
        offset: u64,
    },
    /// So many answers of commands of a file, sent as one transaction. One that is refused is counted, as a server does that
    /// loads the file.
    ImportBatch {
        /// Answers, those to `MULTI` and `EXEC` included.
        replies: u64,
        /// As it was sent.
        sent: Box<[u8]>,
        /// Which answers are to `SELECT`: none of them may be refused.
        selects: Vec<u64>,
    },
    /// So many answers of a transaction, the last of which is that of its `EXEC`; then the stream is applied up to here.
    Transaction {
        /// Answers, those to `MULTI` and `EXEC` included.
        replies: u64,
        /// Offset in the source's stream.
        offset: u64,
    },
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<(PendingReply, u32)>,
    /// Keys that failed alone, and why; the first of them.
    failed: Vec<String>,
    failure: Option<Error>,
}

/// What both halves share.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    unanswered: AtomicU64,
    answered: Notify,
    /// Keys of the snapshot that are there.
    pub keys: AtomicU64,
    /// Keys that existed before and are skipped.
    pub skipped_existing: AtomicU64,
    /// Commands of a file that the target refused.
    pub refused: AtomicU64,
    /// Offset up to which the stream is applied.
    pub applied: Arc<AtomicU64>,
}

impl Shared {
    /// Nothing is counted yet.
    pub fn new(applied: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            unanswered: AtomicU64::new(0),
            answered: Notify::new(),
            keys: AtomicU64::new(0),
            skipped_existing: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            applied,
        })
    }

    /// Counts what became of a command of a snapshot.
    ///
    /// # Errors
    /// What ends the migration.
    pub(crate) fn record_reply(
        &self,
        url: &str,
        pending_reply: &PendingReply,
        error: Option<&str>,
    ) -> Result<()> {
        match (pending_reply, error) {
            (PendingReply::Key { .. }, None) => {
                self.keys.fetch_add(1, Ordering::Relaxed);
            }
            (PendingReply::Key { may_exist: true, .. }, Some(text))
                if classify(text) == ReplyError::KeyExists =>
            {
                self.skipped_existing.fetch_add(1, Ordering::Relaxed);
            }
            (PendingReply::Key { key, may_fail, .. }, Some(text)) => {
                let failure = reply_failure(url, "restore", text);
                let m = format!("key `{}`: {}", String::from_utf8_lossy(key), failure.message);
                if !may_fail {
                    return Err(Error { message: m, ..failure });
                }
                self.record_failed(m);
            }
            (PendingReply::Keys(n), None) => {
                self.keys.fetch_add(*n, Ordering::Relaxed);
            }
            (PendingReply::Keys(_), Some(text)) => return Err(reply_failure(url, "restore", text)),
            (PendingReply::Change { offset }, None) => self.applied.store(*offset, Ordering::Release),
            (PendingReply::Change { .. }, Some(text)) => {
                let passes = classify(text).is_transient();
                return Err(if passes { reply_failure(url, "apply", text) } else { diverged(url, text) });
            }
            (PendingReply::KeyPart { key }, Some(text)) => {
                let failure = reply_failure(url, "rebuild", text);
                let m = format!("key `{}`: {}", String::from_utf8_lossy(key), failure.message);
                return Err(Error { message: m, ..failure });
            }
            (PendingReply::Required(op), Some(text)) => return Err(reply_failure(url, op, text)),
            _ => {}
        }
        Ok(())
    }

    /// Counts commands of a file, sent as one transaction, that the target refused (place in it, `MULTI` being 0, and why). The
    /// bytes that were sent are read only to name them.
    ///
    /// # Errors
    /// For a refusal that has to do with the target and not with the command: others would be refused too.
    pub(crate) fn record_refused(
        &self,
        url: &str,
        sent: &[u8],
        selects: &[u64],
        errors: &[(usize, String)],
    ) -> Result<()> {
        let mut commands = Commands::starting_at(0);
        commands.push(sent);
        let mut at = 0;
        let mut errors = errors.iter().peekable();
        while let (Some((i, text)), Ok(Some(command))) = (errors.peek(), commands.next_command()) {
            if at == *i {
                let failure = reply_failure(url, "import", text);
                let word =
                    |n: usize| String::from_utf8_lossy(command.arg(n).unwrap_or_default()).into_owned();
                let m = format!("`{} {}`: {}", word(0), word(1), failure.message);
                let alone = matches!(failure.kind, Kind::Invalid | Kind::Unsupported | Kind::Conflict);
                if !alone || selects.contains(&(at as u64)) {
                    return Err(Error { message: m, ..failure });
                }
                self.refused.fetch_add(1, Ordering::Relaxed);
                self.record_failed(m);
                errors.next();
            }
            at += 1;
        }
        Ok(())
    }

    /// Names what failed alone.
    fn record_failed(&self, what: String) {
        let mut state = self.state();
        if state.failed.len() < FAILED_MAX {
            state.failed.push(what);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn fail(&self, failure: Error) {
        self.state().failure.get_or_insert(failure);
        self.answered.notify_waiters();
        self.answered.notify_one();
    }

    /// Keys that failed alone, and why: the first [`FAILED_MAX`] of them.
    pub fn failed(&self) -> Vec<String> {
        self.state().failed.clone()
    }

    /// Fails when something has ended the work.
    ///
    /// # Errors
    /// That.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.state().failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }
}

/// The sending half.
pub struct Pipeline {
    out: Vec<u8>,
    outgoing: Outgoing,
    url: String,
    /// When something was last sent.
    last_write_at: Instant,
    /// The database that the next command is about; none: not known.
    pub(crate) db: Option<u32>,
    /// Writes the changes of a stream.
    pub(crate) changes: Box<TransactionEncoder>,
    /// What both halves know.
    pub shared: Arc<Shared>,
    reader: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pipeline({})", self.url)
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Pipeline {
    /// Takes over a connection that is signed in and has no answers to come.
    pub fn new(client: Client, applied: Arc<AtomicU64>) -> Self {
        let url = client.display_url().to_owned();
        let (incoming, outgoing, _) = client.into_parts();
        let shared = Shared::new(applied);
        let reader = tokio::spawn(read(incoming, shared.clone(), url.clone()));
        Self {
            out: Vec::with_capacity(2 * WRITE_BYTES),
            outgoing,
            url,
            last_write_at: Instant::now(),
            db: Some(0),
            changes: Box::new(TransactionEncoder::new(Grouping::Transactions, None, false)),
            shared,
            reader,
        }
    }

    /// Where commands are written; each is to be followed by [`Pipeline::push_pending`].
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Says what the answer to what was written since is about; `bytes` is how long that was.
    pub fn push_pending(&self, pending_reply: PendingReply, bytes: usize) {
        self.shared.unanswered.fetch_add(bytes as u64, Ordering::AcqRel);
        self.shared.state().pending.push_back((pending_reply, u32::try_from(bytes).unwrap_or(u32::MAX)));
    }

    /// Ends the open transaction of the stream, if it may end. `checkpoint` is stored with it; then the stream is applied up
    /// to `offset`.
    pub(crate) fn close_transaction(&mut self, checkpoint: impl FnOnce() -> Option<Checkpoint>, offset: u64) {
        if !self.changes.can_close() {
            return;
        }
        let text = checkpoint().map(|checkpoint| checkpoint.text());
        if let Some(closed) = self.changes.close(text.as_deref(), &mut self.out) {
            self.push_pending(PendingReply::Transaction { replies: closed.replies, offset }, closed.bytes);
            self.db = self.changes.selected();
        }
    }

    /// The same for commands of a file, of which each may be refused.
    pub(crate) fn close_import_batch(&mut self) {
        if let Some(closed) = self.changes.close(None, &mut self.out) {
            // An open transaction is not sent in parts: all of it is still there.
            let sent = self.out[self.out.len().saturating_sub(closed.bytes)..].into();
            let (replies, selects) = (closed.replies, closed.selects);
            self.push_pending(PendingReply::ImportBatch { replies, sent, selects }, closed.bytes);
            self.db = self.changes.selected();
        }
    }

    /// Expects the replies to commands that were written without a transaction; the last ends at an offset of the stream.
    pub(crate) fn push_pending_single(&mut self, offset: u64) {
        let Some(written) = self.changes.take_single(&self.out) else { return };
        for i in 0..written.replies {
            let bytes = if i == 0 { written.bytes } else { 0 };
            self.push_pending(PendingReply::Change { offset }, bytes);
        }
    }

    /// Removes the part of a transaction of the stream that will not end.
    pub(crate) fn abandon(&mut self) {
        self.changes.abandon(&mut self.out);
    }

    /// True when the open transaction of the stream should be closed.
    pub(crate) fn is_transaction_full(&self) -> bool {
        self.changes.is_full(&self.out)
    }

    /// Sends what was written when that is enough, and waits while too much is unanswered.
    ///
    /// # Errors
    /// An error reply of the target, or an error of the connection.
    pub async fn apply_backpressure(&mut self) -> Result<()> {
        if self.out.len() >= WRITE_BYTES {
            self.send().await?;
        }
        while self.shared.unanswered.load(Ordering::Acquire) > UNANSWERED_MAX {
            self.send().await?;
            self.wait_until(|shared| shared.unanswered.load(Ordering::Acquire) <= UNANSWERED_MAX / 2).await?;
        }
        Ok(())
    }

    /// Sends what was written.
    ///
    /// # Errors
    /// As [`Pipeline::apply_backpressure`].
    pub async fn send(&mut self) -> Result<()> {
        self.shared.check()?;
        if !self.out.is_empty() {
            let written = self.outgoing.write_all(&self.out).await;
            if let Err(e) = written {
                self.shared.check()?;
                let m = format!("{}: connection lost: {e}", self.url);
                return Err(Error::new(Kind::Connect, "write", m).at(Side::Target));
            }
            self.last_write_at = Instant::now();
            self.out.clear();
            // A command that was very long leaves no buffer behind.
            if self.out.capacity() > 8 * WRITE_BYTES {
                self.out.shrink_to(2 * WRITE_BYTES);
            }
        }
        Ok(())
    }

    /// A sign of life while nothing is to be written, so that the target does not close the connection. Not while a
    /// transaction of the stream is open.
    ///
    /// # Errors
    /// As [`Pipeline::apply_backpressure`].
    pub async fn keep_alive(&mut self) -> Result<()> {
        self.shared.check()?;
        if self.last_write_at.elapsed() < KEEP_ALIVE_INTERVAL {
            return Ok(());
        }
        if self.out.is_empty() {
            redis_proto::resp::command(&mut self.out, &[b"PING"]);
            self.push_pending(PendingReply::Required("ping"), 0);
        }
        self.send().await
    }

    /// Sends what was written up to a place, then a long value, and keeps the rest.
    ///
    /// # Errors
    /// As [`Pipeline::apply_backpressure`].
    pub async fn insert(&mut self, at: usize, value: &[u8]) -> Result<()> {
        let rest = self.out.split_off(at);
        self.send().await?;
        let written = self.outgoing.write_all(value).await;
        if let Err(e) = written {
            self.shared.check()?;
            let m = format!("{}: connection lost: {e}", self.url);
            return Err(Error::new(Kind::Connect, "write", m).at(Side::Target));
        }
        self.out.extend_from_slice(&rest);
        Ok(())
    }

    async fn wait_until(&self, done: impl Fn(&Shared) -> bool) -> Result<()> {
        loop {
            let answered = self.shared.answered.notified();
            self.shared.check()?;
            if done(&self.shared) {
                return Ok(());
            }
            answered.await;
        }
    }

    /// True when everything that was sent is answered.
    pub fn is_idle(&self) -> bool {
        self.out.is_empty() && self.shared.state().pending.is_empty()
    }

    /// Sends everything and waits for all answers.
    ///
    /// # Errors
    /// As [`Pipeline::apply_backpressure`].
    pub async fn flush(&mut self) -> Result<()> {
        self.send().await?;
        self.wait_until(|shared| shared.state().pending.is_empty()).await
    }
}

impl Encoder for Pipeline {
    fn push(&mut self, operation: Operation<'_>) -> Result<()> {
        self.changes.encode(operation, &mut self.out);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
