//! What became of each object of a task, as a file to hand out.

use std::fs::File;
use std::io::Write;

use model::error::{Error, Kind};
use model::spec::ReportForm;
use model::task::TaskId;

use crate::Control;
use crate::task_error::{TaskError, TaskResult};

impl Control {
    /// The outcomes so far in a form, or as they are kept; where some were lost, the file says so. It has no name any more and goes
    /// with its reader.
    ///
    /// # Errors
    /// [`TaskError::NotFound`] when the project has no such task; when the disk fails.
    pub async fn report(&self, project: &str, id: TaskId, form: Option<ReportForm>) -> TaskResult<File> {
        let len = self.engine.store().read().await?.task_of(project, id).await?.outcome_len;
        let outcome = object_migration::ledger::outcome::path_in(self.engine.data_dir(), id);
        let spool = self.engine.data_dir().join("spool");
        #[expect(clippy::disallowed_methods, reason = "one per request, and requests are few")]
        let made = tokio::task::spawn_blocking(move || {
            let failed = |e: std::io::Error| Error::new(Kind::Internal, "report", e.to_string());
            seal::private_dir(&spool).map_err(failed)?;
            let mut temp = tempfile::NamedTempFile::new_in(&spool).map_err(failed)?;
            match form {
                Some(form) => object_migration::report::table::write(&outcome, len, temp.path(), form)?,
                None => {
                    let mut lines = object_migration::ledger::outcome::lines(&outcome, len)?;
                    std::io::copy(&mut lines, &mut temp).and_then(|_| temp.flush()).map_err(failed)?;
                }
            }
            File::open(temp.path()).map_err(failed)
        });
        let made = made.await.map_err(|e| Error::new(Kind::Internal, "report", e.to_string()));
        made.and_then(|file| file).map_err(TaskError::Internal)
    }
}
