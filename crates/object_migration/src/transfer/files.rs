//! Copies between two directories of this machine, file to file ([`storage::fs::copy`]). What proves a copy is decided by
//! `proof.rs`, as for every other pair of stores.

use std::sync::atomic::Ordering;

use model::error::{Error, Policy, Result};
use storage::checksum::Digests;
use storage::fs::Fs;
use storage::fs::copy::{CopyControl, FileCopy, PartCopy};
use storage::{Entry, Etag, ObjectStore, UploadedPart};

use super::{ObjectCopier, PartJob};
use crate::transfer::proof::{ReportedDigests, Verdict, compare_digests};

impl ObjectCopier {
    /// Both ends, where both are directories.
    pub(super) fn directories(&self) -> Option<(&Fs, &Fs)> {
        Some((self.source.as_directory()?, self.target.as_directory()?))
    }

    /// One attempt to copy a file.
    pub(super) async fn copy_file_once(
        &self,
        entry: &Entry,
        if_match: Option<Etag>,
    ) -> Result<(u64, Verdict)> {
        let job = FileCopy { from: entry.key.clone(), to: entry.key.under(&self.spec.save_prefix), if_match };
        let control = self.count_file_copy();
        let (source, target) = (self.source.clone(), self.target.clone());
        let rules = self.meta_rules();
        let copy = {
            let control = control.clone();
            async move {
                let (Some(from), Some(to)) = (source.as_directory(), target.as_directory()) else {
                    return Err(Error::stopped("copy"));
                };
                to.copy_file(from, job, control, move |meta| rules.target_meta(meta)).await
            }
        };
        let _memory = self.memory.acquire(self.buffer_bytes(entry.size)).await;
        let copied = self.run_uncancellable(copy, move || !control.cancel()).await;
        let copied = copied.inspect_err(|failure| self.slow_down_after(failure))?;
        let source = ReportedDigests::from(&copied.source);
        let verdict = compare_digests(&source, Some(copied.seen), &ReportedDigests::from(&copied.written));
        Ok((copied.source.size, verdict))
    }

    /// One attempt to copy a part of a file.
    pub(super) async fn copy_file_part(
        &self,
        (from, to): (&Fs, &Fs),
        job: &PartJob,
    ) -> Result<(UploadedPart, Option<Digests>)> {
        let part = PartCopy {
            from: job.from.clone(),
            etag: job.etag.clone(),
            range: job.range.clone(),
            upload: job.upload.clone(),
            number: job.number,
        };
        let copied = to.copy_part(from, &job.to, part, self.count_file_copy()).await;
        let (part, seen) = copied.inspect_err(|failure| self.slow_down_after(failure))?;
        Ok((part, Some(seen)))
    }

    fn count_file_copy(&self) -> CopyControl {
        self.source.requests().get.fetch_add(1, Ordering::Relaxed);
        self.target.requests().put.fetch_add(1, Ordering::Relaxed);
        CopyControl::new(self.progress.bandwidth.clone(), self.progress.moved.clone())
    }

    fn slow_down_after(&self, failure: &Error) {
        if failure.kind.policy() == (Policy::Retry { throttle: true }) {
            self.target.limit().throttled();
        }
    }
}
