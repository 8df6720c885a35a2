//! Moving one object or one part, and proving it (`proof.rs` says what proves).
//!
//! A mismatch is confirmed by one more attempt, then the object has failed; what passes (a lost connection, a busy
//! store) is tried again within the bounds of the back-off.

mod digests;
mod files;
pub(crate) mod multipart;
mod part;
pub(crate) mod parts_limit;
pub mod plan;
pub(crate) mod proof;
mod removal;
mod target_meta;
pub mod versions;

use std::sync::Arc;
use std::time::Instant;

use flow_control::backoff::Backoff;
use flow_control::budget::Memory;
use flow_control::io_threads::IoThreads;
use flow_control::limit::Permit;
use model::count::Proof;
use model::error::{Error, Kind, Policy, Reason, Result, Side};
use model::key::Key;
use model::selection::Selection;
use model::spec::TaskSpec;
use storage::body::{Observation, ObserverOptions};
use storage::checksum::DigestSet;
use storage::retrying::RetryingStore;
use storage::{Entry, Etag, Fact, Meta, ObjectStore, ReadRequest, UploadedPart, Written};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ledger::Ledger;
use crate::ledger::outcome::Outcome;
use crate::listing::lister::{exists_with_plus, is_listed};
use crate::progress::Progress;
use crate::transfer::parts_limit::PartsLimit;
use crate::transfer::proof::{ReportedDigests, Verdict, stream_check};
use part::AbortUnlessSent;
pub(crate) use part::PartJob;

/// Buffers that one transfer may hold: the connection's read buffer and a chunk on its way.
const TRANSFER_BUFFER: u64 = 512 << 10;

/// A source sends about as much before anybody reads: the buffers of a connection.
const PREPAID_BYTES: u64 = 256 << 10;

/// Attempts that end in a mismatch before an object has failed.
pub(crate) const MAX_MISMATCHES: u32 = 2;

/// A restored object stays readable for so many days (OMS §4.6).
const RESTORED_DAYS: u32 = 3;

/// What every transfer of a job shares.
#[derive(Debug)]
pub(crate) struct ObjectCopier {
    pub(crate) spec: TaskSpec,
    pub(crate) source: Arc<RetryingStore>,
    pub(crate) target: Arc<RetryingStore>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) io_threads: Arc<IoThreads>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) backoff: Backoff,
    pub(crate) ledger: Ledger,
    pub(crate) stop: CancellationToken,
    pub(crate) server_side: bool,
    /// Large objects under way at once.
    pub(crate) multipart: tokio::sync::Semaphore,
    pub(crate) multipart_max: usize,
    /// Parts of large objects in flight.
    pub(crate) parts: Arc<PartsLimit>,
    /// Writes that cannot be called back.
    pub(crate) uncancellable: TaskTracker,
    /// Attempts to find out how the target verifies checksums; one at a time.
    pub(crate) crc_proofs: Arc<tokio::sync::Mutex<u32>>,
}

/// Permits to transfer one object or part: one at each end.
pub(crate) struct Permits {
    source: Permit,
    target: Option<Permit>,
}

impl Permits {
    fn succeeded(self) {
        self.source.succeeded();
        if let Some(target) = self.target {
            target.succeeded();
        }
    }
}

/// How an object ended, or why the whole task has to.
pub(crate) enum TransferEnd {
    Outcome(Outcome, u64),
    TaskFailed(Error),
}

impl ObjectCopier {
    /// The same, under another stop.
    pub(crate) fn with_stop(&self, stop: CancellationToken) -> ObjectCopier {
        ObjectCopier {
            spec: self.spec.clone(),
            source: self.source.clone(),
            target: self.target.clone(),
            memory: self.memory.clone(),
            io_threads: self.io_threads.clone(),
            progress: self.progress.clone(),
            backoff: self.backoff,
            ledger: self.ledger.clone(),
            stop,
            server_side: self.server_side,
            multipart: tokio::sync::Semaphore::new(self.multipart_max),
            multipart_max: self.multipart_max,
            parts: self.parts.clone(),
            uncancellable: self.uncancellable.clone(),
            crc_proofs: self.crc_proofs.clone(),
        }
    }

