//! Operations become the batches of slots, or commands for every server.

use model::error::{Result, Side};
use redis_proto::resp::{Reply, command};

use super::ClusterWriter;
use crate::connection::query_client::QueryClient;
use crate::connection::reply_error::reply_failure;
use crate::operation::{Encoder, Operation};
use crate::target::functions::{self, LibraryOutcome};
use crate::target::slot_router::{Broadcast, SlotSink, route};

/// A key of the migration and its value, which outlive a flush.
type KeptKey<'a> = (&'a [u8], &'a [u8]);

impl ClusterWriter {
    /// The operations that follow are of a command between two offsets of the stream, or of no stream. Parts whose slot has
    /// them already are skipped.
    pub(crate) fn begin_command(&mut self, span: Option<(u64, u64)>) {
        self.span = span;
    }

    /// Executes a command at every server, when everything before it is done; interrupted, it is executed again. `checkpoint`
    /// outlives a flush: it is stored again in the moment in which the last server is empty.
    pub(crate) async fn broadcast(
        &mut self,
        broadcast: &Broadcast,
        query: &mut QueryClient,
        checkpoint: Option<KeptKey<'_>>,
    ) -> Result<LibraryOutcome> {
        let in_source_transaction = std::mem::replace(&mut self.in_source_transaction, false);
        self.flush().await?;
        self.in_source_transaction = in_source_transaction;
        if let Some((key, value)) = checkpoint {
            query.execute(key, &[b"SET", key, value]).await?;
        }
        query.refresh().await?;
        match broadcast {
            Broadcast::Libraries(library) => {
                return functions::run_at_masters(query, library, self.functions).await;
            }
            Broadcast::Scripts(args) => {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                query.call_all_masters(&args).await?;
            }
            Broadcast::Flush(args) => {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                flush_masters(&args, query, checkpoint).await?;
                self.reset_offsets();
            }
        }
        Ok(LibraryOutcome::default())
    }
}

/// Deletes all keys, last at the server of the checkpoint, where that is stored again in the same transaction.
async fn flush_masters(
    args: &[&[u8]],
    query: &mut QueryClient,
    checkpoint: Option<KeptKey<'_>>,
) -> Result<()> {
    let home = checkpoint.map(|(key, _)| query.addr_of_key(key));
    for addr in query.masters().into_iter().filter(|addr| Some(addr) != home.as_ref()) {
        query.client_at(&addr).await?.execute(args).await.map_err(|f| f.at(Side::Target))?;
    }
    let (Some(addr), Some((key, value))) = (home, checkpoint) else { return Ok(()) };
    let mut all = Vec::new();
    for args in [&[b"MULTI".as_slice()][..], args, &[b"SET", key, value], &[b"EXEC"]] {
        command(&mut all, args);
    }
    let client = query.client_at(&addr).await?;
    let url = client.display_url().to_owned();
    let replies = client.pipeline(&all, 4).await.map_err(|f| f.at(Side::Target))?;
    match replies.into_iter().rev().find(|reply| matches!(reply, Reply::Error(_))) {
        Some(Reply::Error(text)) => Err(reply_failure(&url, "flush", &text).at(Side::Target)),
        _ => Ok(()),
    }
}

impl Encoder for ClusterWriter {
    fn push(&mut self, operation: Operation<'_>) -> Result<()> {
        let fence = self.fence.clone();
        route(operation, &fence.names, self)
    }
}

impl SlotSink for ClusterWriter {
    fn to_slot(&mut self, slot: u16, count: u32, write: &dyn Fn(&mut Vec<u8>)) {
        let span = self.span;
        if span.is_some_and(|(_, end)| end <= self.queues[usize::from(slot)].done) {
            return;
        }
        self.enqueue(slot, count, |batch| {
            write(&mut batch.bytes);
            if let Some((begin, end)) = span {
                batch.begin.get_or_insert(begin);
                batch.end = end;
            }
        });
    }

    fn to_all(&mut self, command: Broadcast) {
        self.to_broadcast = Some(command);
    }

    fn across_slots(&mut self, args: &[&[u8]]) -> Result<()> {
        self.cross_slot.push(args.iter().map(|word| word.to_vec()).collect());
        Ok(())
    }

    fn source_transaction(&mut self, is_open: bool) {
        self.in_source_transaction = is_open;
    }
}
