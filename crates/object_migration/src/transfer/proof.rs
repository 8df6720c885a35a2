//! Pure: what proves that an object or a part was copied. This is the only place that decides it.
//!
//! Each side may say something of the whole object: its ETag, which is an MD5, an MD5 of MD5s, or a text that proves
//! nothing (`Etag::Other`, which connectors also use for objects that are encrypted with a key), and checksums that it
//! keeps. Digests of the bytes in flight stand between the two.
//!
//! | read (source × flight) | kept (target × flight) | across (source × target) | verdict |
//! |---|---|---|---|
//! | differs | | | differs: the source sent other bytes than it says it has |
//! | | differs | | differs: the target stored other bytes than were sent |
//! | | | differs | without an MD5 in flight: once more with one; else differs |
//! | | | equal | proved by ETag or checksum |
//! | equal, or the source says nothing | equal | unknown | proved by digest |
//! | the source says something that cannot be compared | any | unknown | not proved: only the length is known |
//! | any | unknown | unknown | not proved: only the length is known |
//!
//! What is read is judged before its last bytes are handed to the target ([`stream_check`]): bytes that are not the
//! source's are never published, whatever the target would have made of them.
//!
//! An object that is moved in parts is read in parallel, so the MD5 of its whole is not computed. The CRC-64 of its parts
//! are put together: a source that keeps that of the whole is compared with it. A source whose ETag is the MD5 of its
//! parts' MD5s is compared with those of the same parts in flight. A source that says an MD5 and no CRC-64
//! is proved by length only ([`of_parts`]), although each part is known to be stored as it was read.
//!
//! Unknown is never equal. Where two kinds can be compared, the stronger decides.
//!
//! Decision: ADR 0004, `docs/adr/0004-proof-before-publication.md`.

use model::count::Proof;
use model::error::{Error, Kind, Side};
use storage::body::StreamCheck;
use storage::checksum::{Checksums, DigestSet, Digests, hex};
use storage::{Etag, Meta, UploadedPart, Written};

/// What one side says of a whole object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ReportedDigests {
    pub(crate) etag: Etag,
    pub(crate) sums: Checksums,
}

impl From<&Meta> for ReportedDigests {
    fn from(meta: &Meta) -> Self {
        Self { etag: meta.etag.clone(), sums: meta.sums }
    }
}

impl From<&Written> for ReportedDigests {
    fn from(written: &Written) -> Self {
        Self { etag: written.etag.clone(), sums: written.sums }
    }
}

impl ReportedDigests {
    /// Whether the bytes in flight are those of the claim; none when nothing can be compared.
    pub(crate) fn matches_flight(&self, seen: &Digests) -> Option<bool> {
        let strong = same(self.sums.sha256, seen.sums.sha256).or(same(self.etag.md5().copied(), seen.md5));
        strong.or_else(|| self.sums.agree(&seen.sums)).or_else(|| self.matches_one_part(seen))
    }

    /// An object that was uploaded in one part has the MD5 of that part's MD5.
    fn matches_one_part(&self, seen: &Digests) -> Option<bool> {
        match self.etag {
            Etag::Parts(says, 1) => Some(says == storage::checksum::md5_of_parts([seen.md5?])),
            _ => None,
        }
    }

    /// Whether it tells a digest of the content.
    fn tells_digest(&self) -> bool {
        self.etag.md5().is_some() || self.etag.parts().is_some() || self.sums != Checksums::default()
    }

    /// Whether two claims are of the same bytes, and by what that is known.
    fn across(&self, other: &ReportedDigests) -> Option<(bool, Proof)> {
        let sha256 = same(self.sums.sha256, other.sums.sha256).map(|equal| (equal, Proof::Digest));
        let etag = || self.etag.proves(&other.etag).map(|equal| (equal, Proof::Etag));
        let sums = || self.sums.agree(&other.sums).map(|equal| (equal, Proof::Crc64));
        sha256.or_else(etag).or_else(sums)
    }
}

fn same<T: PartialEq>(a: Option<T>, b: Option<T>) -> Option<bool> {
    Some(a? == b?)
}

/// Refuses a stream whose bytes are not those that the source says they are.
pub(crate) fn stream_check(source: ReportedDigests) -> StreamCheck {
    StreamCheck::new(move |seen| match source.matches_flight(seen) {
        Some(false) => Err(Error::new(Kind::Mismatch, "read", differs_from(&source)).at(Side::Source)),
        _ => Ok(()),
    })
}

fn differs_from(source: &ReportedDigests) -> String {
    format!("the bytes read do not match the ETag that the source lists ({})", source.etag)
}

/// What is known of a copy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Proved(Proof),
    /// Nothing but the length can be compared.
    Unproved,
    /// The two sides contradict each other; an MD5 in flight tells which of them is wrong.
    NeedDigest,
    Differs(String),
}

