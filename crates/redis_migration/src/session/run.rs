//! One migration from one server to another: attempt after attempt, until it is done or stopped.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::error::{Error, Kind, Reason, Result, Side};

use crate::checkpoint::keys::new_token;
use crate::connection::capabilities::{FULL_SYNCS_MAX, NO_TRANSACTIONS_NOTE};
use crate::connection::query_client::QueryClient;
use crate::connection::server::ServerInfo;
use crate::connection::topology::Topology;
use crate::events::Event;
use crate::migration::Migration;
use crate::progress::Summary;
use crate::reconnect::{Reconnect, RetryBudget};
use crate::session::cluster_source;
use crate::stream::connections::SessionEnd;

/// How long a last word to the target may take.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(300);
/// After a stop an end that does not reply is waited for no longer than this; the checkpoint at the target stays exact.
const STOP_TIMEOUT: Duration = Duration::from_millis(550);

/// Queries of the topology of a source cluster that is not available yet.
const SOURCE_CHECKS_MAX: u32 = 60;
/// Time between two queries of the topology.
const SOURCE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl Migration {
    /// Works until it is done, stopped, or cannot go on.
    ///
    /// # Errors
    /// What cannot be overcome by trying again, or was tried long enough.
    pub async fn run(&self) -> Result<Summary> {
        let found = tokio::select! {
            found = self.open_target() => found,
            () = self.stop.cancelled() => return Ok(Summary::default()),
        };
        let mut this = self.clone();
        if let Ok((_, _, Some(topology))) = found {
            // Any node of the target that is left knows the slot layout.
            this.target = this.target.with_addrs(topology.all_addrs());
        }
        this.run_by_topology().await
    }

    async fn run_by_topology(&self) -> Result<Summary> {
        let mut checks = 0;
        loop {
            let found = tokio::select! {
                found = QueryClient::open(&self.source, Side::Source) => found,
                () = self.stop.cancelled() => return Ok(Summary::default()),
            };
            let why = match found {
                Ok((_, _, Some(_))) => return cluster_source::run(self).await,
                Ok((_, _, None)) => None,
                // Another query would return the same.
                Err(failure) if failure.reason == Reason::Sentinel => return Err(failure),
                Err(failure) => Some(failure),
            };
            // A source that does not answer now may be waited for, and be a cluster then.
            let failure = match self.run_link().await {
                Err(f) if f.reason == Reason::ClusterSource => why.unwrap_or(f),
                done => return done,
            };
            checks += 1;
            if checks > SOURCE_CHECKS_MAX && !self.options.reconnect.is_always() {
                return Err(failure);
            }
            self.options.event_sender.send(Event::Disconnected { failure, delay: SOURCE_CHECK_INTERVAL });
            tokio::select! {
                () = tokio::time::sleep(SOURCE_CHECK_INTERVAL) => {}
                () = self.stop.cancelled() => return Ok(Summary::default()),
            }
        }
    }

    /// The same for one server of the source.
    pub(crate) async fn run_link(&self) -> Result<Summary> {
        let token = new_token();
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        };
        let done = tokio::select! {
            done = self.run_sessions(&token) => done,
            () = stopped => Ok(Summary::default()),
        };
        if tokio::time::timeout(RELEASE_TIMEOUT, self.release_token(&token)).await.is_err() {
            tracing::debug!("disconnected from the target without releasing the lock (timeout)");
        }
        done
    }

    /// Removes the fencing token at the target, unless another run has taken it.
    async fn release_token(&self, token: &str) -> Result<()> {
        let mut target = self.open_target().await?.0;
        let fencing_token = &self.names.fencing_token;
        if target.call(0, fencing_token, &[b"GET", fencing_token]).await?.text() == Some(token.as_bytes()) {
            target.execute(fencing_token, &[b"DEL", fencing_token]).await?;
        }
        Ok(())
    }

    async fn run_sessions(&self, token: &str) -> Result<Summary> {
        let mut summary = Summary::default();
        let (mut retries, began) = (RetryBudget::default(), Instant::now());
        let (mut first, mut tried) = (true, 0u32);
        loop {
            let failure = match self.run_session(&mut summary, token, std::mem::take(&mut first)).await {
                Ok(ended) => {
                    summary.done = matches!(ended, SessionEnd::Done);
                    return Ok(summary);
                }
                Err(f) if f.kind == Kind::Stopped => return Ok(summary),
                Err(f) if matches!(f.reason, Reason::ClusterSource | Reason::FullResync) => {
                    return Err(f);
                }
                Err(f) if f.reason == Reason::Diverged => {
                    self.record_divergence(&f).await;
                    let key = String::from_utf8_lossy(&self.names.checkpoint);
                    let m =
                        format!("{}; its checkpoint key `{key}` at the target is no longer valid", f.message);
                    return Err(Error { message: m, ..f });
                }
                Err(failure) => failure,
            };
            let is_proxy_failing = summary.full_syncs >= FULL_SYNCS_MAX
                && summary.notes.iter().any(|note| note == NO_TRANSACTIONS_NOTE);
            if is_proxy_failing && !self.options.reconnect.is_always() {
                let m =
                    format!("{}; some proxies close the connection on an unknown command", failure.message);
                return Err(Error { message: m, ..failure });
            }
            let was_connected = self.progress.phase.swap(0, Ordering::Relaxed) > 0;
            let applied = self.progress.applied.load(Ordering::Relaxed);
            let (backoff, now) = (&self.options.backoff, began.elapsed());
            // What is wrong with the bytes themselves is not waited out for ever.
            let limited = Reconnect::default();
            let reconnect = if failure.kind == Kind::Corrupt { &limited } else { &*self.options.reconnect };
            // The server replies, with an error that passes.
            let is_transient = matches!(failure.kind, Kind::Unavailable | Kind::NoSpace);
            let delay = retries.next_delay(
                was_connected,
                applied,
                is_transient,
                reconnect,
                backoff,
                now,
                fastrand::f64(),
            );
            let Some(delay) = delay.filter(|_| may_retry(&failure, was_connected)) else {
                return Err(given_up(failure, tried, began.elapsed()));
            };
            tried += 1;
            // Users are informed by the receiver of the event.
            tracing::debug!("{failure}; retrying in {delay:?}");
            self.options.event_sender.send(Event::Disconnected { failure, delay });
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => return Ok(summary),
            }
        }
    }

    pub(crate) async fn open_target(&self) -> Result<(QueryClient, ServerInfo, Option<Topology>)> {
        QueryClient::open(&self.target, Side::Target).await
    }

    /// Marks the checkpoint as invalid: no later run may continue on a target that differs from the source.
    async fn record_divergence(&self, failure: &Error) {
        let noted = async {
            let (mut target, server, _) = self.open_target().await?;
            if server.missing.transactions {
                return Ok(());
            }
            let text = format!("diverged: {}", failure.message);
            target.execute(&self.names.checkpoint, &[b"SET", &self.names.checkpoint, text.as_bytes()]).await
        };
        if let Err(f) = noted.await {
            tracing::warn!("cannot record at the target that it diverged: {f}");
        }
    }
}

/// The failure that ends the migration; it was reported before each pause.
fn given_up(failure: Error, tried: u32, after: Duration) -> Error {
    if tried == 0 {
        return failure;
    }
    let m = format!("given up after {tried} more attempts in {} s: {}", after.as_secs(), failure.message);
    Error { message: m, ..failure }
}

/// A target that was written to and may not be any more is failing over: that passes.
fn may_retry(failure: &Error, was_connected: bool) -> bool {
    failure.is_temporary() || (was_connected && matches!(failure.kind, Kind::ReadOnly | Kind::NoSpace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_24_reported_error_is_not_reported_twice() {
        let failure =
            || Error::new(Kind::Connect, "read", "redis://h:1: the connection broke: it was closed");
        assert_eq!(given_up(failure(), 0, Duration::ZERO).message, failure().message);
        let said = given_up(failure(), 3, Duration::from_secs(7));
        assert!(said.message.starts_with("given up after 3 more attempts in 7 s: redis://h:1"), "{said}");
        assert!(said.remedy().contains("`timeout`"), "{said}");
    }
}
