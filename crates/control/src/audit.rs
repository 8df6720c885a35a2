//! The audit trail: one line for each changing call, sign-in and refusal, in the database and where `[audit]` says.

use model::error::Result;
pub use store::AuditLine;

use crate::Control;

impl Control {
    /// Writes a line to the database and to the outputs of `[audit]`. The call that it is about has taken effect, so a
    /// failure is only logged.
    pub async fn record_audit(&self, line: &AuditLine) {
        let stored = async {
            let mut tx = self.engine.store().write().await?;
            tx.audit(line).await?;
            tx.commit().await
        };
        if let Err(failure) = stored.await {
            tracing::error!(request_id = %line.request_id, "cannot store an audit line: {failure}");
        }
        if let Err(failure) = self.audit_file.write(line).await {
            tracing::error!(request_id = %line.request_id, "cannot write an audit line: {failure}");
        }
    }

    /// Lines of a project before an instant (milliseconds), newest first; with `without_project` also those of no
    /// project.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn audit_lines(
        &self,
        project: &str,
        without_project: bool,
        before: i64,
        limit: u64,
    ) -> Result<Vec<AuditLine>> {
        self.engine.store().read().await?.audit_lines(project, without_project, before, limit).await
    }

    /// The newest successful changes of a task or migration of a project: those whose path names it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn changes_of(
        &self,
        project: &str,
        id: &str,
        since: i64,
        limit: u64,
    ) -> Result<Vec<AuditLine>> {
        self.engine.store().read().await?.audit_lines_about(project, id, since, limit).await
    }
}
