//! What became of each object of a task, as a file to hand out. It is a copy below the data directory, since a task may write on
//! while its report is read; copies are few, and a reserve of the disk stays free.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use flow_control::caller_limit::{CallerLimit, Reservation};
use model::error::{Error, Kind, Result};
use model::spec::ReportForm;
use model::task::TaskId;
use storage::disk_space;

use crate::Control;
use crate::task_error::{TaskError, TaskResult};

/// Reports that are made or read at once, in total.
const MAX_REPORTS: u64 = 8;
/// Reports of one project that are made or read at once.
const MAX_REPORTS_PER_PROJECT: u64 = 2;
/// A report has at most so many bytes for each byte of the outcome file: keys stand in it twice.
const BYTES_PER_OUTCOME_BYTE: u64 = 3;

/// The places of reports; clones share the same.
#[derive(Clone, Debug)]
pub struct ReportLimit(CallerLimit<String>);

impl Default for ReportLimit {
    fn default() -> Self {
        Self(CallerLimit::new(MAX_REPORTS, MAX_REPORTS_PER_PROJECT))
    }
}

/// A report and its place: both end when this is dropped.
#[derive(Debug)]
pub struct ReportFile {
    /// Opened at its beginning; it has no name any more.
    pub file: File,
    /// Bytes.
    pub length: u64,
    _place: Reservation<String>,
}

/// Where outcomes are read from.
enum OutcomeSource {
    Own(PathBuf),
    /// Removed when it is dropped.
    Copy(tempfile::TempPath),
}

impl OutcomeSource {
    fn path(&self) -> &Path {
        match self {
            OutcomeSource::Own(path) => path,
            OutcomeSource::Copy(path) => path,
        }
    }
}

fn failed(e: std::io::Error) -> Error {
    let kind = match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::NoSpace,
        _ => Kind::Internal,
    };
    Error::new(kind, "report", e.to_string())
}

/// Copies until the end, or until nobody waits for the copy any more.
fn copy(from: &mut impl Read, to: &mut impl Write, spool: &Path, waiting: &Weak<()>) -> Result<()> {
    loop {
        disk_space::check(spool)?;
        let piece =
            std::io::copy(&mut from.by_ref().take(disk_space::CHECK_INTERVAL_BYTES), to).map_err(failed)?;
        if piece == 0 {
            return to.flush().map_err(failed);
        }
        if waiting.strong_count() == 0 {
            return Err(Error::new(Kind::Internal, "report", "its caller has disconnected"));
        }
    }
}

impl Control {
    /// The outcomes so far in a form, or as they are kept; where some were lost, the file says so.
    ///
    /// # Errors
    /// [`TaskError::NotFound`] when the project has no such task; [`TaskError::Busy`] when as many reports as may be are made or
    /// read; when the disk is full or fails.
    pub async fn report(
        &self,
        project: &str,
        id: TaskId,
        form: Option<ReportForm>,
    ) -> TaskResult<ReportFile> {
        let len = self.engine.store().read().await?.task_of(project, id).await?.outcome_len;
        let place = self.reports.0.reserve(project.to_owned(), 1);
        let place = place.ok_or(TaskError::Busy("too many reports of this project are read"))?;
        let spool = self.engine.data_dir().join("spool");
        let outcome = self.outcome_file(id, len, &spool).await?;
        // Dropped with this call, also where its caller leaves.
        let waits = Arc::new(());
        let waiting = Arc::downgrade(&waits);
        #[expect(clippy::disallowed_methods, reason = "as many as there are places")]
        let made = tokio::task::spawn_blocking(move || {
            seal::private_dir(&spool).map_err(failed)?;
            disk_space::check_for(&spool, len.saturating_mul(BYTES_PER_OUTCOME_BYTE))?;
            let mut temp = tempfile::NamedTempFile::new_in(&spool).map_err(failed)?;
            match form {
                Some(form) => object_migration::report::table::write(outcome.path(), len, temp.path(), form)?,
                None => {
                    let mut lines = object_migration::ledger::outcome::lines(outcome.path(), len)?;
                    copy(&mut lines, &mut temp, &spool, &waiting)?;
                }
            }
            let file = File::open(temp.path()).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            Ok(ReportFile { file, length, _place: place })
        });
        let made = made.await.map_err(|e| Error::new(Kind::Internal, "report", e.to_string()));
        drop(waits);
        made.and_then(|file| file).map_err(TaskError::Internal)
    }

    /// The outcomes of a task as a file: that of this process, or a copy of what another wrote to a shared database.
    async fn outcome_file(&self, id: TaskId, len: u64, spool: &Path) -> Result<OutcomeSource> {
        let store = self.engine.store();
        if !store.is_shared() {
            let path = object_migration::ledger::outcome::path_in(self.engine.data_dir(), id);
            return Ok(OutcomeSource::Own(path));
        }
        seal::private_dir(spool).map_err(failed)?;
        disk_space::check_for(spool, len)?;
        let path = tempfile::NamedTempFile::new_in(spool).map_err(failed)?.into_temp_path();
        object_migration::ledger::outcome::fetch(store, id, &path, len).await?;
        Ok(OutcomeSource::Copy(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_f19_reports_are_limited_per_project_and_in_total() {
        let limit = ReportLimit::default();
        let of = |project: &str| -> Vec<_> {
            (0..MAX_REPORTS).map_while(|_| limit.0.reserve(project.to_owned(), 1)).collect()
        };
        let first = of("a");
        assert_eq!(first.len() as u64, MAX_REPORTS_PER_PROJECT);
        let others: Vec<_> = (0..MAX_REPORTS).flat_map(|i| of(&format!("p{i}"))).collect();
        assert_eq!((first.len() + others.len()) as u64, MAX_REPORTS);
        drop(first);
        assert_eq!(of("a").len() as u64, MAX_REPORTS_PER_PROJECT);
    }

    #[test]
    fn sec_f19_report_ends_when_its_caller_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let waits = Arc::new(());
        let waiting = Arc::downgrade(&waits);
        let text = b"C\tkey\n".repeat(1000);
        let mut copied = Vec::new();
        copy(&mut text.as_slice(), &mut copied, dir.path(), &waiting).unwrap();
        assert_eq!(copied, text);
        drop(waits);
        let mut endless = std::io::repeat(b'x');
        assert!(copy(&mut endless, &mut std::io::sink(), dir.path(), &waiting).is_err());
    }
}
