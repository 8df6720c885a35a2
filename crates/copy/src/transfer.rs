//! Moving one object or one part, and proving it.

use std::sync::Arc;
use std::time::Instant;

use model::count::Proof;
use model::failure::{Failure, Kind, Policy, Result, Side};
use model::key::Key;
use model::policy::{Check, MetadataRule, StoragePolicy};
use model::selection::Selection;
use model::spec::TaskSpec;
use pace::backoff::Backoff;
use pace::budget::Memory;
use pace::lanes::Lanes;
use pace::limit::Permit;
use storage::body::{Seen, Tap};
use storage::checksum::{Digests, Wanted};
use storage::guard::Guarded;
use storage::{Entry, Etag, Meta, ObjectStore, ReadRequest, Written};
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::outcome::Outcome;
use crate::progress::Progress;

/// Buffers that one transfer may hold: the connection's read buffer and a chunk on its way.
const BUFFER: u64 = 512 << 10;

/// A restored object stays readable for so many days (OMS §4.6).
const RESTORED_DAYS: u32 = 3;

/// What every transfer of a job shares.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) spec: TaskSpec,
    pub(crate) source: Arc<Guarded>,
    pub(crate) target: Arc<Guarded>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) backoff: Backoff,
    pub(crate) ledger: Ledger,
    pub(crate) stop: CancellationToken,
    pub(crate) server_side: bool,
    /// Large objects under way at once.
    pub(crate) large: tokio::sync::Semaphore,
    pub(crate) large_max: usize,
}

/// The right to move one thing: a place at each end.
pub(crate) struct Places {
    source: Permit,
    target: Option<Permit>,
}

impl Places {
    fn succeeded(self) {
        self.source.succeeded();
        if let Some(target) = self.target {
            target.succeeded();
        }
    }
}

/// How an object ended, or why the whole task has to.
pub(crate) enum End {
    Outcome(Outcome, u64),
    Broke(Failure),
}

/// A copied object that could not be proved by ETag may be proved by a digest on a second attempt.
enum Verdict {
    Proved(Proof),
    NeedDigest,
    Differs(String),
}

impl Carrier {
    /// The same, under another stop.
    pub(crate) fn again(&self, stop: CancellationToken) -> Carrier {
        Carrier {
            spec: self.spec.clone(),
            source: self.source.clone(),
            target: self.target.clone(),
            memory: self.memory.clone(),
            lanes: self.lanes.clone(),
            progress: self.progress.clone(),
            backoff: self.backoff,
            ledger: self.ledger.clone(),
            stop,
            server_side: self.server_side,
            large: tokio::sync::Semaphore::new(self.large_max),
            large_max: self.large_max,
        }
    }

    fn ends(&self) -> (&Arc<pace::limit::Limit>, &Arc<pace::limit::Limit>) {
        (self.source.limit(), self.target.limit())
    }

    /// Waits for a place at each end, always in one order, so that two tasks cannot wait for each other.
    pub(crate) async fn places(&self) -> Places {
        let (s, t) = self.ends();
        if Arc::ptr_eq(s, t) {
            return Places { source: s.acquire().await, target: None };
        }
        if Arc::as_ptr(s) < Arc::as_ptr(t) {
            let source = s.acquire().await;
            Places { source, target: Some(t.acquire().await) }
        } else {
            let target = t.acquire().await;
            Places { source: s.acquire().await, target: Some(target) }
        }
    }

    pub(crate) fn try_places(&self) -> Option<Places> {
        let (s, t) = self.ends();
        let source = s.try_acquire()?;
        if Arc::ptr_eq(s, t) {
            return Some(Places { source, target: None });
        }
        Some(Places { source, target: Some(t.try_acquire()?) })
    }

    /// True when more could be in flight: a reason to split ranges.
    pub(crate) fn idle(&self) -> bool {
        self.source.limit().has_room() && self.target.limit().has_room()
    }

