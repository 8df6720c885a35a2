//! Digests computed while bytes pass.

use crc_fast::{CrcAlgorithm, Digest as Crc};
use md5::{Digest as _, Md5};

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)] as char);
        out.push(DIGITS[usize::from(b & 15)] as char);
    }
    out
}

/// SHA-256 of bytes as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// Checksums that a store keeps of a whole object, as far as it tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksums {
    /// CRC-64/NVME.
    pub crc64_nvme: Option<u64>,
    /// CRC-32C.
    pub crc32c: Option<u32>,
    /// SHA-256.
    pub sha256: Option<[u8; 32]>,
    /// CRC-64/ECMA.
    pub crc64_ecma: Option<u64>,
}

impl Checksums {
    /// Some when both sides have a checksum of one kind: whether all such are equal.
    pub fn agree(&self, other: &Checksums) -> Option<bool> {
        fn same<T: PartialEq>(a: Option<T>, b: Option<T>) -> Option<bool> {
            Some(a? == b?)
        }
        let compared = [
            same(self.crc64_nvme, other.crc64_nvme),
            same(self.crc32c, other.crc32c),
            same(self.sha256, other.sha256),
            same(self.crc64_ecma, other.crc64_ecma),
        ];
        let mut known = compared.into_iter().flatten().peekable();
        known.peek()?;
        Some(known.all(|equal| equal))
    }

    /// The kinds that are told here.
    pub fn algorithms(&self) -> DigestSet {
        DigestSet {
            md5: false,
            crc64_nvme: self.crc64_nvme.is_some(),
            crc32c: self.crc32c.is_some(),
            sha256: self.sha256.is_some(),
            crc64_ecma: self.crc64_ecma.is_some(),
        }
    }
}

/// Which digests a transfer computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestSet {
    /// MD5, about 0.6 GB/s.
    pub md5: bool,
    /// CRC-64/NVME, about 10 GB/s.
    pub crc64_nvme: bool,
    /// CRC-32C, about as fast.
    pub crc32c: bool,
    /// SHA-256.
    pub sha256: bool,
    /// CRC-64/ECMA (in the reflected form called XZ), which OBS, OSS and COS keep of each object.
    pub crc64_ecma: bool,
}

impl DigestSet {
    /// What either wants.
    #[must_use]
    pub fn and(self, other: DigestSet) -> DigestSet {
        DigestSet {
            md5: self.md5 || other.md5,
            crc64_nvme: self.crc64_nvme || other.crc64_nvme,
            crc32c: self.crc32c || other.crc32c,
            sha256: self.sha256 || other.sha256,
            crc64_ecma: self.crc64_ecma || other.crc64_ecma,
        }
    }
}

/// The digests of the bytes that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// MD5, when wanted.
    pub md5: Option<[u8; 16]>,
    /// The checksums that were wanted.
    pub sums: Checksums,
    /// Bytes that passed.
    pub bytes: u64,
}

/// A running set of digests.
pub struct Hasher {
    md5: Option<Md5>,
    crc64_nvme: Option<Crc>,
    crc32c: Option<Crc>,
    crc64_ecma: Option<Crc>,
    sha256: Option<ring::digest::Context>,
    bytes: u64,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hasher({} bytes)", self.bytes)
    }
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new(wanted: DigestSet) -> Self {
        Self {
            md5: wanted.md5.then(Md5::new),
            crc64_nvme: wanted.crc64_nvme.then(|| Crc::new(CrcAlgorithm::Crc64Nvme)),
            crc32c: wanted.crc32c.then(|| Crc::new(CrcAlgorithm::Crc32Iscsi)),
            crc64_ecma: wanted.crc64_ecma.then(|| Crc::new(CrcAlgorithm::Crc64Xz)),
            sha256: wanted.sha256.then(|| ring::digest::Context::new(&ring::digest::SHA256)),
            bytes: 0,
        }
    }

    /// Computes the CRC-64/NVME too; before the first chunk.
    pub(crate) fn want_crc64(&mut self) {
        debug_assert_eq!(self.bytes, 0, "the bytes that passed are missing in the checksum");
        self.crc64_nvme.get_or_insert_with(|| Crc::new(CrcAlgorithm::Crc64Nvme));
    }

    /// Adds a chunk.
    pub fn update(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        if let Some(md5) = &mut self.md5 {
            md5.update(chunk);
        }
        for crc in [&mut self.crc64_nvme, &mut self.crc32c, &mut self.crc64_ecma].into_iter().flatten() {
            crc.update(chunk);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(chunk);
        }
    }

    /// The digests so far.
    pub fn finish(&self) -> Digests {
        Digests {
            md5: self.md5.as_ref().map(|m| m.clone().finalize().into()),
            sums: Checksums {
                crc64_nvme: self.crc64_nvme.as_ref().map(Crc::finalize),
                crc32c: self.crc32c.as_ref().and_then(|c| u32::try_from(c.finalize()).ok()),
                sha256: self.sha256.clone().and_then(|c| c.finish().as_ref().try_into().ok()),
                crc64_ecma: self.crc64_ecma.as_ref().map(Crc::finalize),
            },
            bytes: self.bytes,
        }
    }
}

/// CRC-64/NVME of bytes in memory.
pub fn crc64_of(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// CRC-64/NVME of bytes out of those of their pieces, each with its length in bytes.
pub fn crc64_of_pieces(pieces: impl IntoIterator<Item = (u64, u64)>) -> u64 {
    let whole = |a, (b, len)| crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, a, b, len);
    pieces.into_iter().fold(crc64_of(b""), whole)
}

/// MD5 of a multipart object: the MD5 of its parts' MD5s.
pub fn md5_of_parts(parts: impl IntoIterator<Item = [u8; 16]>) -> [u8; 16] {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    md5.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_known_answers() {
        let mut h = Hasher::new(DigestSet {
            md5: true,
            crc64_nvme: true,
            crc32c: true,
            sha256: true,
            crc64_ecma: true,
        });
        h.update(b"1234");
        h.update(b"56789");
        let d = h.finish();
        assert_eq!(hex(&d.md5.unwrap()), "25f9e794323b453885f5181f1b624d0b");
        assert_eq!(d.sums.crc64_nvme, Some(0xae8b_1486_0a79_9888));
        assert_eq!(d.sums.crc32c, Some(0xe306_9283));
        assert_eq!(d.sums.crc64_ecma, Some(0x995d_c9bb_df19_39fa));
        let sha256 = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
        assert_eq!(d.sums.sha256.map(|s| hex(&s)).as_deref(), Some(sha256));
        assert_eq!(d.bytes, 9);
    }

    #[test]
    fn crc_of_parts_combines_to_the_whole() {
        let pieces: [&[u8]; 4] = [b"12", b"", b"345678", b"9"];
        let whole = crc64_of_pieces(pieces.map(|p| (crc64_of(p), p.len() as u64)));
        assert_eq!(whole, 0xae8b_1486_0a79_9888);
        assert_eq!(crc64_of_pieces([]), crc64_of(b""));
    }

    #[test]
    fn checksums_match_only_with_the_same_algorithm() {
        let some = |crc64, crc32c| Checksums { crc64_nvme: crc64, crc32c, ..Checksums::default() };
        assert_eq!(some(Some(1), None).agree(&some(None, Some(1))), None);
        assert_eq!(some(Some(1), Some(2)).agree(&some(Some(1), None)), Some(true));
        assert_eq!(some(Some(1), Some(2)).agree(&some(Some(1), Some(3))), Some(false));
    }
}
