//! A body in the framing `aws-chunked`, with its checksum behind it (AWS "Signature calculations for trailing headers"):
//! `100000\r\n`, 1 MiB, `\r\n`, …, `0\r\n`, `x-amz-checksum-crc64nvme:rosUhgp5mIg=`, `\r\n\r\n`.
//!
//! The bytes pass without being copied. A server that does not know the framing would keep it inside of the object, so it
//! is used only where [`crate::WriteCrc::Trailer`] was proved.

use std::task::{Context, Poll, ready};

use base64::Engine as _;
use bytes::Bytes;
use model::error::{Error, Kind, Result};

use crate::observation::Observation;

/// The header and the trailer that carry the checksum.
pub(crate) const CRC64: &str = "x-amz-checksum-crc64nvme";

/// Bytes of a frame. AWS takes 8 KiB or more, MinIO 16 MiB or less.
const FRAME: u64 = 1 << 20;

/// A stream of bytes of known length.
pub(crate) trait ChunkSource {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// The next chunk; none at the end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>>;
}

/// A body that is being framed.
#[derive(Debug)]
pub(crate) struct Framed<B> {
    body: B,
    seen: Observation,
    /// Bytes of the body that are not handed on yet.
    left: u64,
    /// Bytes of the present frame that are not handed on yet.
    frame: u64,
    /// What is left of a chunk that reaches into the next frame.
    rest: Option<Bytes>,
    begun: bool,
    ended: bool,
}

/// The value of a checksum as headers and trailers carry it.
pub(crate) fn crc64_text(crc: u64) -> String {
    base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes())
}

/// Bytes in one frame, with a checksum that may be a wrong one: to see whether a store refuses it.
pub(crate) fn sample(bytes: &'static [u8], crc: u64) -> Vec<u8> {
    let mut all = format!("{:x}\r\n", bytes.len()).into_bytes();
    all.extend_from_slice(bytes);
    all.extend_from_slice(format!("\r\n0\r\n{CRC64}:{}\r\n\r\n", crc64_text(crc)).as_bytes());
    all
}

impl<B: ChunkSource> Framed<B> {
    /// Frames `body`; `seen` has its CRC-64 once its last byte has passed.
    pub(crate) fn new(body: B, seen: Observation) -> Self {
        let left = body.len();
        Self { body, seen, left, frame: 0, rest: None, begun: false, ended: false }
    }

    /// Length of a body of `len` bytes in its framing.
    pub(crate) fn len_of(len: u64) -> u64 {
        let of_frame = |n: u64| format!("{n:x}\r\n\r\n").len() as u64 + n;
        let last = len % FRAME;
        let frames = (len / FRAME) * of_frame(FRAME) + if last > 0 { of_frame(last) } else { 0 };
        let value = crc64_text(0).len();
        frames + ("0\r\n".len() + CRC64.len() + ":".len() + value + "\r\n\r\n".len()) as u64
    }

    /// The body without its framing.
    pub(crate) fn body(&self) -> &B {
        &self.body
    }

    /// The next piece; none behind the trailer.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.frame == 0 {
            return Poll::Ready(Some(self.between()));
        }
        let mut chunk = match self.rest.take() {
            Some(rest) => rest,
            None => match ready!(self.body.poll_chunk(cx)) {
                Some(Ok(chunk)) => chunk,
                // The body itself tells when it ends too early.
                other => return Poll::Ready(other),
            },
        };
        let piece = chunk.split_to(usize::try_from(self.frame).map_or(chunk.len(), |n| n.min(chunk.len())));
        self.frame -= piece.len() as u64;
        self.left -= piece.len() as u64;
        self.rest = (!chunk.is_empty()).then_some(chunk);
        Poll::Ready(Some(Ok(piece)))
    }

    /// What stands in front of the next frame, or behind the last.
    fn between(&mut self) -> Result<Bytes> {
        let before = if self.begun { "\r\n" } else { "" };
        self.begun = true;
        if self.left > 0 {
            self.frame = self.left.min(FRAME);
            return Ok(format!("{before}{:x}\r\n", self.frame).into());
        }
        self.ended = true;
        let crc = self.seen.digests().and_then(|d| d.sums.crc64_nvme);
        let crc = crc.ok_or_else(|| Error::new(Kind::Internal, "write", "the body has no checksum"))?;
        Ok(format!("{before}0\r\n{CRC64}:{}\r\n\r\n", crc64_text(crc)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;

    async fn framed(len: usize, chunk: usize) -> Vec<u8> {
        let bytes = Bytes::from(vec![7; len]);
        let bodies = (0..len).step_by(chunk).map(|at| Body::bytes(bytes.slice(at..(at + chunk).min(len))));
        let body = Body::chain(bodies.collect::<Vec<_>>()).framed();
        let promised = body.len();
        let all = body.collect(u64::MAX).await.unwrap();
        assert_eq!(all.len() as u64, promised, "{len} bytes in chunks of {chunk}");
        all.to_vec()
    }

    #[tokio::test]
    async fn small_body_is_one_chunk_with_a_trailing_checksum() {
        let body = Body::bytes("123456789").framed().collect(1000).await.unwrap();
        let wanted = "9\r\n123456789\r\n0\r\nx-amz-checksum-crc64nvme:rosUhgp5mIg=\r\n\r\n";
        assert_eq!(std::str::from_utf8(&body).unwrap(), wanted);
    }

    /// The bytes inside of the frames.
    fn unframed(mut text: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let end = text.windows(2).position(|w| w == b"\r\n").unwrap();
            let n = usize::from_str_radix(std::str::from_utf8(&text[..end]).unwrap(), 16).unwrap();
            if n == 0 {
                return all;
            }
            all.extend_from_slice(&text[end + 2..end + 2 + n]);
            text = &text[end + 2 + n + 2..];
        }
    }

    #[tokio::test]
    async fn chunk_framing_does_not_depend_on_input_sizes() {
        const MIB: usize = 1 << 20;
        for len in [1, MIB - 1, MIB, MIB + 1, 3 * MIB, 3 * MIB + 5] {
            for chunk in [65_537, MIB - 1, MIB, MIB + 1, 4 * MIB] {
                assert!(unframed(&framed(len, chunk).await) == vec![7; len], "{len} bytes by {chunk}");
            }
        }
    }
}
