//! Metadata that travels with an object.

use http::{HeaderName, HeaderValue};

use crate::etag::Etag;

/// Standard headers that describe the content and travel with it.
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
    /// Last modification, milliseconds since the epoch.
    pub modified_ms: i64,
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
    /// CRC-64/NVME of the whole object, when the store tells.
    pub crc64: Option<u64>,
    /// CRC-64/ECMA of the whole object, when the store tells.
    pub ecma: Option<u64>,
    /// Server-side encryption as the store names it (`AES256`, `aws:kms`).
    pub encryption: Option<String>,
    /// Canned access rule (`public-read`), when access travels.
    pub acl: Option<&'static str>,
    /// Where both sides are directories: permissions of each directory on the way, then of the file.
    pub modes: Vec<u32>,
    /// True when the server gives the object only as a whole.
    pub whole_only: bool,
    /// True when the object is archived and not readable now.
    pub archived: bool,
}

impl Meta {
    /// The value of a carried header.
    pub fn header(&self, name: &str) -> Option<&HeaderValue> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// True for a header that travels: content headers and user metadata.
    pub fn carries(name: &HeaderName) -> bool {
        name.as_str().starts_with("x-amz-meta-") || CONTENT_HEADERS.contains(&name.as_str())
    }
}
