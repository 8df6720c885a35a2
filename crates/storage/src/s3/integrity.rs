//! The CRC-64/NVME that goes with an upload, so that the store refuses bytes that changed on the way (AWS "Checking object
//! integrity for data uploads").
//!
//! It is sent only to a store that was seen to refuse a wrong one: a store may ignore the header, repeat it unread, or
//! keep the framing `aws-chunked` inside of the object. The proof is made with small parts of an upload that is aborted
//! afterwards, so no object is ever made of it.
//!
//! An upload whose parts carry the checksum says so when it begins, and its id is marked: parts that are sent by a later
//! process carry it too, as the store demands.

use http::{HeaderMap, HeaderValue, Method};
use model::error::{Error, Kind, Result};
use model::key::Key;

use super::client::{ApiCall, S3, read_to_end};

use super::meta::{add_md5, crc64_in};
use crate::body::Body;
use crate::capability::WriteCrc;
use crate::checksum::{DigestSet, Hasher, crc64_of, hex};
use crate::framed::{CRC64, crc64_text, sample};
use crate::http::header_text;

/// In front of the id of an upload whose parts carry the checksum. Ids of S3 have no `:`.
const MARK: &str = "crc64nvme:";

/// Bodies up to this size are taken into memory for a header where the framing cannot be used. A transfer holds as much
/// memory for its buffers anyway.
const HELD_MAX: u64 = 256 << 10;

/// What the proof sends as parts.
const SAMPLE: &[u8] = b"whimbrel";

/// Numbers of the parts of the proof.
const NUMBERS: std::ops::RangeInclusive<u32> = 5_000..=10_000;

/// The right to find it out.
pub(super) type Proving<'a> = tokio::sync::MutexGuard<'a, Option<bool>>;

/// The id of an upload whose parts carry the checksum.
pub(super) fn marked(id: &str) -> String {
    format!("{MARK}{id}")
}

/// The id as the store gave it, and whether its parts carry the checksum.
pub(super) fn unmarked(upload: &str) -> (&str, bool) {
    upload.strip_prefix(MARK).map_or((upload, false), |id| (id, true))
}

/// Says at the beginning of an upload what its parts will carry (AWS "CreateMultipartUpload").
pub(super) fn announce(headers: &mut HeaderMap) {
    headers.insert("x-amz-checksum-algorithm", HeaderValue::from_static("CRC64NVME"));
    headers.insert("x-amz-checksum-type", HeaderValue::from_static("FULL_OBJECT"));
}

/// The body with its checksum: in a header when it is in memory, else behind its frames.
pub(super) fn add_crc(headers: &mut HeaderMap, body: Body) -> Body {
    match body.crc64_in_memory() {
        _ if body.is_empty() => body,
        Some(crc) => {
            set(headers, CRC64, &crc64_text(crc));
            body
        }
        None => {
            frame(headers, body.len());
            body.framed()
        }
    }
}

