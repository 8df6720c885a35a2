//! What the servers answer: completed batches, redirections and retries.

use std::time::{Duration, Instant};

use model::error::{Error, Result, Side};

use super::{ClusterWriter, RETRY_DELAY, RETRY_DELAY_MAX, RETRY_TIMEOUT, Received};
use crate::connection::reply_error::reply_failure;
use crate::target::replies::{Outcome, diverged};

impl ClusterWriter {
    /// Takes what is known of the answers.
    pub(crate) async fn drain_replies(&mut self) -> Result<()> {
        while let Ok((slot, outcome)) = self.replies.try_recv() {
            self.handle_outcome(slot, outcome).await?;
        }
        Ok(())
    }

    /// Waits for a reply, or for the time to try again. May be cancelled at any moment.
    pub(crate) async fn next_reply(&mut self) -> Received {
        let next = self.retries.front().map(|(at, _)| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            received = self.replies.recv() => Received(received),
            () = tokio::time::sleep(next.unwrap_or(Duration::from_secs(3600))) => Received(None),
        }
    }

    /// Handles what was received. Must not be cancelled.
    pub(crate) async fn handle_reply(&mut self, received: Received) -> Result<()> {
        if let Received(Some((slot, outcome))) = received {
            self.handle_outcome(slot, outcome).await?;
        }
        self.send().await
    }

    async fn handle_outcome(&mut self, slot: u16, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Done(errors) => self.complete(slot, errors),
            Outcome::Failed(failure) => Err(failure.at(Side::Target)),
            Outcome::Moved(addr) => {
                let server = self.connect_server(&addr).await?;
                self.slots[usize::from(slot)] = u16::try_from(server).unwrap_or(0);
                self.schedule_retry(slot, "too many redirections for its slot")?;
                self.send_transaction(slot, None).await
            }
            Outcome::Ask(addr) => {
                let server = self.connect_server(&addr).await?;
                self.schedule_retry(slot, "too many redirections for its slot")?;
                self.send_transaction(slot, Some(server)).await
            }
            Outcome::Pong => Ok(()),
            Outcome::Retry(why) => {
                let pause = self.schedule_retry(slot, &why)?;
                // Kept by time: some wait longer than others.
                let at = Instant::now() + pause;
                let position = self.retries.partition_point(|(other, _)| *other <= at);
                self.retries.insert(position, (at, slot));
                Ok(())
            }
        }
    }

    /// Counts another try of a slot's transaction; answers the pause before it.
    fn schedule_retry(&mut self, slot: u16, why: &str) -> Result<Duration> {
        let Some(sent) = &mut self.queues[usize::from(slot)].in_flight else { return Ok(RETRY_DELAY) };
        sent.tries += 1;
        let since = *sent.since.get_or_insert_with(Instant::now);
        if since.elapsed() > RETRY_TIMEOUT {
            let m = format!("{}: slot {slot} rejects writes: {why}", self.node.display_url());
            return Err(Error { message: m, ..reply_failure("", "write", why) }.at(Side::Target));
        }
        Ok(RETRY_DELAY.saturating_mul(1 << sent.tries.saturating_sub(40).min(6)).min(RETRY_DELAY_MAX))
    }

    fn complete(&mut self, slot: u16, errors: Vec<(usize, String)>) -> Result<()> {
        let queue = &mut self.queues[usize::from(slot)];
        let Some(sent) = queue.in_flight.take() else { return Ok(()) };
        self.in_flight -= 1;
        self.queued_bytes -= sent.bytes.len() as u64;
        if sent.begin.is_some() {
            queue.done = sent.end;
        }
        if queue.pending.commands > 0 {
            self.ready.push(slot);
        }
        let url = self.node.display_url();
        if sent.pending_replies.is_empty() {
            return match errors.first() {
                None => Ok(()),
                Some(_) if self.from_file => {
                    // What was queued is counted behind MULTI.
                    let errors: Vec<_> = errors.into_iter().map(|(i, text)| (i + 1, text)).collect();
                    self.shared
                        .record_refused(&url, &sent.bytes, &[], &errors)
                        .map_err(|f| f.at(Side::Target))
                }
                Some((_, text)) => Err(diverged(&url, text).at(Side::Target)),
            };
        }
        for (i, pending) in sent.pending_replies.iter().enumerate() {
            let error = errors.iter().find(|(at, _)| *at == i).map(|(_, text)| text.as_str());
            self.shared.record_reply(&url, pending, error)?;
        }
        Ok(())
    }
}
