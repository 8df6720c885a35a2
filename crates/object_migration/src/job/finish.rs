//! The end of a job: leftovers, notes and the outcome.

use flow_control::clock::SharedClock;
use model::error::{Error, Kind, Result};
use model::key::Key;
use model::parent::Parent;
use model::selection::Scope;
use model::spec::ApiVersion;
use storage::ObjectStore;
use store::Pass;

use super::{Job, JobEnd};
use crate::ledger::outcome;
use crate::report::records;
use crate::transfer::ObjectCopier;

impl Job {
    /// Uploads of objects that vanished from the source meanwhile leave nothing half done behind.
    pub(super) async fn abort_leftovers(&self, copier: &ObjectCopier) {
        let open: Vec<Key> = {
            let open = copier.ledger.uploads.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            open.keys().cloned().collect()
        };
        for key in open {
            copier.abandon_upload(&key).await;
        }
        if let Err(f) = copier.ledger.flush().await {
            tracing::warn!("{f}");
        }
    }

    /// What the source holds and no object can be made of is said, not dropped in silence.
    async fn note_ignored(&self) -> Result<()> {
        let ignored = self.source.ignored_entries();
        if ignored.is_empty() {
            return Ok(());
        }
        let some = ignored.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        let note = format!("{} source entries are not regular files and were skipped: {some}", ignored.len());
        let mut tx = self.begin_write().await?;
        tx.set_note(self.task.id, &note).await?;
        tx.commit().await
    }

    /// Prefixes and keys of the selection that select nothing are named: they are in no counter.
    async fn note_empty_scopes(&self) -> Result<()> {
        let spec = &self.task.spec;
        if self.task.failed_only || spec.selection.names_keys() || spec.selection.entries().len() < 2 {
            return Ok(());
        }
        let rows = self.store.read().await?.ranges(self.task.id, Pass::Copy).await?;
        let selects =
            |scope: &Scope| rows.iter().any(|r| r.scope == *scope && r.counters.settled().objects > 0);
        let empty: Vec<Scope> = spec.selection.scopes().into_iter().filter(|scope| !selects(scope)).collect();
        if empty.is_empty() {
            return Ok(());
        }
        let some: Vec<_> = empty.iter().take(5).map(|scope| format!("`{}`", scope.prefix())).collect();
        let note = format!("{} entries of the selection match no object: {}", empty.len(), some.join(", "));
        let mut tx = self.begin_write().await?;
        tx.set_note(self.task.id, &note).await?;
        tx.commit().await
    }

    pub(super) async fn finish(&self, clock: &SharedClock) -> Result<JobEnd> {
        let task = &self.task;
        let mut tx = self.begin_write().await?;
        if task.failed_only {
            tx.drop_failures_before(task.id, task.run_began_at).await?;
        }
        tx.set_precount_done(task.id).await?;
        let now = tx.task(task.id).await?;
        let waits = tx.waiting_since(task.id).await?;
        tx.commit().await?;
        if let Some(since) = waits {
            return Ok(JobEnd::WaitsForRestore { since });
        }
        let (failed, found, outcome_len) = now
            .map_or((0, 1, 0), |t| (t.counters.failed.objects, t.counters.settled().objects, t.outcome_len));
        let whole = task.spec.selection.entries().iter().any(String::is_empty);
        let alone = matches!(task.parent, Parent::None) && task.spec.api_version != ApiVersion::Cli;
        // An empty bucket is complete; a prefix or key that selects nothing is a mistake (OMS §4.1).
        if found == 0 && !whole && alone && !task.failed_only && !task.spec.selection.names_keys() {
            let m = "the selection does not match any object of the source";
            return Err(Error::new(Kind::NotFound, "select", m));
        }
        let spec = &task.spec;
        self.note_empty_scopes().await?;
        self.note_ignored().await?;
        // A foreground copy keeps its outcome file here, and leaves none at the target.
        let writes = spec.api_version != ApiVersion::Cli && !spec.extensions.dry_run;
        if writes && (spec.record_outcomes || spec.record_failures) {
            let plan = records::Plan {
                task: task.id,
                name: task.name.clone(),
                member: task.parent.clone(),
                outcome: outcome::path_in(&self.data_dir, task.id),
                outcome_len,
                outcomes: spec.record_outcomes,
                failures: spec.record_failures,
                reports: spec.extensions.reports.clone(),
                failed,
                now: clock.now_ms(),
            };
            let target: storage::SharedStore = self.target.clone();
            let written = tokio::select! {
                records = records::write(&plan, &self.store, &target) => records,
                () = self.stop.cancelled() => return Ok(JobEnd::Stopped),
            };
            let json = serde_json::to_value(&written)
                .map_err(|e| Error::new(Kind::Internal, "records", e.to_string()))?;
            let mut tx = self.begin_write().await?;
            tx.set_records(task.id, &json).await?;
            tx.commit().await?;
        }
        Ok(JobEnd::Finished { failed })
    }
}
