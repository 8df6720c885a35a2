//! What is sent to the servers: batches of commands, in transactions where they need it.

use std::sync::PoisonError;
use std::time::Instant;

use model::error::{Error, Kind, Result, Side};
use redis_proto::resp::command;
use tokio::io::AsyncWriteExt;

use super::{ClusterWriter, InFlight, PING_SLOT, WRITE_BYTES};
use crate::connection::client::KEEP_ALIVE_INTERVAL;

impl ClusterWriter {
    /// Sends what is ready.
    async fn send_ready(&mut self) -> Result<()> {
        if self.in_source_transaction {
            return Ok(());
        }
        for slot in std::mem::take(&mut self.ready) {
            let queue = &mut self.queues[usize::from(slot)];
            let batch = std::mem::take(&mut queue.pending);
            if batch.commands == 0 {
                continue;
            }
            let mut bytes = Vec::with_capacity(batch.bytes.len() + 160);
            bytes.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
            bytes.extend_from_slice(&batch.bytes);
            let mut replies = batch.commands + 2;
            if batch.begin.is_some() {
                let text = format!("{} {}", self.epoch, batch.end);
                command(&mut bytes, &[b"SET", &self.fence.names.slot_checkpoint(slot), text.as_bytes()]);
                replies += 1;
                queue.has_checkpoint = true;
            }
            bytes.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
            self.queued_bytes = self.queued_bytes - batch.bytes.len() as u64 + bytes.len() as u64;
            let (pending_replies, begin, end) = (batch.pending_replies, batch.begin, batch.end);
            queue.in_flight =
                Some(InFlight { bytes, replies, pending_replies, begin, end, tries: 0, since: None });
            self.in_flight += 1;
            self.send_transaction(slot, None).await?;
        }
        Ok(())
    }

    /// Sends the transaction of a slot, to its server or to another.
    pub(super) async fn send_transaction(&mut self, slot: u16, redirected_to: Option<usize>) -> Result<()> {
        let server = redirected_to.unwrap_or(usize::from(self.slots[usize::from(slot)]));
        let Some(sent) = &self.queues[usize::from(slot)].in_flight else { return Ok(()) };
        let to = &mut self.servers[server];
        let mut replies = sent.replies;
        if redirected_to.is_some() {
            to.out.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
            replies += 1;
        }
        to.out.extend_from_slice(&sent.bytes);
        to.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back((slot, replies));
        if to.out.len() >= WRITE_BYTES { self.write(server).await } else { Ok(()) }
    }

    pub(super) async fn write(&mut self, server: usize) -> Result<()> {
        let to = &mut self.servers[server];
        if to.out.is_empty() {
            return Ok(());
        }
        let written = to.outgoing.write_all(&to.out).await;
        to.wrote = Instant::now();
        to.out.clear();
        if to.out.capacity() > 8 * WRITE_BYTES {
            to.out.shrink_to(2 * WRITE_BYTES);
        }
        written.map_err(|e| {
            let m = format!("{}:{}: connection lost: {e}", to.addr.0, to.addr.1);
            Error::new(Kind::Connect, "write", m).at(Side::Target)
        })
    }

    /// Takes what is known of the answers, and sends what may be sent.
    pub(crate) async fn send(&mut self) -> Result<()> {
        self.flush_scratch();
        self.drain_replies().await?;
        let now = Instant::now();
        while let Some((at, slot)) = self.retries.front().copied().filter(|(at, _)| *at <= now) {
            let _ = (at, self.retries.pop_front());
            self.send_transaction(slot, None).await?;
        }
        self.send_ready().await?;
        for server in 0..self.servers.len() {
            self.write(server).await?;
        }
        Ok(())
    }

    /// A sign of life to each server that nothing was sent to for a while.
    pub(crate) async fn keep_alive(&mut self) -> Result<()> {
        if self.in_source_transaction {
            return Ok(());
        }
        self.send().await?;
        for i in 0..self.servers.len() {
            let to = &mut self.servers[i];
            if to.wrote.elapsed() >= KEEP_ALIVE_INTERVAL {
                command(&mut to.out, &[b"PING"]);
                to.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back((PING_SLOT, 1));
                self.write(i).await?;
            }
        }
        Ok(())
    }
}
