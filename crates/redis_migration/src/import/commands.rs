//! Commands of an append-only file.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::Commands;
use tokio::sync::mpsc;

use super::Import;
use crate::connection::query_client::QueryClient;
use crate::stream::apply::Applier;
use crate::target::Writer;
use crate::target::functions;
use crate::target::pipeline::Pipeline;
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
        let now = self.clock.now_ms();
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
            if command.arg(0).is_some_and(|name| name.eq_ignore_ascii_case(b"MULTI")) {
                end_transaction(writer).await?;
            }
            writer.begin_command(None);
            applier.apply(&command, end, writer, now)?;
            match writer {
                Writer::Standalone(one) => self.finish_command(end, one, query, applier).await?,
                Writer::Cluster(cluster) => {
                    if let Some(words) = cluster.cross_slot.first() {
                        let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                        return Err(cross_slot_failure(&args));
                    }
                    cluster.apply_backpressure().await?;
                    if let Some(command) = cluster.to_broadcast.take() {
                        applier.record_libraries(&cluster.broadcast(&command, query, None).await?);
                    }
                }
            }
        }
        self.progress.commands.store(applier.commands, Ordering::Relaxed);
        self.progress.keys.store(writer.shared().keys.load(Ordering::Relaxed), Ordering::Relaxed);
        match writer {
            Writer::Standalone(one) => close(one).await,
            Writer::Cluster(cluster) => cluster.apply_backpressure().await,
        }
    }

    /// Does what the operations of a command need at a single server.
    async fn finish_command(
        &self,
        end: u64,
        one: &mut Pipeline,
        query: &mut QueryClient,
        applier: &mut Applier,
    ) -> Result<()> {
        if !one.changes.dbs_to_verify.is_empty() {
            query.verify_dbs(one.changes.dbs_to_verify.clone()).await?;
            one.changes.confirm_dbs();
        }
        one.push_pending_single(end);
        if let Some(library) = one.changes.barrier.take() {
            close(one).await?;
            one.flush().await?;
            let done = functions::run_at_masters(query, &library, self.options.functions).await?;
            applier.record_libraries(&done);
        }
        if one.is_transaction_full() {
            return close(one).await;
        }
        if one.changes.is_unsendable() { Ok(()) } else { one.apply_backpressure().await }
    }
}

/// Ends the open transaction, so that the next one of the file is alone.
async fn end_transaction(writer: &mut Writer) -> Result<()> {
    match writer {
        Writer::Standalone(one) => close(one).await,
        Writer::Cluster(cluster) if !cluster.is_in_source_transaction() => cluster.flush().await,
        Writer::Cluster(_) => Ok(()),
    }
}

pub(super) async fn close(one: &mut Pipeline) -> Result<()> {
    one.close_import_batch();
    if one.changes.is_open() { Ok(()) } else { one.apply_backpressure().await }
}

/// Commands that cannot be applied to a target with data.
pub(super) fn unsafe_commands_failure(commands: &BTreeMap<String, u64>) -> Error {
    let named: Vec<String> = commands.iter().take(8).map(|(name, n)| format!("{n} × {name}")).collect();
    let m = format!(
        "the files contain {}, which affect more than single keys: they are applied only when complete files are \
         imported into an empty target",
        named.join(", ")
    );
    Error::new(Kind::Unsupported, "import", m).at(Side::Source)
}