    /// A write cannot be cancelled once its last byte is sent: the server stores it. It continues when its caller is stopped, and the
    /// job waits for it before the task is paused. `left`: the last byte is sent.
    async fn run_uncancellable<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
        left: impl Fn() -> bool,
    ) -> Result<T> {
        let task = self.uncancellable.spawn(work);
        let _recall = AbortUnlessSent(task.abort_handle(), left);
        task.await.map_err(|e| Error::new(Kind::Internal, "copy", e.to_string()))?
    }

    /// The object of an upload, which nobody calls back once it is asked for.
    pub(crate) async fn complete_upload(
        &self,
        to: &Key,
        upload: &str,
        parts: &[UploadedPart],
    ) -> Result<Written> {
        let (target, to) = (self.target.clone(), to.clone());
        let (upload, parts) = (upload.to_owned(), parts.to_vec());
        self.run_uncancellable(async move { target.complete_upload(&to, &upload, &parts).await }, || true)
            .await
    }

    fn limits(&self) -> (&Arc<flow_control::limit::Limit>, &Arc<flow_control::limit::Limit>) {
        (self.source.limit(), self.target.limit())
    }

    /// Waits for a permit at each end, always in one order, so that two tasks cannot wait for each other.
    pub(crate) async fn acquire_permits(&self) -> Permits {
        let (s, t) = self.limits();
        if Arc::ptr_eq(s, t) {
            return Permits { source: s.acquire().await, target: None };
        }
        if Arc::as_ptr(s) < Arc::as_ptr(t) {
            let source = s.acquire().await;
            Permits { source, target: Some(t.acquire().await) }
        } else {
            let target = t.acquire().await;
            Permits { source: s.acquire().await, target: Some(target) }
        }
    }

    pub(crate) fn try_acquire_permits(&self) -> Option<Permits> {
        let (s, t) = self.limits();
        let source = s.try_acquire()?;
        if Arc::ptr_eq(s, t) {
            return Some(Permits { source, target: None });
        }
        Some(Permits { source, target: Some(t.try_acquire()?) })
    }

    /// True when more could be in flight: a reason to split ranges.
    pub(crate) fn has_capacity(&self) -> bool {
        self.source.limit().has_room() && self.target.limit().has_room()
    }

    /// Moves one object in one read and one write, with retries.
    pub(crate) async fn copy_single(self: Arc<Self>, entry: Entry, first: Permits) -> TransferEnd {
        let mut permits = Some(first);
        let mut wanted = self.digests_for(&entry.etag);
        let mut if_match = Some(entry.etag.clone());
        let (mut attempt, mut mismatches, began) = (1, 0, Instant::now());
        let mut wrote_wrong = false;
        loop {
            let held = match permits.take() {
                Some(permits) => permits,
                None => self.acquire_permits().await,
            };
            let checked = self.target.capability().write_checksum;
            let failure = match self.copy_single_once(&entry, if_match.clone(), wanted).await {
                Ok((size, Verdict::Proved(proof))) => {
                    held.succeeded();
                    return TransferEnd::Outcome(Outcome::Copied(proof), size);
                }
                Ok((size, Verdict::Unproved)) => {
                    held.succeeded();
                    return TransferEnd::Outcome(Outcome::Copied(Proof::Size), size);
                }
                Ok((_, Verdict::NeedDigest)) => mismatch("ETags of source and target differ".into()),
                Ok((_, Verdict::Differs(why))) => mismatch(why),
                Err(failure) => failure,
            };
            drop(held);
            wrote_wrong |= failure.reason == Reason::WrongObjectWritten;
            match failure.kind {
                Kind::Mismatch => {
                    mismatches += 1;
                    if mismatches < MAX_MISMATCHES {
                        tracing::debug!(key = %entry.key, "retrying once: {failure}");
                        wanted.md5 = true;
                        continue;
                    }
                }
                Kind::ChecksumRequired if !checked => {
                    self.target.learn(Fact::WriteChecksum);
                    continue;
                }
                Kind::NotFound if failure.side == Side::Source => {
                    return self.source_missing(&entry.key, failure, entry.size).await;
                }
                Kind::Archived if failure.side == Side::Source => {
                    return self.request_restore(&entry, failure).await;
                }
                // It changed since it was listed: take it as it is now, in one read.
                Kind::Changed if failure.side == Side::Source => if_match = None,
                _ => {}
            }
            match self.pause_before_retry(&failure, attempt, began).await {
                None => attempt += 1,
                Some(end) if wrote_wrong => {
                    let end = self.remove_wrong_copy(&entry, end).await;
                    return self.end_of_failure(end, entry.size);
                }
                Some(end) => {
                    return self.end_of_failure(end, entry.size);
                }
            }
        }
    }

    /// An object that a read did not find. It is gone only when the source does not list it any more: an index may
    /// show objects whose data is lost. One that a list names is missing.
    pub(crate) async fn source_missing(&self, key: &Key, failure: Error, size: u64) -> TransferEnd {
        if !self.spec.selection.names_keys() && !self.source.capability().list_keys_only {
            match is_listed(self.source.clone(), key, Side::Source).await {
                Ok(false) => match exists_with_plus(&*self.source, key).await {
                    Ok(false) => {}
                    Ok(true) => {
                        let message = format!("`{key}`: the server lists the key without encoding its `+`");
                        return TransferEnd::Outcome(Outcome::Failed(Error { message, ..failure }), size);
                    }
                    Err(failure) => return self.end_of_failure(failure, size),
                },
                Ok(true) => {
                    let message = format!("{}: the object is still listed", failure.message);
                    return TransferEnd::Outcome(Outcome::Failed(Error { message, ..failure }), size);
                }
                Err(failure) => return self.end_of_failure(failure, size),
            }
        }
        if self.spec.extensions.delete && matches!(self.spec.selection, Selection::Keys(_)) {
            // An event said that something happened to this key, and it is not there any more.
            if self.spec.extensions.dry_run {
                return TransferEnd::Outcome(Outcome::Skipped("would be deleted"), 0);
            }
            return self.delete_missing(key, failure, size).await;
        }
        if self.spec.selection.names_keys() {
            return TransferEnd::Outcome(Outcome::Failed(Error { op: "head", ..failure }), size);
        }
        TransferEnd::Outcome(Outcome::Gone, size)
    }

    /// The same, for objects whose restoration was waited for in vain.
    pub(crate) fn without_restore(&self) -> ObjectCopier {
        let again = self.with_stop(self.stop.clone());
        ObjectCopier { spec: TaskSpec { restore: false, ..again.spec }, ..again }
    }

    /// An archived object: asked to be restored where the task wants that, else failed.
    pub(crate) async fn request_restore(&self, entry: &Entry, failure: Error) -> TransferEnd {
        if !self.spec.restore {
            return TransferEnd::Outcome(Outcome::Failed(failure), entry.size);
        }
        match self.source.restore(&entry.key, RESTORED_DAYS).await {
            Ok(()) => TransferEnd::Outcome(Outcome::Waiting, entry.size),
            Err(refused) => self.end_of_failure(refused, entry.size),
        }
    }

    pub(crate) fn end_of_failure(&self, failure: Error, size: u64) -> TransferEnd {
        match failure.kind.policy() {
            Policy::StopTask => TransferEnd::TaskFailed(failure),
            _ => TransferEnd::Outcome(Outcome::Failed(failure), size),
        }
    }

    /// Sleeps before the next attempt; gives the failure back when there is to be none.
    pub(crate) async fn pause_before_retry(
        &self,
        failure: &Error,
        attempt: u32,
        began: Instant,
    ) -> Option<Error> {
        let delay = self.backoff.delay(attempt, began.elapsed(), fastrand::f64());
        match delay.filter(|_| failure.is_temporary()) {
            None => Some(failure.clone()),
            Some(delay) => {
                self.progress.record_retry(failure);
                tracing::debug!(op = failure.op, kind = ?failure.kind, attempt, "retrying: {failure}");
                tokio::time::sleep(delay).await;
                None
            }
        }
    }

    async fn copy_single_once(
        &self,
        entry: &Entry,
        if_match: Option<Etag>,
        wanted: DigestSet,
    ) -> Result<(u64, Verdict)> {
        let to = entry.key.under(&self.spec.save_prefix);
        if self.server_side && entry.etag.md5().is_some() {
            let bucket = self.source.bucket().to_owned();
            // It changed since it was listed: it is copied as it is now.
            let (etag, size) = match if_match {
                Some(etag) => (etag, entry.size),
                None => {
                    let now = self.source.head(&entry.key, None).await?;
                    (now.etag, now.size)
                }
            };
            let (target, from, at, condition) =
                (self.target.clone(), entry.key.clone(), to.clone(), etag.clone());
            let copy = async move { target.copy_from(&bucket, &from, &at, &condition).await };
            // What the target says of the object that it is to copy, it says of the source.
            let of_source = |f: Error| match f.kind {
                Kind::Changed | Kind::NotFound => Error { side: Side::Source, ..f },
                _ => f,
            };
            let written = self.run_uncancellable(copy, || true).await.map_err(of_source)?;
            let source = ReportedDigests { etag, ..ReportedDigests::default() };
            let stored = ReportedDigests::from(&written);
            return Ok((size, self.verify_written(&to, size, &source, None, &stored).await?));
        }
        if self.directories().is_some() && !entry.key.is_folder() {
            return self.copy_file_once(entry, if_match).await;
        }
        if entry.etag.md5().is_none() && entry.size > 0 {
            self.learn_write_crc(&entry.key).await?;
        }
        let _memory = self.memory.acquire(self.buffer_bytes(entry.size)).await;
        self.progress.bandwidth.acquire(prepaid_bytes(entry.size)).await;
        let request = ReadRequest { size: Some(entry.size), range: None, if_match };
        let reading = self.source.read(&entry.key, &request).await?;
        let size = reading.body.len();
        let told = !entry.etag.is_none() && !reading.meta.etag.is_none();
        let same = told && reading.meta.etag.same_text(&entry.etag);
        if size != entry.size || (told && !same) {
            self.check_length(entry, &reading.meta, same, size).await?;
        }
        let meta = self.target_meta(&entry.key, &with_listed_time(&reading.meta, entry)).await?;
        let mut source = ReportedDigests::from(&reading.meta);
        if source.etag.is_none() && size == entry.size {
            // A response without an ETag is held to that of the listing.
            source.etag = entry.etag.clone();
        }
        let tap = ObserverOptions {
            prepaid: prepaid_bytes(entry.size),
            check: self.checks_content().then(|| stream_check(source.clone())),
            ..self.observer(self.digests_with_source(wanted, &source))
        };
        let (body, seen) = reading.body.observed(&tap);
        let known_md5 = source.etag.md5().copied().filter(|_| self.checks_content());
        let written = match self.with_md5(body, known_md5).await {
            Ok(body) => {
                let (target, at) = (self.target.clone(), to.clone());
                let write = async move { target.write(&at, &meta, body).await };
                self.run_uncancellable(write, || seen.digests().is_some()).await
            }
            Err(failure) => Err(failure),
        };
        let written = attribute_to_source(&seen, written)?;
        if self.source.as_directory().is_some() {
            self.check_unchanged(&entry.key, &reading.meta).await?;
        }
        let verdict =
            self.verify_written(&to, size, &source, seen.digests(), &ReportedDigests::from(&written)).await?;
        Ok((size, verdict))
    }

    /// Memory that a transfer of `size` bytes in one write may take.
    fn buffer_bytes(&self, size: u64) -> u64 {
        match self.target.capability().write_checksum {
            true => size + TRANSFER_BUFFER,
            false => size.min(TRANSFER_BUFFER) + 8192,
        }
    }
}

