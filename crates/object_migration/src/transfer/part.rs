//! The copy of one part of an object.

use std::sync::Arc;
use std::time::Instant;

use model::error::{Error, Kind, Reason, Result, Side};
use model::key::Key;
use storage::body::ObserverOptions;
use storage::checksum::{DigestSet, Digests};
use storage::{Etag, Fact, ObjectStore, ReadRequest};
use tokio::task::AbortHandle;

use super::{MAX_MISMATCHES, ObjectCopier, TRANSFER_BUFFER, attribute_to_source, identity, prepaid_bytes};
use crate::transfer::proof::part_differs;

impl ObjectCopier {
    /// Moves one part, with retries; the digests are those of its bytes in flight.
    pub(crate) async fn copy_part(
        self: Arc<Self>,
        job: PartJob,
    ) -> Result<(storage::UploadedPart, Option<Digests>)> {
        let (mut attempt, mut mismatches, began) = (1, 0, Instant::now());
        loop {
            let held = self.acquire_permits().await;
            let checked = self.target.capability().write_checksum;
            let failure = match self.copy_part_once(&job).await {
                Ok(done) => {
                    held.succeeded();
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            drop(held);
            match failure.kind {
                Kind::Mismatch => {
                    mismatches += 1;
                    if mismatches < MAX_MISMATCHES {
                        continue;
                    }
                }
                Kind::ChecksumRequired if !checked => {
                    self.target.learn(Fact::WriteChecksum);
                    continue;
                }
                _ => {}
            }
            if failure.kind == Kind::Changed || failure.kind == Kind::NotFound {
                return Err(failure);
            }
            match self.pause_before_retry(&failure, attempt, began).await {
                None => attempt += 1,
                Some(end) if end.kind == Kind::Mismatch => return Err(end.because(Reason::ConfirmedMismatch)),
                Some(end) => return Err(end),
            }
        }
    }

    async fn copy_part_once(&self, job: &PartJob) -> Result<(storage::UploadedPart, Option<Digests>)> {
        let len = job.range.end - job.range.start;
        let _memory = self.memory.acquire(self.buffer_bytes(len).max(TRANSFER_BUFFER)).await;
        if let Some(directories) = self.directories() {
            return self.copy_file_part(directories, job).await;
        }
        self.progress.bandwidth.acquire(prepaid_bytes(len)).await;
        let request =
            ReadRequest { size: None, range: Some(job.range.clone()), if_match: Some(job.etag.clone()) };
        let reading = self.source.read(&job.from, &request).await?;
        if job.etag.is_none() && identity(&reading.meta) != job.identity {
            let m = format!("`{}` has changed since its first part was read", job.from);
            return Err(Error::new(Kind::Changed, "read", m).at(Side::Source));
        }
        if reading.body.len() != len {
            let m = format!("`{}`: received {} bytes of a range of {len}", job.from, reading.body.len());
            return Err(Error::new(Kind::Mismatch, "read", m).at(Side::Source));
        }
        let tap = ObserverOptions { prepaid: prepaid_bytes(len), ..self.observer(job.wanted) };
        let (body, seen) = reading.body.observed(&tap);
        let written = match self.with_md5(body, None).await {
            Ok(body) => self.target.write_part(&job.to, &job.upload, job.number, job.range.start, body).await,
            Err(failure) => Err(failure),
        };
        let part = attribute_to_source(&seen, written)?;
        let digests = seen.digests();
        if let Some(why) = part_differs(&part, digests) {
            return Err(Error::new(Kind::Mismatch, "write_part", why).at(Side::Target));
        }
        Ok((part, digests))
    }
}

/// Calls work back when it is dropped, unless its last byte has left.
pub(super) struct AbortUnlessSent<F: Fn() -> bool>(pub(super) AbortHandle, pub(super) F);

impl<F: Fn() -> bool> Drop for AbortUnlessSent<F> {
    fn drop(&mut self) {
        if !(self.1)() {
            self.0.abort();
        }
    }
}

/// One part to move.
#[derive(Clone, Debug)]
pub(crate) struct PartJob {
    pub(crate) from: Key,
    pub(crate) to: Key,
    pub(crate) upload: String,
    pub(crate) number: u32,
    pub(crate) range: std::ops::Range<u64>,
    pub(crate) etag: Etag,
    /// [`identity`] of the object that it is a part of.
    pub(crate) identity: String,
    pub(crate) wanted: DigestSet,
}
