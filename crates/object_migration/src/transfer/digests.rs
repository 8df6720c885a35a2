//! Digests of copied content and their comparison with what the services report.

use model::error::{Error, Kind, Reason, Result, Side};
use model::key::Key;
use model::policy::Check;
use storage::body::ObserverOptions;
use storage::checksum::{DigestSet, Digests};
use storage::{Body, Entry, Etag, Meta, ObjectStore};

use super::ObjectCopier;
use crate::transfer::proof::{ReportedDigests, Verdict, compare_digests};

impl ObjectCopier {
    /// An answer is not what the listing says: another length, or another object. Only a look at the object tells whether the
    /// answer is all of it; of the `same` object the listing told.
    pub(super) async fn check_length(&self, entry: &Entry, meta: &Meta, same: bool, size: u64) -> Result<()> {
        // Servers that unpack on the way tell the length before.
        if meta.whole_only || (!same && self.source.head(&entry.key, None).await?.size == size) {
            return Ok(());
        }
        let m =
            format!("`{}` has {} bytes in the listing, but {size} bytes were sent", entry.key, entry.size);
        Err(Error::new(Kind::Mismatch, "read", m).at(Side::Source).because(Reason::ConfirmedMismatch))
    }

    /// The digests to compute, with those that the source's own checksums can be compared to.
    pub(super) fn digests_with_source(&self, wanted: DigestSet, source: &ReportedDigests) -> DigestSet {
        match self.checks_content() {
            true => wanted.and(source.sums.algorithms()),
            false => wanted,
        }
    }

    /// The body with its MD5, where that is known before it is sent, or where the store refuses bodies without.
    pub(super) async fn with_md5(&self, body: Body, known: Option<[u8; 16]>) -> Result<Body> {
        match (known, self.target.capability().write_checksum) {
            (Some(md5), _) => Ok(body.with_md5(md5)),
            (None, false) => Ok(body),
            (None, true) => {
                let whole = Body::bytes(body.collect(u64::MAX).await?);
                Ok(match whole.md5_in_memory() {
                    Some(md5) => whole.with_md5(md5),
                    None => whole,
                })
            }
        }
    }

    /// The verdict on a written object; where the answer to the write proves nothing, the object itself is asked.
    pub(crate) async fn verify_written(
        &self,
        to: &Key,
        size: u64,
        source: &ReportedDigests,
        seen: Option<Digests>,
        stored: &ReportedDigests,
    ) -> Result<Verdict> {
        let verdict = compare_digests(source, seen, stored);
        if verdict != Verdict::Unproved || !self.checks_content() {
            return Ok(verdict);
        }
        let there = self.target.head(to, None).await?;
        if there.size != size {
            return Ok(Verdict::Differs(format!(
                "the target stored {} bytes, but {size} bytes were sent",
                there.size
            )));
        }
        Ok(compare_digests(source, seen, &ReportedDigests::from(&there)))
    }

    /// Whether more than equal length is asked for.
    pub(crate) fn checks_content(&self) -> bool {
        !matches!(self.spec.check, Check::None | Check::Size)
    }

    pub(crate) fn observer(&self, wanted: DigestSet) -> ObserverOptions {
        ObserverOptions {
            wanted,
            bandwidth: Some(self.progress.bandwidth.clone()),
            prepaid: 0,
            moved: self.progress.moved.clone(),
            check: None,
        }
    }

    /// Which digests must be computed in flight, because no ETag will prove the copy for free.
    pub(crate) fn digests_for(&self, source: &Etag) -> DigestSet {
        if matches!(self.spec.check, Check::None | Check::Size) {
            return DigestSet::default();
        }
        let target_md5 = self.target.capability().etag_is_md5;
        let source_md5 = source.md5().is_some() || source.parts().is_some();
        // The store keeps this CRC of whatever is written: it proves what MD5s cannot.
        let ecma = self.target.capability().crc64_ecma && (!source_md5 || self.spec.check == Check::Crc64);
        DigestSet {
            md5: target_md5 != source_md5,
            crc64_nvme: !target_md5,
            crc64_ecma: ecma,
            ..DigestSet::default()
        }
    }
}
