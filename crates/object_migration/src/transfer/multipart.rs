//! A large object: ranged reads feed a multipart upload, part by part, each remembered once it is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use model::count::Proof;
use model::error::{Error, Kind, Policy, Reason, Result, Side};
use model::key::Key;
use storage::capability::PartProof;
use storage::checksum::{Checksums, DigestSet};
use storage::{Entry, Etag, Meta, ObjectStore, UploadedPart, WriteCrc};
use store::{UnresolvedUpload, Upload};
use tokio::task::JoinSet;

use crate::ledger::outcome::Outcome;
use crate::transfer::plan::{Plan, part_count, part_range, plan, wants_layout};
use crate::transfer::proof::{
    ReportedDigests, Verdict, etag_in_flight, etag_of_parts, of_parts, parts_compared, whole_of,
};
use crate::transfer::{MAX_MISMATCHES, ObjectCopier, PartJob, TransferEnd, identity, with_listed_time};

/// How long parts on their way may take once another has ended the task.
const LAST_PARTS_TIMEOUT: Duration = Duration::from_secs(10);
/// Parts of a source that are asked for their length before a layout counts as known.
const LAYOUT_SAMPLES: usize = 16;
/// An object that changes under us is begun anew so many times.
const MAX_RESTARTS: u32 = 3;

impl ObjectCopier {
    /// Moves one large object, with retries and restarts.
    pub(crate) async fn copy_multipart(self: Arc<Self>, entry: Entry) -> TransferEnd {
        let Ok(_slot) = self.multipart.acquire().await else {
            return TransferEnd::TaskFailed(Error::stopped("copy"));
        };
        let (mut attempt, mut restarts, mut mismatches, began) = (1, 0, 0, Instant::now());
        let (mut digest, mut wrote_wrong) = (false, false);
        loop {
            let failure = match self.clone().copy_multipart_once(&entry, digest).await {
                Ok((size, proof)) => return TransferEnd::Outcome(Outcome::Copied(proof), size),
                Err(failure) => failure,
            };
            let at_source = failure.side == Side::Source;
            wrote_wrong |= failure.reason == Reason::WrongObjectWritten;
            match failure.kind {
                // The upload stays open: it is gone on with.
                Kind::Stopped | Kind::LeaseLost => return TransferEnd::TaskFailed(failure),
                Kind::NotFound if at_source => {
                    return self.source_missing(&entry.key, failure, entry.size).await;
                }
                Kind::Archived if at_source => return self.request_restore(&entry, failure).await,
                // The upload vanished at the target: begin a new one.
                Kind::NotFound if restarts < MAX_RESTARTS => {
                    self.ledger.forget_upload(&entry.key);
                    restarts += 1;
                    continue;
                }
                Kind::Changed if restarts < MAX_RESTARTS => {
                    self.abandon_upload(&entry.key).await;
                    restarts += 1;
                    continue;
                }
                // Confirmed by one more attempt, with a digest of every part in flight. A mismatch of one part was
                // confirmed by a second attempt of that part.
                Kind::Mismatch if failure.reason != Reason::ConfirmedMismatch => {
                    mismatches += 1;
                    if mismatches < MAX_MISMATCHES {
                        self.abandon_upload(&entry.key).await;
                        digest = true;
                        continue;
                    }
                }
                // What a person must mend first: the upload stays open and is gone on with.
                kind if kind.policy() == Policy::StopTask => return TransferEnd::TaskFailed(failure),
                _ => {}
            }
            match self.pause_before_retry(&failure, attempt, began).await {
                None => attempt += 1,
                Some(end) => {
                    self.abandon_upload(&entry.key).await;
                    let end = match wrote_wrong {
                        true => self.remove_wrong_copy(&entry, end).await,
                        false => end,
                    };
                    return self.end_of_failure(end, entry.size);
                }
            }
        }
    }