/// Headers of a body of `len` bytes in frames.
fn frame(headers: &mut HeaderMap, len: u64) {
    let own = header_text(headers, "content-encoding").filter(|own| !own.trim().is_empty());
    let encoding = own.map_or("aws-chunked".to_owned(), |own| format!("aws-chunked,{own}"));
    set(headers, "content-encoding", &encoding);
    set(headers, "x-amz-decoded-content-length", &len.to_string());
    set(headers, "x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    set(headers, "x-amz-trailer", CRC64);
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether a failure tells nothing of what the store understands.
fn passes(failure: &Error) -> bool {
    matches!(failure.kind, Kind::Throttled | Kind::Timeout | Kind::Connect)
}

impl S3 {
    /// Adds the checksum that the store verifies to a whole object: its MD5 where that is known, else its CRC-64.
    pub(super) async fn with_checksum(
        &self,
        headers: &mut HeaderMap,
        body: Body,
    ) -> Result<(Body, Option<Proving<'_>>)> {
        let crc = body.write_crc();
        if body.md5().is_some() || body.is_empty() || matches!(crc, WriteCrc::None | WriteCrc::Unproved) {
            add_md5(headers, &body);
            return Ok((body, None));
        }
        if body.crc64_in_memory().is_some() {
            return Ok((add_crc(headers, body), None));
        }
        if body.len() <= HELD_MAX {
            let body = Body::bytes(body.collect(HELD_MAX).await?);
            return Ok((add_crc(headers, body), None));
        }
        if crc != WriteCrc::Trailer {
            return Ok((body, None));
        }
        let known = self.facts.whole_framed.lock().await;
        Ok(match *known {
            None => (add_crc(headers, body), Some(known)),
            Some(true) => (add_crc(headers, body), None),
            Some(false) => (body, None),
        })
    }

    /// Looks at the first object that was written in frames.
    ///
    /// # Errors
    /// [`Kind::Mismatch`] where its Content-Encoding names them: it is to be written once more.
    pub(super) async fn prove_whole_framed(&self, key: &Key, mut known: Proving<'_>) -> Result<()> {
        let answer = self.send(ApiCall::new("head", Method::HEAD, Some(key))).await;
        let Ok(answer) = answer else { return Ok(()) };
        let encoding =
            header_text(answer.headers(), "content-encoding").unwrap_or_default().to_ascii_lowercase();
        read_to_end(answer).await;
        let without = !encoding.contains("aws-chunked");
        *known = Some(without);
        if without {
            return Ok(());
        }
        let m = format!("{}: the store keeps `aws-chunked` as Content-Encoding", self.describe(Some(key)));
        Err(Error::new(Kind::Mismatch, "write", m))
    }

    /// How the store verifies a CRC-64; `upload` becomes no object.
    pub(super) async fn write_crc_of(&self, key: &Key, upload: &str) -> Result<WriteCrc> {
        for way in [WriteCrc::Trailer, WriteCrc::Header] {
            if self.verifies(key, unmarked(upload).0, way).await? {
                return Ok(way);
            }
        }
        Ok(WriteCrc::None)
    }

    /// Whether a part with a wrong checksum is refused, and one with the right checksum is kept as it was sent.
    async fn verifies(&self, key: &Key, id: &str, way: WriteCrc) -> Result<bool> {
        match self.sample(key, id, way, !crc64_of(SAMPLE)).await {
            Err(f) if f.kind == Kind::Mismatch => {}
            Err(f) if passes(&f) => return Err(f),
            _ => return Ok(false),
        }
        match self.sample(key, id, way, crc64_of(SAMPLE)).await {
            Err(f) if passes(&f) => Err(f),
            Err(_) => Ok(false),
            Ok(kept) => Ok(kept),
        }
    }

    /// Sends a small part with a checksum. True when the answer proves that it was kept as it was sent.
    async fn sample(&self, key: &Key, id: &str, way: WriteCrc, crc: u64) -> Result<bool> {
        let n = fastrand::u32(NUMBERS).to_string();
        let query = [("partNumber", n.as_str()), ("uploadId", id)];
        let mut call = ApiCall { query: &query, ..ApiCall::new("write_part", Method::PUT, Some(key)) };
        call.body = match way {
            WriteCrc::Trailer => {
                frame(&mut call.headers, SAMPLE.len() as u64);
                Body::bytes(sample(SAMPLE, crc))
            }
            _ => {
                set(&mut call.headers, CRC64, &crc64_text(crc));
                Body::bytes(SAMPLE)
            }
        };
        let answer = self.send(call).await?;
        let mut md5 = Hasher::new(DigestSet { md5: true, ..DigestSet::default() });
        md5.update(SAMPLE);
        let md5 = md5.finish().md5.map(|m| hex(&m));
        let etag = header_text(answer.headers(), "etag").map(|e| e.trim_matches('"').to_ascii_lowercase());
        let told = header_text(answer.headers(), CRC64).and_then(crc64_in);
        let kept = etag.is_some() && etag == md5 || told == Some(crc64_of(SAMPLE));
        read_to_end(answer).await;
        Ok(kept)
    }
}
