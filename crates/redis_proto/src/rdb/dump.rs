//! The payload of `RESTORE`: type, value, version of the format, CRC-64 (cluster.c, createDumpPayload).

use crate::error::{ProtocolError, Result};
use crate::rdb::shape::{Family, Type, Walk};

/// Bytes behind the value.
pub const FOOTER: usize = 10;

/// CRC-64 with Jones's parameters, as Redis computes it.
pub fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Redis, bytes)
}

/// Appends the payload of a value to `out`; `version` is one that the target knows.
pub fn payload(out: &mut Vec<u8>, kind: Type, value: &[u8], version: u16) {
    let begin = out.len();
    out.reserve(1 + value.len() + FOOTER);
    out.push(kind.number);
    out.extend_from_slice(value);
    out.extend_from_slice(&version.to_le_bytes());
    let crc = crc64(&out[begin..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// What stands behind a value in its payload: the version, and the checksum of everything before.
pub fn footer(kind: Type, value: &[u8], version: u16) -> [u8; FOOTER] {
    let mut sum = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Redis);
    sum.update(&[kind.number]);
    sum.update(value);
    sum.update(&version.to_le_bytes());
    let mut out = [0; FOOTER];
    out[..2].copy_from_slice(&version.to_le_bytes());
    out[2..].copy_from_slice(&sum.finalize().to_le_bytes());
    out
}

/// Length of the payload of a value of so many bytes.
pub fn len(value: usize) -> usize {
    1 + value + FOOTER
}

/// Takes a payload that a server gave (`DUMP`) apart: its type and its value.
///
/// # Errors
/// When the checksum is wrong, or the value is not all of it.
pub fn open(family: Family, payload: &[u8]) -> Result<(Type, &[u8])> {
    let Some(body) = payload.len().checked_sub(FOOTER).filter(|n| *n > 0) else {
        return Err(ProtocolError::new(0, "not a DUMP payload"));
    };
    let mut stored = [0; 8];
    stored.copy_from_slice(&payload[body + 2..]);
    if u64::from_le_bytes(stored) != crc64(&payload[..body + 2]) {
        return Err(ProtocolError::new(body as u64, "invalid checksum of the DUMP payload"));
    }
    let kind = Type { family, number: payload[0] };
    let value = &payload[1..body];
    let mut walk = Walk::new(kind)
        .ok_or_else(|| ProtocolError::new(0, format!("unknown value type {}", kind.number)))?;
    let whole = super::cursor::complete(walk.go(value), value.len()).map_err(|e| e.behind(1))?;
    if !whole || walk.at != value.len() as u64 {
        return Err(ProtocolError::new(
            walk.at.saturating_add(1),
            "trailing bytes after the value of the DUMP payload",
        ));
    }
    Ok((kind, value))
}