    /// Moves one object in one read and one write, with retries.
    pub(crate) async fn whole(self: Arc<Self>, entry: Entry, first: Places) -> End {
        let mut places = Some(first);
        let mut wanted = self.digests_for(&entry.etag);
        let mut if_match = Some(entry.etag.clone());
        let (mut attempt, began) = (1, Instant::now());
        loop {
            let held = match places.take() {
                Some(places) => places,
                None => self.places().await,
            };
            let failure = match self.whole_once(&entry, if_match.clone(), wanted).await {
                Ok((size, Verdict::Proved(proof))) => {
                    held.succeeded();
                    return End::Outcome(Outcome::Copied(proof), size);
                }
                Ok((_, Verdict::NeedDigest)) => {
                    wanted.md5 = true;
                    continue;
                }
                Ok((_, Verdict::Differs(why))) => Failure::new(Kind::Corrupt, "verify", why).at(Side::Target),
                Err(failure) => failure,
            };
            drop(held);
            match failure.kind {
                Kind::NotFound if failure.side == Side::Source => {
                    return self.gone(&entry.key, failure, entry.size).await;
                }
                Kind::Archived if failure.side == Side::Source => return self.restore(&entry, failure).await,
                // It changed since it was listed: take it as it is now, in one read.
                Kind::Changed if failure.side == Side::Source => if_match = None,
                _ => {}
            }
            match self.pause_before_retry(&failure, attempt, began).await {
                None => attempt += 1,
                Some(end) => return self.ended(end, entry.size),
            }
        }
    }

    /// An object that is not at the source any more. One that a list names is missing.
    pub(crate) async fn gone(&self, key: &Key, failure: Failure, size: u64) -> End {
        if self.spec.beyond.delete && matches!(self.spec.selection, Selection::Keys(_)) {
            // An event said that something happened to this key, and it is not there any more.
            if self.spec.beyond.dry_run {
                return End::Outcome(Outcome::Skipped("would be deleted"), 0);
            }
            let to = key.under(&self.spec.save_prefix);
            return match self.target.delete(&to).await {
                Ok(()) => End::Outcome(Outcome::Deleted, 0),
                Err(failure) => self.ended(failure, 0),
            };
        }
        if self.spec.selection.names_keys() {
            return End::Outcome(Outcome::Failed(Failure { op: "head", ..failure }), size);
        }
        End::Outcome(Outcome::Gone, size)
    }

    /// The same, for objects whose restoration was waited for in vain.
    pub(crate) fn without_restore(&self) -> Carrier {
        let again = self.again(self.stop.clone());
        Carrier { spec: TaskSpec { restore: false, ..again.spec }, ..again }
    }

    /// An archived object: asked to be restored where the task wants that, else failed.
    pub(crate) async fn restore(&self, entry: &Entry, failure: Failure) -> End {
        if !self.spec.restore {
            return End::Outcome(Outcome::Failed(failure), entry.size);
        }
        match self.source.restore(&entry.key, RESTORED_DAYS).await {
            Ok(()) => End::Outcome(Outcome::Waiting, entry.size),
            Err(refused) => self.ended(refused, entry.size),
        }
    }

    pub(crate) fn ended(&self, failure: Failure, size: u64) -> End {
        match failure.kind.policy() {
            Policy::StopTask => End::Broke(failure),
            _ => End::Outcome(Outcome::Failed(failure), size),
        }
    }

    /// Sleeps before the next attempt; gives the failure back when there is to be none.
    pub(crate) async fn pause_before_retry(
        &self,
        failure: &Failure,
        attempt: u32,
        began: Instant,
    ) -> Option<Failure> {
        let delay = self.backoff.delay(attempt, began.elapsed(), fastrand::f64());
        match delay.filter(|_| failure.is_temporary()) {
            None => Some(failure.clone()),
            Some(delay) => {
                self.progress.trouble(failure);
                tracing::debug!(op = failure.op, kind = ?failure.kind, attempt, "retrying: {failure}");
                tokio::time::sleep(delay).await;
                None
            }
        }
    }

    async fn whole_once(
        &self,
        entry: &Entry,
        if_match: Option<Etag>,
        wanted: Wanted,
    ) -> Result<(u64, Verdict)> {
        let to = entry.key.under(&self.spec.save_prefix);
        if self.server_side && entry.etag.md5().is_some() {
            let bucket = self.source.bucket().to_owned();
            let etag = if_match.clone().unwrap_or_default();
            let written = self.target.copy_from(&bucket, &entry.key, &to, &etag).await?;
            let source = Meta { etag: entry.etag.clone(), ..Meta::default() };
            return Ok((entry.size, verdict(&source, None, &written, wanted)));
        }
        let _memory = self.memory.hold(entry.size.min(BUFFER) + 8192).await;
        let request = ReadRequest { range: None, if_match };
        let reading = self.source.read(&entry.key, &request).await?;
        let meta = self.target_meta(&entry.key, &reading.meta).await?;
        let size = reading.body.len();
        let (body, seen) = reading.body.tapped(&self.tap(wanted));
        let written = blame(&seen, self.target.write(&to, &meta, body).await)?;
        Ok((size, verdict(&reading.meta, seen.digests(), &written, wanted)))
    }

