//! This process among those that share a database: it renews its session, follows the database's time, and reads that it
//! is to drain.

use std::sync::Arc;

use flow_control::clock::FollowingClock;
use model::error::{Error, Kind, Result};
use store::{RENEW_INTERVAL, Session};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

impl Engine {
    /// Renews the session of this process until `stop`, and ends it then. The clock follows that of the database.
    pub async fn keep_session(
        self: Arc<Self>,
        role: &'static str,
        clock: Arc<FollowingClock>,
        stop: CancellationToken,
    ) {
        let session = Session {
            id: self.owner.clone(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            role: role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.clock.now_ms(),
            lease_until: 0,
            draining: false,
        };
        let mut renew = tokio::time::interval(RENEW_INTERVAL);
        loop {
            tokio::select! {
                _ = renew.tick() => {}
                () = stop.cancelled() => break,
            }
            match tokio::time::timeout(RENEW_INTERVAL, self.renew_session(&session, &clock)).await {
                Ok(Ok(true)) => self.drain(),
                Ok(Ok(false)) => {}
                Ok(Err(failure)) => tracing::warn!("cannot renew the session of this process: {failure}"),
                Err(_) => tracing::warn!("cannot renew the session of this process: no answer in time"),
            }
        }
        let ended = async {
            let mut tx = self.store.write().await?;
            tx.end_session(&self.owner).await?;
            tx.commit().await
        };
        if let Ok(Err(failure)) = tokio::time::timeout(RENEW_INTERVAL, ended).await {
            tracing::debug!("the session ends by its lease: {failure}");
        }
    }

    /// True when the session is to drain.
    async fn renew_session(&self, session: &Session, clock: &FollowingClock) -> Result<bool> {
        let asked = std::time::Instant::now();
        let told = self.store.database_time().await?;
        let took = i64::try_from(asked.elapsed().as_millis()).unwrap_or(i64::MAX);
        // The time is that of some moment between request and response.
        let now = told.ok_or_else(|| Error::new(Kind::Internal, "session", "the database has no clock"))?
            + took / 2;
        if took < TIME_ANSWER_MAX_MS {
            clock.set(now);
        }
        let mut tx = self.store.work().await?;
        let drains = tx.renew_session(session, now).await?;
        tx.commit().await?;
        Ok(drains)
    }
}

/// A slower answer says too little about the database's time, milliseconds.
const TIME_ANSWER_MAX_MS: i64 = 500;
