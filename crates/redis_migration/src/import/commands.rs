//! Commands of an append-only file.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::{Command, Commands};
use tokio::sync::mpsc;

use super::Import;
use crate::connection::query_client::QueryClient;
use crate::stream::apply::Applier;
use crate::target::Writer;
use crate::target::functions::{self};
use crate::target::pipeline::{PendingReply, Pipeline};
use crate::target::slot_router::cross_slot_failure;

impl Import {
    /// The next piece; `new`: it is read for the first time.
    pub(super) async fn next_chunk(
        &self,
        chunks: &mut mpsc::Receiver<Result<Bytes>>,
        new: bool,
    ) -> Result<Option<Bytes>> {
        let chunk = tokio::select! {
            chunk = chunks.recv() => chunk.transpose()?,
            () = self.stop.cancelled() => return Ok(None),
        };
        if let Some(chunk) = &chunk {
            let length = if new { chunk.len() as u64 } else { 0 };
            self.progress.full_bytes.fetch_add(length, Ordering::Relaxed);
            self.options.bandwidth.acquire(chunk.len() as u64).await;
        }
        Ok(chunk)
    }

    pub(super) async fn apply_commands(
        &self,
        commands: &mut Commands,
        writer: &mut Writer,
        query: &mut QueryClient,
        applier: &mut Applier,
    ) -> Result<()> {
        let (mut scratch, now) = (Vec::new(), self.clock.now_ms());
        let wrong = |e: redis_proto::ProtocolError| {
            Error::new(Kind::Corrupt, "commands", e.to_string()).at(Side::Source)
        };
        loop {
            let begin = commands.offset();
            let Some(command) = commands.next_command().map_err(wrong)? else { break };
            match command.raw.first() {
                Some(b'*') => {}
                // A note of the time, between commands.
                Some(b'#') => continue,
                _ => {
                    let m =
                        format!("at byte {begin}: neither a snapshot nor a command of an append-only file");
                    return Err(Error::new(Kind::Corrupt, "commands", m).at(Side::Source));
                }
            }
            let end = begin + command.raw.len() as u64;
            // What stands before a transaction does not share its fate, should it have no end.
            let begins = command.arg(0).is_some_and(|name| name.eq_ignore_ascii_case(b"MULTI"));
            match writer {
                Writer::Standalone(one) => {
                    if begins {
                        close(one, applier).await?;
                    }
                    self.write_command((&command, end), one, query, applier, now).await?;
                }
                Writer::Cluster(cluster) => {
                    if begins && !applier.is_in_source_transaction() {
                        cluster.flush().await?;
                    }
                    applier.apply(&command, end, &mut scratch, now)?;
                    let split = cluster.split(&scratch, None, applier.is_in_source_transaction()).await?;
                    if let Some(words) = split.cross_slot.first() {
                        return Err(cross_slot_failure(words));
                    }
                    let broadcast = split.broadcast;
                    scratch.clear();
                    if let Some(words) = broadcast {
                        applier.record_libraries(&cluster.broadcast(&words, query, None).await?);
                    }
                }
            }
        }
        self.progress.commands.store(applier.commands, Ordering::Relaxed);
        self.progress.keys.store(writer.shared().keys.load(Ordering::Relaxed), Ordering::Relaxed);
        match writer {
            Writer::Standalone(one) => close(one, applier).await,
            Writer::Cluster(cluster) => cluster.apply_backpressure().await,
        }
    }

    /// Writes what a command becomes to a single server.
    async fn write_command(
        &self,
        (command, end): (&Command<'_>, u64),
        one: &mut Pipeline,
        query: &mut QueryClient,
        applier: &mut Applier,
        now_ms: i64,
    ) -> Result<()> {
        let (before, length) = (applier.commands, one.out().len());
        applier.apply(command, end, one.out(), now_ms)?;
        if !applier.dbs_to_verify.is_empty() {
            query.verify_dbs(applier.dbs_to_verify.clone()).await?;
            applier.confirm_dbs();
        }
        if applier.is_without_checkpoint() {
            let bytes = one.out().len() - length;
            one.push_pending_changes(applier.commands - before, bytes, end);
            one.apply_backpressure().await?;
        }
        if let Some(words) = applier.library.take() {
            close(one, applier).await?;
            one.flush().await?;
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let done = functions::run_at_masters(query, &words, self.options.functions).await?;
            applier.record_libraries(&done);
            applier.skip_to(end);
        }
        if applier.is_full(one.out()) {
            close(one, applier).await?;
        }
        Ok(())
    }
}

pub(super) async fn close(writer: &mut Pipeline, applier: &mut Applier) -> Result<()> {
    if let Some((pending, bytes)) = applier.close(writer.out()) {
        let pending = match pending {
            // What is open is not sent in parts: all of it is still there.
            PendingReply::Transaction { replies, .. } => {
                let out = writer.out();
                PendingReply::ImportBatch { replies, sent: out[out.len().saturating_sub(bytes)..].into() }
            }
            other => other,
        };
        writer.push_pending(pending, bytes);
        writer.db = applier.selected();
    }
    if applier.is_open() { Ok(()) } else { writer.apply_backpressure().await }
}

/// Commands that cannot be applied beside what the target holds.
pub(super) fn unsafe_commands_failure(commands: &BTreeMap<String, u64>) -> Error {
    let named: Vec<String> = commands.iter().take(8).map(|(name, n)| format!("{n} × {name}")).collect();
    let m = format!(
        "the files contain {}, which affect more than single keys: they are applied only when complete files are \
         imported into an empty target",
        named.join(", ")
    );
    Error::new(Kind::Unsupported, "import", m).at(Side::Source)
}
