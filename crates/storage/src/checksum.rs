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

/// Which digests a transfer computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// MD5, about 0.6 GB/s.
    pub md5: bool,
    /// CRC-64/NVME, about 10 GB/s.
    pub crc64: bool,
    /// CRC-64/ECMA (in the reflected form called XZ), which OBS, OSS and COS keep of each object.
    pub ecma: bool,
}

/// The digests of the bytes that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// MD5, when wanted.
    pub md5: Option<[u8; 16]>,
    /// CRC-64/NVME, when wanted.
    pub crc64: Option<u64>,
    /// CRC-64/ECMA, when wanted.
    pub ecma: Option<u64>,
    /// Bytes that passed.
    pub bytes: u64,
}

/// A running set of digests.
#[derive(Debug)]
pub struct Hasher {
    md5: Option<Md5>,
    crc64: Option<Crc>,
    ecma: Option<Crc>,
    bytes: u64,
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            md5: wanted.md5.then(Md5::new),
            crc64: wanted.crc64.then(|| Crc::new(CrcAlgorithm::Crc64Nvme)),
            ecma: wanted.ecma.then(|| Crc::new(CrcAlgorithm::Crc64Xz)),
            bytes: 0,
        }
    }

    /// Adds a chunk.
    pub fn update(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        if let Some(md5) = &mut self.md5 {
            md5.update(chunk);
        }
        for crc in [&mut self.crc64, &mut self.ecma].into_iter().flatten() {
            crc.update(chunk);
        }
    }

    /// The digests so far.
    pub fn finish(&self) -> Digests {
        Digests {
            md5: self.md5.as_ref().map(|m| m.clone().finalize().into()),
            crc64: self.crc64.as_ref().map(Crc::finalize),
            ecma: self.ecma.as_ref().map(Crc::finalize),
            bytes: self.bytes,
        }
    }
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
    fn known_answers() {
        let mut h = Hasher::new(Wanted { md5: true, crc64: true, ecma: true });
        h.update(b"1234");
        h.update(b"56789");
        let d = h.finish();
        assert_eq!(hex(&d.md5.unwrap()), "25f9e794323b453885f5181f1b624d0b");
        assert_eq!(d.crc64, Some(0xae8b_1486_0a79_9888));
        assert_eq!(d.ecma, Some(0x995d_c9bb_df19_39fa));
        assert_eq!(d.bytes, 9);
    }
}
