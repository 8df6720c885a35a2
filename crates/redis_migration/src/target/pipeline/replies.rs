//! Reads the target's replies and compares them with what was sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::{Replies, Reply};
use tokio::io::AsyncReadExt;

use super::{PendingReply, READ_BYTES, Shared};
use crate::checkpoint::checkpoint_missing;
use crate::connection::client::{Incoming, VALUE_MAX};
use crate::connection::reply_error::reply_failure;
use crate::target::replies::{connection_lost, diverged, unexpected_reply, was_executed_without_transaction};

/// The receiving half.
pub(super) async fn read(mut incoming: Incoming, shared: Arc<Shared>, url: String) {
    let mut replies = Replies::with_limit(VALUE_MAX);
    let mut buf = vec![0; READ_BYTES];
    // Answers of the transaction at the head of the queue that have come already.
    let mut transaction = TransactionReplies::default();
    loop {
        match incoming.read(&mut buf).await {
            Ok(0) => {
                return shared.fail(connection_lost(&url, &"closed by the server").at(Side::Target));
            }
            Err(e) => {
                return shared.fail(connection_lost(&url, &e).at(Side::Target));
            }
            Ok(n) => {
                let mut bytes = &buf[..n];
                if replies.waiting() == 0 {
                    bytes = consume_ok_replies(bytes, &shared);
                }
                replies.push(bytes);
            }
        }
        loop {
            let reply = match replies.next_reply() {
                Ok(Some(reply)) => reply,
                Ok(None) => break,
                Err(e) => {
                    let m = format!("{url}: {e}");
                    return shared.fail(Error::new(Kind::Corrupt, "read", m).at(Side::Target));
                }
            };
            if let Err(failure) = handle_reply(&shared, &url, reply, &mut transaction) {
                return shared.fail(failure.at(Side::Target));
            }
        }
        shared.answered.notify_one();
    }
}

/// Passes over the usual answer to keys, many at a time; answers what is left.
fn consume_ok_replies<'b>(mut bytes: &'b [u8], shared: &Shared) -> &'b [u8] {
    let mut state = shared.state();
    let (mut keys, mut answered) = (0, 0);
    while let Some(rest) = bytes.strip_prefix(b"+OK\r\n") {
        match state.pending.front() {
            Some((PendingReply::Key { .. }, len)) => {
                answered += u64::from(*len);
                keys += 1;
                state.pending.pop_front();
            }
            Some((PendingReply::Keys(n), len)) => {
                answered += u64::from(*len);
                keys += n;
                state.pending.pop_front();
            }
            _ => break,
        }
        bytes = rest;
    }
    shared.keys.fetch_add(keys, Ordering::Relaxed);
    shared.unanswered.fetch_sub(answered, Ordering::AcqRel);
    bytes
}

fn handle_reply(
    shared: &Shared,
    url: &str,
    reply: Reply,
    transaction: &mut TransactionReplies,
) -> Result<()> {
    let mut state = shared.state();
    let Some((pending_reply, bytes)) = state.pending.front_mut() else {
        return Err(unexpected_reply(url));
    };
    let bytes = u64::from(*bytes);
    if let PendingReply::Transaction { replies, .. } | PendingReply::ImportBatch { replies, .. } =
        pending_reply
    {
        transaction.replies += 1;
        if transaction.replies < *replies {
            // MULTI and what is queued: an error here makes EXEC fail, and says why better.
            if let Reply::Error(text) = reply {
                transaction.refused.get_or_insert(text);
            }
            return Ok(());
        }
    }
    // Recording locks the same state. The entry stays in the queue until then: a caller that waits for an empty queue must
    // not miss a failure.
    let pending_reply = std::mem::replace(pending_reply, PendingReply::Required("answered"));
    drop(state);
    let refused = std::mem::take(transaction).refused;
    match pending_reply {
        PendingReply::Transaction { offset, .. } => {
            check_applied(url, refused.as_deref(), &reply)?;
            shared.applied.store(offset, Ordering::Release);
        }
        PendingReply::ImportBatch { sent, selects, .. } => {
            let batch = ImportBatch { sent: &sent, selects: &selects };
            check_import(shared, url, refused.as_deref(), &reply, &batch)?
        }
        pending_reply => {
            let error = if let Reply::Error(text) = &reply { Some(text.as_str()) } else { None };
            shared.record_reply(url, &pending_reply, error)?;
        }
    }
    shared.state().pending.pop_front();
    shared.unanswered.fetch_sub(bytes, Ordering::AcqRel);
    Ok(())
}

/// The answers to one transaction so far.
#[derive(Debug, Default)]
struct TransactionReplies {
    pub(super) replies: u64,
    /// The first refusal before `EXEC`.
    pub(super) refused: Option<String>,
}

/// The answer to `EXEC`: all of it was done, and nothing of it failed; `refused`: why it was refused before.
pub(super) fn check_applied(url: &str, refused: Option<&str>, reply: &Reply) -> Result<()> {
    match reply {
        Reply::Array(all) => {
            let error =
                all.iter().find_map(|r| if let Reply::Error(t) = r { Some(t.as_str()) } else { None });
            // It was executed: what was refused of it is missing.
            match (error.or(refused), all.last()) {
                (Some(text), _) => Err(diverged(url, text)),
                // `SET checkpoint … XX`, the last command of each transaction.
                (None, Some(Reply::Nil)) => Err(checkpoint_missing(url)),
                (None, _) => Ok(()),
            }
        }
        Reply::Error(text) if was_executed_without_transaction(reply) => {
            Err(diverged(url, refused.unwrap_or(text)))
        }
        Reply::Error(text) => Err(reply_failure(url, "apply", refused.unwrap_or(text))),
        _ => Err(diverged(url, "EXEC was aborted")),
    }
}

/// Commands of a file that were sent as one transaction.
struct ImportBatch<'a> {
    sent: &'a [u8],
    /// Which of the answers are to `SELECT`.
    selects: &'a [u64],
}

/// The answer to `EXEC` behind commands of a file.
fn check_import(
    shared: &Shared,
    url: &str,
    refused: Option<&str>,
    reply: &Reply,
    batch: &ImportBatch<'_>,
) -> Result<()> {
    match (reply, refused) {
        (Reply::Array(all), None) => {
            let error = |(i, r): (usize, &Reply)| {
                if let Reply::Error(t) = r { Some((i + 1, t.clone())) } else { None }
            };
            let errors: Vec<_> = all.iter().enumerate().filter_map(error).collect();
            shared.record_refused(url, batch.sent, batch.selects, &errors)
        }
        // None of it was done.
        (Reply::Error(text), _) => Err(reply_failure(url, "import", refused.unwrap_or(text))),
        _ => Err(reply_failure(url, "import", refused.unwrap_or("EXEC was aborted"))),
    }
}