/// The metadata with the time of the listing, where that is the same time told more exactly: the next run compares with it.
fn with_listed_time(meta: &Meta, entry: &Entry) -> Meta {
    let same = meta.modified_ms.is_some_and(|ms| ms == entry.modified_ms.div_euclid(1000) * 1000);
    Meta { modified_ms: if same { Some(entry.modified_ms) } else { meta.modified_ms }, ..meta.clone() }
}

/// What tells an object from what it was before: its ETag, or where there is none its length and time.
pub(crate) fn identity(meta: &Meta) -> String {
    match meta.etag.is_none() {
        true => format!("{} bytes of {}", meta.size, meta.modified_ms.unwrap_or_default()),
        false => meta.etag.to_string(),
    }
}

/// Bytes that are paid for before a read begins: as much as comes with its answer, whoever waits.
fn prepaid_bytes(size: u64) -> u64 {
    size.min(PREPAID_BYTES)
}

fn mismatch(why: String) -> Error {
    Error::new(Kind::Mismatch, "verify", why).at(Side::Target).because(Reason::WrongObjectWritten)
}

/// A write that failed because its source broke is the source's failure.
fn attribute_to_source<T>(seen: &Observation, written: Result<T>) -> Result<T> {
    written.map_err(|failure| seen.failure().map_or(failure, |f| f.at(Side::Source)))
}