    /// Leaves nothing half done at the target.
    pub(crate) async fn abandon_upload(&self, key: &Key) {
        if let Some(open) = self.ledger.any_upload_of(key) {
            let to = key.under(&self.spec.save_prefix);
            match self.abort_upload(&to, &open).await {
                Ok(()) => self.ledger.forget_upload(key),
                Err(f) => tracing::warn!(%key, "cannot abort an unfinished upload: {f}"),
            }
        }
    }

    /// Aborts an upload; one whose id an interruption swallowed is looked for by its key.
    async fn abort_upload(&self, to: &Key, open: &Upload) -> Result<()> {
        if !open.upload.is_empty() {
            self.target.abort_upload(to, &open.upload).await?;
            if open.unresolved == UnresolvedUpload::None {
                return Ok(());
            }
        }
        let Some(prefix) = to.as_str() else { return Ok(()) };
        for (key, id) in self.target.list_uploads(prefix).await? {
            if key == *to {
                self.target.abort_upload(to, &id).await?;
            }
        }
        Ok(())
    }

    async fn copy_multipart_once(self: Arc<Self>, entry: &Entry, digest: bool) -> Result<(u64, Proof)> {
        let meta = self.source.head(&entry.key, None).await?;
        if meta.etag.same_text(&entry.etag) && !meta.etag.is_none() && meta.size != entry.size {
            let m = format!(
                "`{}` has {} bytes in the listing, but {} bytes by its own metadata",
                entry.key, entry.size, meta.size
            );
            let failure = Error::new(Kind::Mismatch, "read", m).at(Side::Source);
            return Err(failure.because(Reason::ConfirmedMismatch));
        }
        let meta = with_listed_time(&meta, entry);
        if meta.archived {
            let m = format!("`{}` is archived", entry.key);
            return Err(Error::new(Kind::Archived, "read", m).at(Side::Source));
        }
        let first_part = match wants_layout(meta.size, &meta.etag, self.target.capability()) {
            true if self.source.capability().head_part => self.source.head(&entry.key, Some(1)).await.ok(),
            _ => None,
        };
        let first = first_part.filter(|m| m.parts.is_some() || m.size < meta.size).map(|m| m.size);
        let capability = self.target.capability();
        let planned = match meta.whole_only {
            true => Plan::Single,
            false => plan(meta.size, &meta.etag, first, self.spec.part_size, capability),
        };
        let Plan::Multipart { part_size, own_layout } = planned else {
            // It shrank since it was listed, or cannot be read in parts.
            let entry = Entry { size: meta.size, etag: meta.etag.clone(), ..entry.clone() };
            let permits = self.acquire_permits().await;
            return match Box::pin(self.clone().copy_single(entry, permits)).await {
                TransferEnd::Outcome(Outcome::Copied(proof), size) => Ok((size, proof)),
                TransferEnd::Outcome(Outcome::Failed(f), _) | TransferEnd::TaskFailed(f) => Err(f),
                TransferEnd::Outcome(Outcome::Waiting, _) => {
                    Err(Error::new(Kind::Archived, "read", "the object is archived").at(Side::Source))
                }
                TransferEnd::Outcome(..) => Err(Error::new(Kind::NotFound, "read", "gone").at(Side::Source)),
            };
        };
        self.learn_write_crc(&entry.key).await?;
        let (upload, resumes) = self.resume_or_begin(&entry.key, &meta, part_size).await?;
        let mut done: BTreeMap<u32, UploadedPart> = serde_json::from_str::<Vec<UploadedPart>>(&upload.parts)
            .unwrap_or_default()
            .into_iter()
            .map(|p| (p.number, p))
            .collect();
        if resumes && own_layout && !digest {
            self.adopt_parts(entry, &meta, &upload, &mut done).await?;
        }
        let mut wanted = self.digests_for(&meta.etag);
        let md5_parts = capability.etag_is_md5 && capability.part_proof == PartProof::Md5;
        // With the source's own layout the parts' ETags prove the whole; otherwise each part needs a digest.
        // Where the target's parts have none, those in flight add up to the source's ETag: the only thing that a source
        // without checksums says of the whole.
        let by_flight = own_layout && meta.etag.parts().is_some() && meta.sums == Checksums::default();
        wanted.md5 = digest
            || (wanted.md5 && md5_parts)
            || (self.checks_content() && if md5_parts { !own_layout } else { by_flight });
        wanted.crc64_nvme |= self.checks_content()
            && (capability.part_proof == PartProof::Crc64 || meta.sums.crc64_nvme.is_some());
        self.copy_parts(entry, &meta, &upload, &mut done, wanted).await?;

        let parts: Vec<UploadedPart> = done.into_values().collect();
        let proof = self.made_of_parts(entry, &meta, &upload, &parts, wanted, digest).await?;
        Ok((meta.size, proof))
    }