    pub(crate) fn tap(&self, wanted: Wanted) -> Tap {
        Tap { wanted, bandwidth: Some(self.progress.bandwidth.clone()), moved: self.progress.moved.clone() }
    }

    /// Which digests must be computed in flight, because no ETag will prove the copy for free.
    pub(crate) fn digests_for(&self, source: &Etag) -> Wanted {
        if matches!(self.spec.check, Check::None | Check::Size) {
            return Wanted::default();
        }
        let target_md5 = self.target.capability().etag_is_md5;
        let source_md5 = source.md5().is_some() || source.parts().is_some();
        // The store keeps this CRC of whatever is written: it proves what MD5s cannot.
        let ecma = self.target.capability().ecma && (!source_md5 || self.spec.check == Check::Crc64);
        Wanted { md5: target_md5 != source_md5, crc64: !target_md5, ecma }
    }

    /// What the object's metadata is to be at the target.
    pub(crate) async fn target_meta(&self, key: &Key, source: &Meta) -> Result<Meta> {
        let mut meta = Meta { size: source.size, modified_ms: source.modified_ms, ..Meta::default() };
        let capability = self.target.capability();
        match self.spec.metadata {
            MetadataRule::All => {
                meta.headers = source.headers.clone();
                meta.modes.clone_from(&source.modes);
                if source.tag_count > 0 && capability.tags && self.source.capability().tags {
                    meta.tags = self.source.tags(key).await?;
                }
            }
            MetadataRule::ContentType => {
                let basic = |n: &http::HeaderName| {
                    n == http::header::CONTENT_TYPE || n == http::header::CONTENT_ENCODING
                };
                meta.headers = source.headers.iter().filter(|(n, _)| basic(n)).cloned().collect();
            }
        }
        if capability.storage_class {
            meta.class = class(self.spec.storage, source.class.as_deref()).map(str::to_owned);
        }
        if self.spec.beyond.acl && capability.acl && self.source.capability().acl {
            meta.acl = self.source.acl(key).await?;
        }
        if self.spec.kms {
            meta.encryption = Some("aws:kms".into());
        }
        Ok(meta)
    }

    /// Moves one part, with retries; the digests are those of its bytes in flight.
    pub(crate) async fn part(self: Arc<Self>, job: PartJob) -> Result<(storage::Part, Option<Digests>)> {
        let (mut attempt, began) = (1, Instant::now());
        loop {
            let held = self.places().await;
            let failure = match self.part_once(&job).await {
                Ok(done) => {
                    held.succeeded();
                    return Ok(done);
                }
                Err(failure) => failure,
            };
            drop(held);
            if failure.kind == Kind::Changed || failure.kind == Kind::NotFound {
                return Err(failure);
            }
            match self.pause_before_retry(&failure, attempt, began).await {
                None => attempt += 1,
                Some(end) => return Err(end),
            }
        }
    }

