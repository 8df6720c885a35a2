//! Pure: how an object is cut into parts.
//!
//! Keeping the source's own part layout makes both ETags equal, which proves the copy without reading a byte
//! twice.

use storage::{Capability, Etag};

const MIB: u64 = 1 << 20;
/// Objects up to this size go in one GET and one PUT.
pub const SINGLE_MAX: u64 = 16 * MIB;
/// An object written in one piece keeps its MD5 as ETag; up to this size that is worth one long request.
const SINGLE_MD5_MAX: u64 = 32 * MIB;
const PART: u64 = 16 * MIB;
/// The largest part that is held in memory for its checksum.
const BUFFERED_PART_MAX: u64 = 64 * MIB;

/// Part sizes that uploaders use, for a source that does not tell its own.
const COMMON_PART_SIZES: [u64; 14] = [8, 5, 16, 15, 10, 32, 64, 100, 128, 50, 25, 256, 512, 1024];

/// How an object travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// One read, one write.
    Single,
    /// Ranged reads feed a multipart upload.
    Multipart {
        /// Bytes per part; the last may be smaller.
        part_size: u64,
        /// The layout is (or is believed to be) the source's own, so ETags should come out equal.
        own_layout: bool,
    },
}

/// True when the layout of the source's parts should be asked for before planning.
pub fn wants_layout(size: u64, etag: &Etag, target: &Capability) -> bool {
    target.multipart && etag.parts().is_some() && size > 0
}

/// Plans one object. `first_part` is the length of the source's first part, when it told; `wanted` is the
/// user's part size, 0 for none.
pub fn plan(size: u64, etag: &Etag, first_part: Option<u64>, wanted: u64, target: &Capability) -> Plan {
    let fits = |p: u64| {
        let count = size.div_ceil(p.max(1));
        // A part whose checksum must be known before it is sent is held in memory.
        let held = !target.write_checksum || p <= BUFFERED_PART_MAX;
        p > 0
            && held
            && count <= u64::from(target.part_max_count)
            && (count <= 1 || p >= target.part_min_bytes)
    };
    if !target.multipart || size == 0 {
        return Plan::Single;
    }
    if wanted == 0
        && let Some(n) = etag.parts()
    {
        let tells = |p: u64| size.div_ceil(p) == u64::from(n) && fits(p) && p <= target.write_max_bytes;
        let guesses = || COMMON_PART_SIZES.iter().map(|m| m * MIB).find(|&p| tells(p));
        let known = first_part.filter(|&p| p > 0 && tells(p)).or_else(guesses);
        // A layout with one part is only worth keeping while one request is.
        if let Some(part_size) = known.filter(|&p| n > 1 || p <= SINGLE_MD5_MAX) {
            return Plan::Multipart { part_size, own_layout: true };
        }
    }
    let whole_max = match etag {
        etag if etag.md5().is_some() && target.etag_is_md5 => SINGLE_MD5_MAX,
        _ => SINGLE_MAX,
    };
    let whole_max = if wanted > 0 { wanted } else { whole_max };
    if size <= whole_max.min(target.write_max_bytes) {
        return Plan::Single;
    }
    let mut part_size = if wanted > 0 { wanted.max(target.part_min_bytes) } else { PART };
    while size.div_ceil(part_size) > u64::from(target.part_max_count) {
        part_size *= 2;
    }
    Plan::Multipart { part_size, own_layout: false }
}

/// The byte range of part `number` (from 1).
pub fn part_range(size: u64, part_size: u64, number: u32) -> std::ops::Range<u64> {
    let start = u64::from(number.saturating_sub(1)) * part_size;
    start.min(size)..(start + part_size).min(size)
}

/// Number of parts.
pub fn part_count(size: u64, part_size: u64) -> u32 {
    u32::try_from(size.div_ceil(part_size.max(1))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S3: Capability = Capability::S3;

    fn etag(parts: u32) -> Etag {
        if parts == 0 { Etag::Md5([0; 16]) } else { Etag::Parts([0; 16], parts) }
    }

    #[test]
    fn part_layout_of_the_source_is_kept() {
        let p = plan(1 << 30, &etag(103), Some(10 * MIB), 0, &S3);
        assert_eq!(p, Plan::Multipart { part_size: 10 * MIB, own_layout: true });
        // Not told: the usual size that gives the same number of parts.
        let p = plan(1 << 30, &etag(128), None, 0, &S3);
        assert_eq!(p, Plan::Multipart { part_size: 8 * MIB, own_layout: true });
    }

    #[test]
    fn small_object_is_one_put_and_huge_object_fits_the_part_limit() {
        assert_eq!(plan(0, &etag(0), None, 0, &S3), Plan::Single);
        assert_eq!(plan(SINGLE_MD5_MAX, &etag(0), None, 0, &S3), Plan::Single);
        assert_eq!(
            plan(SINGLE_MAX + 1, &Etag::None, None, 0, &S3),
            Plan::Multipart { part_size: PART, own_layout: false }
        );
        for size in [5 << 30, 1 << 40, 5 << 40] {
            let Plan::Multipart { part_size, .. } = plan(size, &etag(0), None, 0, &S3) else {
                panic!("{size}")
            };
            assert!(part_count(size, part_size) <= 10_000);
        }
    }

    #[test]
    fn parts_cover_the_object_exactly_once() {
        for (size, part) in [(1, 5), (10, 5), (11, 5), (4 << 30, 16 * MIB)] {
            let n = part_count(size, part);
            let mut at = 0;
            for number in 1..=n {
                let r = part_range(size, part, number);
                assert_eq!(r.start, at);
                at = r.end;
            }
            assert_eq!(at, size);
        }
    }
}
