//! Archived objects (OMS §4.6): asked to be restored when they are met (`transfer.rs`), and copied here once they can be
//! read, as a range of their own. Whatever is still archived goes on waiting in the ledger.

use std::sync::Arc;

use model::failure::{Failure, Policy, Result, Side};
use model::key::Key;
use model::selection::Scope;
use pace::clock::SharedClock;
use storage::guard::Guarded;
use storage::{Meta, ObjectStore, Page, Position};
use store::{NewRange, Pass, Store};

use crate::feed::{Feed, entry_of};
use crate::job::Job;
use crate::lister::ListedPage;
use crate::transfer::ObjectCopier;

/// Archived objects are waited for so long, milliseconds.
const RESTORE_TIMEOUT_MS: i64 = 5 * 24 * 3600 * 1000;

impl Job {
    /// Copies what was restored meanwhile, as a range of its own; what is still archived goes on waiting.
    pub(crate) async fn copy_restored(&self, copier: &Arc<ObjectCopier>, clock: &SharedClock) -> Result<()> {
        if !self.task.spec.restore || copier.stop.is_cancelled() {
            return Ok(());
        }
        copier.ledger.flush().await?;
        let mut unit = self.begin_write().await?;
        let Some(since) = unit.waits_since(self.task.id).await? else { return Ok(()) };
        // What has not come in all this time is not asked for again: it fails.
        let late = clock.now_ms() - since > RESTORE_TIMEOUT_MS;
        let copier = if late { Arc::new(copier.without_restore()) } else { copier.clone() };
        let first =
            unit.ranges(self.task.id, Pass::Copy).await?.iter().map(|r| r.id).min().unwrap_or(0).min(0);
        let scope = Scope::Prefix(String::new());
        let new = NewRange { id: first - 1, pass: Pass::Copy, scope, after: Key::default(), upto: None };
        unit.insert_ranges(self.task.id, &[new], &self.owner, 0, self.fence).await?;
        let rows = unit.ranges(self.task.id, Pass::Copy).await?;
        unit.save().await?;
        let row = rows.into_iter().filter(|r| r.id == first - 1).collect();
        self.run_ranges(&copier, row, false, false, clock).await
    }
}

/// What is waited for and can be read now, as pages of entries. What has not come within [`RESTORE_TIMEOUT_MS`] is read all the
/// same, so that it fails with the store's own answer.
pub(crate) fn restored_feed(store: Store, task: i64, after: Key, source: Arc<Guarded>, now: i64) -> Feed {
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    let work = tokio::spawn(async move {
        let mut after = after;
        loop {
            let page = async {
                let rows = store.read().await?.restores(task, &after, 200).await?;
                let more = rows.len() == 200;
                let mut page = Page::default();
                for row in rows {
                    after = row.key.clone();
                    let meta = match source.head(&row.key, None).await {
                        Err(f) if f.kind.policy() == Policy::GiveUp => {
                            Meta { size: row.size, ..Meta::default() }
                        }
                        meta => meta?,
                    };
                    if !meta.archived || now - row.asked_at > RESTORE_TIMEOUT_MS {
                        page.entries.push(entry_of(row.key, meta));
                    }
                }
                page.next = more.then(|| Position::After(after.clone()));
                Ok::<_, Failure>(ListedPage { page, from: Position::Start })
            };
            let page = page.await.map_err(|f| f.at(Side::Source));
            let more = page.as_ref().is_ok_and(|p| p.page.more());
            if tx.send(page).await.is_err() || !more {
                return;
            }
        }
    });
    Feed::from_pages(rx, work.abort_handle())
}