/// Judges a whole object that was read once and written once.
pub(crate) fn compare_digests(
    source: &ReportedDigests,
    seen: Option<Digests>,
    stored: &ReportedDigests,
) -> Verdict {
    let seen = seen.unwrap_or_default();
    if source.matches_flight(&seen) == Some(false) {
        return Verdict::Differs(differs_from(source));
    }
    let kept = stored.matches_flight(&seen);
    if kept == Some(false) {
        return Verdict::Differs(format!(
            "the target stored {}, which differs from the bytes sent",
            stored.etag
        ));
    }
    match (source.across(stored), kept) {
        (Some((true, proof)), _) => Verdict::Proved(proof),
        (Some((false, _)), _) if seen.md5.is_none() => Verdict::NeedDigest,
        (Some((false, _)), _) => {
            Verdict::Differs(format!("{} at the source, {} at the target", source.etag, stored.etag))
        }
        // What the source says of its bytes was not compared with those that came: only the length is known.
        (None, Some(true)) if source.tells_digest() && source.matches_flight(&seen).is_none() => {
            Verdict::Unproved
        }
        (None, Some(true)) => Verdict::Proved(Proof::Digest),
        (None, _) => Verdict::Unproved,
    }
}

/// What the bytes of all parts in flight are known to be together, where each part has its CRC-64.
pub(crate) fn whole_of(parts: &[UploadedPart]) -> Digests {
    let pieces: Option<Vec<(u64, u64)>> = parts.iter().map(|p| Some((p.crc64?, p.size))).collect();
    let crc64 = pieces.map(storage::checksum::crc64_of_pieces);
    let bytes = parts.iter().map(|p| p.size).sum();
    Digests { md5: None, sums: Checksums { crc64_nvme: crc64, ..Checksums::default() }, bytes }
}

/// The proof of an object that was moved in parts. Digests in flight tell what was stored; where the source says a
/// digest of the whole that they were not compared with, only the length of what was read is known.
pub(crate) fn of_parts(proof: Proof, source: &ReportedDigests, seen: &Digests) -> Proof {
    match proof {
        Proof::Digest if source.tells_digest() && source.matches_flight(seen).is_none() => Proof::Size,
        proof => proof,
    }
}

/// Judges one part against the digests of its bytes in flight: some sentence when it differs.
pub(crate) fn part_differs(part: &UploadedPart, seen: Option<Digests>) -> Option<String> {
    let seen = seen?;
    let equal = match part_kind(part) {
        PartKind::Md5 => same(Some(part.etag.to_ascii_lowercase()), seen.md5.map(|m| hex(&m))),
        PartKind::Crc64 => {
            same(Some(part.etag.to_ascii_lowercase()), seen.sums.crc64_nvme.map(|c| hex(&c.to_be_bytes())))
        }
        PartKind::Opaque => None,
    };
    (equal == Some(false)).then(|| {
        format!("part {}: the target stored {}, which differs from the bytes sent", part.number, part.etag)
    })
}

enum PartKind {
    Md5,
    Crc64,
    Opaque,
}

fn part_kind(part: &UploadedPart) -> PartKind {
    match part.etag.len() {
        32 if !part.opaque => PartKind::Md5,
        16 if !part.opaque => PartKind::Crc64,
        _ => PartKind::Opaque,
    }
}

/// The ETag that the bytes of all parts in flight would have at a store that makes it of MD5s.
pub(crate) fn etag_in_flight(parts: &[UploadedPart]) -> Option<Etag> {
    let digests = parts.iter().map(|part| part.md5).collect::<Option<Vec<_>>>()?;
    let count = u32::try_from(digests.len()).ok()?;
    Some(Etag::Parts(storage::checksum::md5_of_parts(digests), count))
}

/// True when each part was compared with the digest of its bytes in flight.
pub(crate) fn parts_compared(parts: &[UploadedPart], wanted: DigestSet) -> bool {
    parts.iter().all(|part| match part_kind(part) {
        PartKind::Md5 => wanted.md5,
        PartKind::Crc64 => wanted.crc64_nvme,
        PartKind::Opaque => false,
    })
}

/// The ETag that an upload of these parts will have, when all their ETags are MD5s.
pub(crate) fn etag_of_parts(parts: &[UploadedPart]) -> Option<Etag> {
    let digests: Option<Vec<[u8; 16]>> = parts
        .iter()
        .map(|part| match (part.opaque, Etag::parse(&part.etag)) {
            (false, Etag::Md5(md5)) => Some(md5),
            _ => None,
        })
        .collect();
    let digests = digests?;
    let count = u32::try_from(digests.len()).ok()?;
    Some(Etag::Parts(storage::checksum::md5_of_parts(digests), count))
}

#[cfg(test)]
mod tests;