    /// Makes the object of its parts, which are all there, and judges it.
    async fn made_of_parts(
        &self,
        entry: &Entry,
        meta: &Meta,
        upload: &Upload,
        parts: &[UploadedPart],
        wanted: DigestSet,
        digest: bool,
    ) -> Result<Proof> {
        let to = entry.key.under(&self.spec.save_prefix);
        let by_parts = etag_of_parts(parts);
        // Of a target whose parts tell no MD5, those of the bytes in flight tell whether they are the source's.
        let in_flight = by_parts.is_none().then(|| etag_in_flight(parts)).flatten();
        let read = in_flight.as_ref().and_then(|etag| etag.proves(&meta.etag));
        if read == Some(false)
            && self.checks_content()
            && self.has_same_layout(entry, upload.part_size, parts).await?
        {
            let m = format!(
                "`{}`: the bytes read do not match the ETag that the source lists ({})",
                entry.key, meta.etag
            );
            return Err(Error::new(Kind::Mismatch, "verify", m).at(Side::Source));
        }
        let proved = by_parts.as_ref().and_then(|etag| etag.proves(&meta.etag));
        if proved == Some(false)
            && self.checks_content()
            && (!digest || self.has_same_layout(entry, upload.part_size, parts).await?)
        {
            let made = by_parts.as_ref().map(Etag::to_string).unwrap_or_default();
            let m = format!("the parts add up to {made}, the source has {}", meta.etag);
            return Err(Error::new(Kind::Mismatch, "verify", m).at(Side::Target));
        }
        let seen = whole_of(parts);
        if self.checks_content() && ReportedDigests::from(meta).matches_flight(&seen) == Some(false) {
            let m = format!(
                "`{}`: the bytes read are not those of the checksum that the source keeps",
                entry.key
            );
            return Err(Error::new(Kind::Mismatch, "verify", m).at(Side::Source));
        }
        let written = match self.complete_upload(&to, &upload.upload, parts).await {
            Ok(written) => written,
            Err(f) if f.kind == Kind::NotFound => {
                self.find_completed(&to, meta, by_parts.as_ref(), &seen.sums, f).await?
            }
            Err(f) => return Err(f),
        };
        self.ledger.mark_completed(upload);
        self.check_unchanged(&entry.key, meta).await?;
        // What the target says it made of our parts is what our parts make.
        if self.checks_content()
            && written.etag.parts().is_some()
            && by_parts.as_ref().and_then(|etag| etag.proves(&written.etag)) == Some(false)
        {
            let m = format!("the parts do not make the object that the target reports ({})", written.etag);
            return Err(wrong_object(&to, &m));
        }
        // The parts' own tags are judged above: a layout that only looks like the source's contradicts nothing.
        let (mut source, mut stored) = (ReportedDigests::from(meta), ReportedDigests::from(&written));
        if source.etag.parts().is_some() && proved != Some(true) {
            (source.etag, stored.etag) = (Etag::None, Etag::None);
        }
        let proof = match self.verify_written(&to, meta.size, &source, Some(seen), &stored).await? {
            Verdict::Proved(proof) if proved != Some(true) && read != Some(true) => {
                of_parts(proof, &ReportedDigests::from(meta), &seen)
            }
            Verdict::Proved(proof) => proof,
            _ if proved == Some(true) => Proof::Etag,
            // Each part is stored as it was read, and all were read as the source says.
            Verdict::Unproved if parts_compared(parts, wanted) && read == Some(true) => Proof::Digest,
            Verdict::Unproved if parts_compared(parts, wanted) => {
                of_parts(Proof::Digest, &ReportedDigests::from(meta), &seen)
            }
            Verdict::Unproved => Proof::Size,
            Verdict::NeedDigest => return Err(wrong_object(&to, "checksums of source and target differ")),
            Verdict::Differs(why) => return Err(wrong_object(&to, &why)),
        };
        Ok(proof)
    }

