//! LZF, the compression of strings in RDB files (liblzf's format: literal runs of up to 32 bytes, references of up to
//! 264 bytes at most 8,192 bytes back).

use crate::error::{ProtocolError, Result};

/// The longest text that is expanded: a string of Redis is at most 512 MiB by default; this is its format's bound.
pub const EXPANDED_MAX: u64 = 4 << 30;
/// No byte of compressed text expands to more than this.
const RATIO_MAX: u64 = 132;

/// Expands `input` to exactly `len` bytes.
///
/// # Errors
/// When a reference leads before the beginning, the text is cut short, or its length is another.
pub fn expand(input: &[u8], len: u64) -> Result<Vec<u8>> {
    // A length that the input cannot have would only be an excuse to allocate.
    if len > EXPANDED_MAX || len > (input.len() as u64).saturating_mul(RATIO_MAX) {
        return Err(ProtocolError::new(
            0,
            format!("LZF: {} compressed bytes cannot expand to {len}", input.len()),
        ));
    }
    let len = usize::try_from(len).map_err(|_| ProtocolError::new(0, "string too long for this platform"))?;
    let mut out = Vec::with_capacity(len);
    let mut at = 0;
    while let Some(&control) = input.get(at) {
        let begin = at as u64;
        at += 1;
        let control = usize::from(control);
        if control < 32 {
            let run = input
                .get(at..at + control + 1)
                .ok_or_else(|| ProtocolError::new(begin, "LZF: truncated literal run"))?;
            out.extend_from_slice(run);
            at += control + 1;
            continue;
        }
        let cut = || ProtocolError::new(begin, "LZF: truncated back reference");
        let mut count = control >> 5;
        if count == 7 {
            count += usize::from(*input.get(at).ok_or_else(cut)?);
            at += 1;
        }
        let low = usize::from(*input.get(at).ok_or_else(cut)?);
        at += 1;
        let back = ((control & 31) << 8 | low) + 1;
        let count = count + 2;
        let from = out
            .len()
            .checked_sub(back)
            .ok_or_else(|| ProtocolError::new(begin, "LZF: back reference before the start of the output"))?;
        if out.len() + count > len {
            return Err(ProtocolError::new(begin, "LZF: output exceeds the declared length"));
        }
        // A reference may overlap what it makes.
        for i in from..from + count {
            out.push(out[i]);
        }
    }
    if out.len() != len {
        return Err(ProtocolError::new(
            at as u64,
            format!("LZF: decompressed to {} bytes, expected {len}", out.len()),
        ));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lzf_literals_and_overlapping_references_are_expanded() {
        // "a", then 9 bytes from one byte back.
        assert_eq!(expand(&[0, b'a', 0xe0, 0, 0], 10).unwrap(), b"aaaaaaaaaa");
        assert_eq!(expand(&[2, b'x', b'y', b'z'], 3).unwrap(), b"xyz");
        assert_eq!(expand(&[], 0).unwrap(), b"");
    }

    #[test]
    fn lzf_invalid_input_is_an_error() {
        for (input, len) in [
            (&[5, b'a'][..], 6),
            (&[0x20, 0], 3),
            (&[0, b'a', 0xe0, 0, 0], 9),
            (&[0, b'a'], 2),
            (&[0, b'a', 0x20], 4),
            (&[0, b'a'], u64::MAX),
        ] {
            assert!(expand(input, len).is_err(), "{input:?} to {len}");
        }
    }
}
