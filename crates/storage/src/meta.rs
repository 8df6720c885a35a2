//! Metadata that is copied with an object.

use http::{HeaderName, HeaderValue};

use crate::checksum::Checksums;
use crate::etag::Etag;

/// Standard headers that describe the content and are copied with it.
pub const CONTENT_HEADERS: [&str; 6] = [
    "content-type",
    "content-encoding",
    "content-language",
    "content-disposition",
    "cache-control",
    "expires",
];

/// Metadata of one object, as read or as wanted at the target.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    /// Length of the whole object in bytes (not of a range of it).
    pub size: u64,
    /// Last modification, milliseconds since the epoch (negative before 1970); none when it is unknown.
    pub modified_ms: Option<i64>,
    /// When it was put where it is, milliseconds; 0 when that is the modification time.
    pub written_ms: i64,
    /// ETag.
    pub etag: Etag,
    /// Standard headers and user metadata (`x-amz-meta-…`), values as raw bytes.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Storage class as the store names it.
    pub class: Option<String>,
    /// Number of tags at the source; they are fetched by their own request.
    pub tag_count: u32,
    /// Tags to set.
    pub tags: Vec<(String, String)>,
    /// Number of parts, when the store tells.
    pub parts: Option<u32>,
    /// Checksums of the whole object, as far as the store tells them.
    pub sums: Checksums,
    /// Server-side encryption as the store names it (`AES256`, `aws:kms`).
    pub encryption: Option<String>,
    /// Canned access rule (`public-read`), if access rules are copied.
    pub acl: Option<&'static str>,
    /// Where both sides are directories: permissions of each directory on the way, then of the file.
    pub modes: Vec<u32>,
    /// The parts of an upload will carry a CRC-64/NVME, so the store is told of it when the upload begins.
    pub part_crc: bool,
    /// True when the server gives the object only as a whole.
    pub whole_only: bool,
    /// True when the server did not tell the length.
    pub length_unknown: bool,
    /// True when the object is archived and not readable now.
    pub archived: bool,
}

impl Meta {
    /// The value of a carried header.
    pub fn header(&self, name: &str) -> Option<&HeaderValue> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// True for a header that is copied: content headers and user metadata.
    pub fn carries(name: &HeaderName) -> bool {
        name.as_str().starts_with("x-amz-meta-") || CONTENT_HEADERS.contains(&name.as_str())
    }

    /// The value of a header that is copied; none when it describes only the transfer. `aws-chunked` names the
    /// framing of an upload (AWS "Signature calculations … chunked upload") and is never a property of the object.
    pub fn carried(name: &HeaderName, value: &HeaderValue) -> Option<HeaderValue> {
        if !Self::carries(name) {
            return None;
        }
        let text = match value.to_str() {
            Ok(text) if name == http::header::CONTENT_ENCODING => text,
            _ => return Some(value.clone()),
        };
        let is_framing = |token: &&str| token.eq_ignore_ascii_case("aws-chunked");
        let tokens: Vec<&str> = text.split(',').map(str::trim).filter(|t| !t.is_empty()).collect();
        if !tokens.iter().any(is_framing) {
            return Some(value.clone());
        }
        let kept: Vec<&str> = tokens.into_iter().filter(|t| !is_framing(t)).collect();
        if kept.is_empty() { None } else { HeaderValue::from_str(&kept.join(",")).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obj_10_aws_chunked_encoding_is_not_copied() {
        let carried = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            Meta::carried(&http::header::CONTENT_ENCODING, &value).map(|v| v.to_str().unwrap().to_owned())
        };
        assert_eq!(carried("aws-chunked"), None);
        assert_eq!(carried("AWS-Chunked"), None);
        assert_eq!(carried("gzip,aws-chunked").as_deref(), Some("gzip"));
        assert_eq!(carried("aws-chunked, gzip , br").as_deref(), Some("gzip,br"));
        assert_eq!(carried("gzip").as_deref(), Some("gzip"));
        assert_eq!(carried("").as_deref(), Some(""));
        let other = HeaderName::from_static("x-request-id");
        assert_eq!(Meta::carried(&other, &HeaderValue::from_static("1")), None);
    }
}