    /// Whether the source's parts are known to be cut as ours are. The layout may have been guessed from the number of
    /// parts, and parts need not be of one length.
    async fn has_same_layout(&self, entry: &Entry, part_size: u64, parts: &[UploadedPart]) -> Result<bool> {
        if !self.source.capability().head_part {
            return Ok(false);
        }
        let step = (parts.len() / LAYOUT_SAMPLES).max(1);
        for part in parts.iter().step_by(step).chain(parts.last()) {
            let there = match self.source.head(&entry.key, Some(part.number)).await {
                Ok(there) => there,
                Err(f) if f.kind.policy() == Policy::GiveUp => return Ok(false),
                Err(f) => return Err(f),
            };
            if there.size != part.size || part_size == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The answer to a completion may have been lost: the object is there, and is ours by its ETag or its
    /// checksum.
    async fn find_completed(
        &self,
        to: &Key,
        meta: &Meta,
        by_parts: Option<&Etag>,
        seen: &Checksums,
        failure: Error,
    ) -> Result<storage::Written> {
        let there = self.target.head(to, None).await.map_err(|_| failure.clone())?;
        let by_etag = by_parts.is_some_and(|e| e.proves(&there.etag) == Some(true));
        let ours = there.size == meta.size && (by_etag || there.sums.agree(seen) == Some(true));
        if ours { Ok(storage::Written { etag: there.etag, sums: there.sums }) } else { Err(failure) }
    }

    /// Parts that the target has but whose answer an interruption swallowed. They are taken over only where the
    /// ETag of the whole proves them before the object is made.
    async fn adopt_parts(
        &self,
        entry: &Entry,
        meta: &Meta,
        upload: &Upload,
        done: &mut BTreeMap<u32, UploadedPart>,
    ) -> Result<()> {
        let to = entry.key.under(&self.spec.save_prefix);
        let there = match self.target.list_parts(&to, &upload.upload).await {
            Err(f) if f.kind == Kind::Unsupported => return Ok(()),
            there => there?,
        };
        for part in there {
            let range = part_range(meta.size, upload.part_size, part.number);
            if part.number > 0 && part.size == range.end - range.start {
                done.entry(part.number).or_insert(part);
            }
        }
        Ok(())
    }

    /// Goes on with the upload in the ledger when it fits the object as it is now; else begins a new one.
    async fn resume_or_begin(&self, key: &Key, meta: &Meta, part_size: u64) -> Result<(Upload, bool)> {
        let mut unresolved = UnresolvedUpload::None;
        if let Some(open) = self.ledger.upload_of(key) {
            if open.upload.is_empty() || open.unresolved == UnresolvedUpload::AnotherUpload {
                unresolved = UnresolvedUpload::AnotherUpload;
            }
            let same = open.etag == identity(meta) && open.size == meta.size && open.part_size == part_size;
            if same && !open.upload.is_empty() {
                return Ok((open, true));
            }
            self.abandon_upload(key).await;
        }
        let to = key.under(&self.spec.save_prefix);
        let part_crc = self.target.capability().write_crc == WriteCrc::Trailer;
        let wanted = Meta { part_crc, ..self.target_meta(key, meta).await? };
        let mut upload = Upload {
            key: key.clone(),
            etag: identity(meta),
            upload: String::new(),
            part_size,
            size: meta.size,
            parts: "[]".into(),
            unresolved,
        };
        // The intent is durable before the upload exists, so that no crash leaves an unknown upload.
        self.ledger.put_upload(upload.clone());
        self.ledger.flush().await?;
        upload.upload = self.target.begin_upload(&to, &wanted).await?;
        self.ledger.put_upload(upload.clone());
        Ok((upload, false))
    }

    async fn copy_parts(
        self: &Arc<Self>,
        entry: &Entry,
        meta: &Meta,
        upload: &Upload,
        done: &mut BTreeMap<u32, UploadedPart>,
        wanted: DigestSet,
    ) -> Result<()> {
        let to = entry.key.under(&self.spec.save_prefix);
        let count = part_count(meta.size, upload.part_size);
        let mut left = (1..=count).filter(|n| !done.contains_key(n)).collect::<Vec<_>>().into_iter();
        let mut in_flight = JoinSet::new();
        let mut broke: Option<Error> = None;
        loop {
            while left.len() > 0 && broke.is_none() && !self.stop.is_cancelled() {
                let Some(permit) = self.parts.try_acquire() else { break };
                let Some(number) = left.next() else { break };
                let part = self.clone().copy_part(part_job(&entry.key, &to, meta, upload, number, wanted));
                let counted = async move {
                    let done = part.await;
                    drop(permit);
                    done
                };
                in_flight.spawn_on(counted, self.io_threads.handle());
            }
            self.parts.observe(tokio::time::Instant::now(), self.progress.moved.load(Ordering::Relaxed));
            let waits = left.len() > 0 && broke.is_none() && !self.stop.is_cancelled();
            let ended = match &broke {
                None if waits => tokio::select! {
                    Some(ended) = in_flight.join_next() => Some(ended),
                    () = self.parts.freed() => continue,
                },
                None => in_flight.join_next().await,
                // The others that are on their way are worth having when the upload is gone on with.
                Some(failure) if failure.kind.policy() == Policy::StopTask => {
                    tokio::time::timeout(LAST_PARTS_TIMEOUT, in_flight.join_next()).await.unwrap_or(None)
                }
                Some(_) => None,
            };
            match ended {
                None if broke.is_some() => return Err(broke.unwrap_or_else(|| unreachable!("just read"))),
                None if done.len() == count as usize => return Ok(()),
                None => return Err(Error::stopped("copy")),
                Some(Err(e)) => {
                    let m = format!("a part worker ended unexpectedly: {e}");
                    return Err(Error::new(Kind::Internal, "copy", m));
                }
                Some(Ok(Err(failure))) => {
                    broke.get_or_insert(failure);
                }
                Some(Ok(Ok((part, digests)))) => {
                    let crc64 = digests.and_then(|d| d.sums.crc64_nvme);
                    let md5 = digests.and_then(|d| d.md5);
                    done.insert(part.number, UploadedPart { crc64, md5, ..part });
                    let parts: Vec<&UploadedPart> = done.values().collect();
                    let text = serde_json::to_string(&parts).unwrap_or_else(|_| "[]".into());
                    self.ledger.put_upload(Upload { parts: text, ..upload.clone() });
                }
            }
        }
    }
}

fn part_job(from: &Key, to: &Key, meta: &Meta, upload: &Upload, number: u32, wanted: DigestSet) -> PartJob {
    PartJob {
        from: from.clone(),
        to: to.clone(),
        upload: upload.upload.clone(),
        number,
        range: part_range(meta.size, upload.part_size, number),
        etag: meta.etag.clone(),
        identity: identity(meta),
        wanted,
    }
}

fn wrong_object(to: &Key, why: &str) -> Error {
    let failure = Error::new(Kind::Mismatch, "verify", format!("`{to}`: {why}")).at(Side::Target);
    failure.because(Reason::WrongObjectWritten)
}
