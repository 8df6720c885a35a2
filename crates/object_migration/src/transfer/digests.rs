//! Digests of copied content and their comparison with what the services report.

use model::error::{Error, Kind, Reason, Result, Side};
use model::key::Key;
use model::policy::Check;
use storage::body::ObserverOptions;
use storage::checksum::{DigestSet, Digests};
use storage::{Body, Entry, Etag, Meta, ObjectStore};

use super::{ObjectCopier, identity};
use crate::transfer::proof::{ReportedDigests, Verdict, compare_digests};

impl ObjectCopier {
    /// An answer is not what the listing says: another length, or another object. Only a look at the object tells whether the
    /// answer is all of it; of the `same` object the listing told.
    pub(super) async fn check_length(&self, entry: &Entry, meta: &Meta, same: bool, size: u64) -> Result<()> {
        // Servers that unpack on the way tell the length before; the answers to URLs are taken as they are.
        if meta.whole_only && !self.source.capability().list_keys_only {
            return Ok(());
        }
        if !same {
            let there = self.source.head(&entry.key, None).await?;
            if there.length_unknown || there.size == size {
                return Ok(());
            }
        }
        let m =
            format!("`{}` has {} bytes in the listing, but {size} bytes were sent", entry.key, entry.size);
        Err(Error::new(Kind::Mismatch, "read", m).at(Side::Source).because(Reason::ConfirmedMismatch))
    }

    /// The object is still the one that was read. A change between its reading and the end of its writing would be older than the
    /// copy, and the next run would take the copy for the newer one.
    pub(super) async fn check_unchanged(&self, key: &Key, read: &Meta) -> Result<()> {
        match self.source.head(key, None).await {
            Ok(now) if identity(&now) == identity(read) => Ok(()),
            // It is gone: what was read is the last that there was.
            Err(f) if f.kind == Kind::NotFound => Ok(()),
            Ok(_) => {
                let m = format!("`{key}` has changed while it was copied");
                Err(Error::new(Kind::Changed, "read", m).at(Side::Source))
            }
            Err(f) => Err(f),
        }
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
        if !self.checks_content() {
            return Ok(Verdict::Unproved);
        }
        let verdict = compare_digests(source, seen, stored);
        let known_opaque = matches!(stored.etag, Etag::Other(_));
        if matches!(verdict, Verdict::Proved(_)) || (verdict != Verdict::Unproved && known_opaque) {
            return Ok(verdict);
        }
        let there = match self.target.head(to, None).await {
            Err(_) if verdict != Verdict::Unproved => return Ok(verdict),
            there => there?,
        };
        if there.size != size {
            return Ok(Verdict::Differs(format!(
                "the target stored {} bytes, but {size} bytes were sent",
                there.size
            )));
        }
        let by_head = compare_digests(source, seen, &ReportedDigests::from(&there));
        // An ETag that contradicts is believed, unless the object itself says that it is no digest.
        let is_opaque = matches!(there.etag, Etag::Other(_)) && there.etag.same_text(&stored.etag);
        Ok(if verdict == Verdict::Unproved || is_opaque { by_head } else { verdict })
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
