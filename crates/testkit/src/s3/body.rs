//! Bodies of requests: `aws-chunked` framing and checksums.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use md5::{Digest, Md5};

use super::{Checksums, ParsedRequest, ResponseBody, State, error};

/// The body of a request: kept, or only counted.
pub(super) enum StoredBody {
    Kept(Vec<u8>),
    Counted(u64),
}

pub(super) async fn take_in(
    state: &Arc<State>,
    asked: &ParsedRequest,
    mut body: Incoming,
) -> Option<StoredBody> {
    let keep = !state.options.discard || asked.method == Method::POST;
    let (mut kept, mut counted) = (Vec::new(), 0u64);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        state.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        state.last_byte_ms.store(state.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        counted += data.len() as u64;
        if keep {
            kept.extend_from_slice(&data);
        }
    }
    Some(if keep { StoredBody::Kept(kept) } else { StoredBody::Counted(counted) })
}

pub(super) const CRC64: &str = "x-amz-checksum-crc64nvme";

/// The body as it is kept, once its checksums are verified.
pub(super) fn unpacked(
    state: &State,
    asked: &ParsedRequest,
    taken: StoredBody,
) -> Result<StoredBody, Box<Response<ResponseBody>>> {
    let StoredBody::Kept(bytes) = taken else { return Ok(taken) };
    let header = |name: &str| asked.headers.get(name).and_then(|v| v.to_str().ok());
    let checksums = state.options.checksums;
    let refused = |status, code| Err(Box::new(error(status, code)));
    let names_one = header(CRC64).is_some() || header("x-amz-trailer").is_some();
    if checksums == Checksums::Refused && (names_one || header("x-amz-checksum-algorithm").is_some()) {
        return refused(StatusCode::NOT_IMPLEMENTED, "NotImplemented");
    }
    let is_write = asked.method == Method::PUT && !asked.key.is_empty();
    let without = !names_one && header("content-md5").is_none() && header("x-amz-copy-source").is_none();
    if state.options.checksum_demanded && is_write && without {
        return refused(StatusCode::BAD_REQUEST, "MissingContentMD5");
    }
    let framed = header("x-amz-content-sha256").is_some_and(|v| v.starts_with("STREAMING-"));
    let decodes = matches!(checksums, Checksums::Verified | Checksums::EncodingKept);
    let (bytes, trailer) = match framed && decodes {
        true => match unframed(&bytes) {
            Some(found) => found,
            None => return refused(StatusCode::BAD_REQUEST, "IncompleteBody"),
        },
        false => (bytes, None),
    };
    if !checksums.verifies() {
        return Ok(StoredBody::Kept(bytes));
    }
    let crc = storage::checksum::crc64_of(&bytes).to_be_bytes();
    let told = header(CRC64).map(str::to_owned).or(trailer);
    if told.as_ref().is_some_and(|told| *told != base64_of(&crc)) {
        return refused(StatusCode::BAD_REQUEST, "BadDigest");
    }
    if header("content-md5").is_some_and(|told| told != base64_of(&Md5::digest(&bytes))) {
        return refused(StatusCode::BAD_REQUEST, "BadDigest");
    }
    if told.is_some() {
        state.crc_verified.fetch_add(1, Ordering::SeqCst);
    }
    Ok(StoredBody::Kept(bytes))
}

/// Base64, as checksums are written in headers.
pub fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The bytes inside of the frames of `aws-chunked`, and the checksum behind them.
fn unframed(mut text: &[u8]) -> Option<(Vec<u8>, Option<String>)> {
    let mut all = Vec::with_capacity(text.len());
    loop {
        let end = text.windows(2).position(|w| w == b"\r\n")?;
        let n = usize::from_str_radix(std::str::from_utf8(text.get(..end)?).ok()?, 16).ok()?;
        text = text.get(end + 2..)?;
        if n == 0 {
            let told = std::str::from_utf8(text).ok()?.trim_end().strip_prefix(CRC64)?.strip_prefix(':')?;
            return Some((all, Some(told.to_owned())));
        }
        all.extend_from_slice(text.get(..n)?);
        text = text.get(n..)?.strip_prefix(b"\r\n")?;
    }
}