    async fn part_once(&self, job: &PartJob) -> Result<(storage::Part, Option<Digests>)> {
        let _memory = self.memory.hold(BUFFER).await;
        let request = ReadRequest { range: Some(job.range.clone()), if_match: Some(job.etag.clone()) };
        let reading = self.source.read(&job.from, &request).await?;
        if reading.body.len() != job.range.end - job.range.start {
            let m = format!("`{}`: the range came with another length", job.from);
            return Err(Failure::new(Kind::Corrupt, "read", m).at(Side::Source));
        }
        let (body, seen) = reading.body.tapped(&self.tap(job.wanted));
        let written = self.target.write_part(&job.to, &job.upload, job.number, job.range.start, body).await;
        let part = blame(&seen, written)?;
        let digests = seen.digests();
        if let Some(why) = part_differs(&part, digests) {
            return Err(Failure::new(Kind::Corrupt, "write_part", why).at(Side::Target));
        }
        Ok((part, digests))
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
    pub(crate) wanted: Wanted,
}

/// A write that failed because its source broke is the source's failure.
fn blame<T>(seen: &Seen, written: Result<T>) -> Result<T> {
    written.map_err(|failure| seen.failure().map_or(failure, |f| f.at(Side::Source)))
}

/// A part whose stored digest differs from the one in flight.
fn part_differs(part: &storage::Part, digests: Option<Digests>) -> Option<String> {
    let digests = digests?;
    let md5 = digests.md5.map(|m| storage::checksum::hex(&m));
    let crc64 = digests.crc64.map(|c| storage::checksum::hex(&c.to_be_bytes()));
    let stored = part.etag.to_ascii_lowercase();
    // An ETag that is no digest of a known form (encrypted targets) cannot be compared.
    let same = match stored.len() {
        32 => md5.as_ref().is_none_or(|m| *m == stored),
        16 => crc64.as_ref().is_none_or(|c| *c == stored),
        _ => true,
    };
    (!same).then(|| format!("part {}: stored {stored}, sent {md5:?} {crc64:?}", part.number))
}

fn verdict(source: &Meta, digests: Option<Digests>, written: &Written, wanted: Wanted) -> Verdict {
    let digests = digests.unwrap_or_default();
    let equal = |a: Option<u64>, b: Option<u64>| Some(a? == b?);
    // What was read must be what the source says it has.
    let read = match (source.etag.md5(), digests.md5) {
        (Some(s), Some(d)) => Some(*s == d),
        _ => None,
    };
    // What was stored must be what was read.
    let stored = match (written.etag.md5(), digests.md5) {
        (Some(w), Some(d)) => Some(*w == d),
        _ => equal(written.crc64, digests.crc64).or(equal(written.ecma, digests.ecma)),
    };
    // Both stores keep the same kind of CRC.
    let crc = equal(source.ecma, written.ecma).or(equal(source.crc64, written.crc64));
    let source = &source.etag;
    match (source.proves(&written.etag), read, stored) {
        _ if crc == Some(false) => Verdict::Differs("the CRC-64 of both sides differ".into()),
        (Some(true), ..) => Verdict::Proved(Proof::Etag),
        _ if crc == Some(true) => Verdict::Proved(Proof::Crc64),
        // Unequal ETags may only mean that one side's is no MD5 (encryption): a digest in flight tells.
        (Some(false), _, Some(true)) => Verdict::Proved(Proof::Digest),
        (Some(false), _, None) if !wanted.md5 => Verdict::NeedDigest,
        (_, Some(false), _) => Verdict::Differs("the bytes read do not have the source's MD5".into()),
        (_, _, Some(true)) => Verdict::Proved(Proof::Digest),
        (_, _, Some(false)) => {
            Verdict::Differs(format!("the target stored {}, sent other bytes", written.etag))
        }
        (Some(false), ..) => {
            Verdict::Differs(format!("ETag {} at the target, {source} at the source", written.etag))
        }
        (None, Some(true), None) => Verdict::Proved(Proof::Digest),
        (None, None, None) => Verdict::Proved(Proof::Size),
    }
}

/// The target's storage class (OMS §4.9), in S3's words.
pub(crate) fn class(policy: StoragePolicy, source: Option<&str>) -> Option<&'static str> {
    match policy {
        StoragePolicy::Standard => None,
        StoragePolicy::Ia => Some("STANDARD_IA"),
        StoragePolicy::Archive => Some("GLACIER"),
        StoragePolicy::DeepArchive => Some("DEEP_ARCHIVE"),
        StoragePolicy::SrcStorageMapping => match source.unwrap_or_default().to_ascii_uppercase().as_str() {
            "STANDARD_IA" | "ONEZONE_IA" | "IA" | "WARM" | "NEARLINE" | "COOL" => Some("STANDARD_IA"),
            "GLACIER" | "GLACIER_IR" | "ARCHIVE" | "COLD" | "COLDLINE" => Some("GLACIER"),
            "DEEP_ARCHIVE" | "COLD_ARCHIVE" | "DEEPCOLDARCHIVE" => Some("DEEP_ARCHIVE"),
            _ => None,
        },
    }
}
