//! Archived objects (OMS §4.6): a restore is requested when they are listed (`transfer/mod.rs`), and copied here once they can be
//! read, as a range of their own. Whatever is still archived goes on waiting in the ledger.

use std::sync::Arc;

use flow_control::clock::SharedClock;
use model::error::Result;
use model::key::Key;
use model::selection::Scope;
use store::{NewRange, Pass};

use crate::job::Job;
use crate::job::feeds::RESTORE_TIMEOUT_MS;
use crate::transfer::ObjectCopier;

impl Job {
    /// Copies what was restored meanwhile, as a range of its own; what is still archived goes on waiting.
    pub(crate) async fn copy_restored(&self, copier: &Arc<ObjectCopier>, clock: &SharedClock) -> Result<()> {
        if !self.task.spec.restore || copier.stop.is_cancelled() {
            return Ok(());
        }
        copier.ledger.flush().await?;
        let mut tx = self.begin_write().await?;
        let Some(since) = tx.waiting_since(self.task.id).await? else { return Ok(()) };
        // What has not come in all this time is not asked for again: it fails.
        let late = clock.now_ms() - since > RESTORE_TIMEOUT_MS;
        let copier = if late { Arc::new(copier.without_restore()) } else { copier.clone() };
        let first = tx.ranges(self.task.id, Pass::Copy).await?.iter().map(|r| r.id).min().unwrap_or(0).min(0);
        let scope = Scope::Prefix(String::new());
        let new = NewRange { id: first - 1, pass: Pass::Copy, scope, after: Key::default(), upto: None };
        tx.insert_ranges(self.task.id, &[new], &self.owner, 0, self.fence).await?;
        let rows = tx.ranges(self.task.id, Pass::Copy).await?;
        tx.commit().await?;
        let row = rows.into_iter().filter(|r| r.id == first - 1).collect();
        self.run_ranges(&copier, row, false, false, clock).await
    }
}
