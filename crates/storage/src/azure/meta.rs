//! Metadata and checksums, to headers and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use model::error::Result;

use super::client::{ApiCall, Azure};
use super::names;
use crate::checksum::hex;
use crate::etag::Etag;
use crate::http::{date, header_text, length};
use crate::meta::Meta;
use crate::s3::sign::encode;

pub(super) fn md5_of(text: Option<&str>) -> Option<[u8; 16]> {
    STANDARD.decode(text?).ok()?.try_into().ok()
}

/// S3's classes as access tiers.
pub(super) fn tier(class: &str) -> Option<&'static str> {
    match class {
        "STANDARD_IA" => Some("Cool"),
        "GLACIER" | "DEEP_ARCHIVE" => Some("Archive"),
        _ => None,
    }
}

/// Metadata out of the headers of a read or HEAD.
pub(super) fn meta_of(headers: &HeaderMap) -> Meta {
    let mut meta = Meta { size: length(headers).unwrap_or(0), ..Meta::default() };
    for (name, value) in headers {
        if crate::meta::CONTENT_HEADERS.contains(&name.as_str())
            && let Some(value) = Meta::carried(name, value)
        {
            meta.headers.push((name.clone(), value));
        }
    }
    meta.headers.extend(names::from_azure(headers));
    let ranged = header_text(headers, "content-range").and_then(|r| r.rsplit('/').next()?.parse().ok());
    let md5 = match ranged {
        Some(total) => {
            meta.size = total;
            header_text(headers, "x-ms-blob-content-md5")
        }
        None => header_text(headers, "content-md5"),
    };
    // Of page and append blobs it is what a client said once: the pages may have been written since.
    let block_blob = header_text(headers, "x-ms-blob-type").is_none_or(|kind| kind == "BlockBlob");
    let md5 = md5.filter(|_| block_blob);
    meta.etag = Etag::tagged(header_text(headers, "etag").unwrap_or_default(), md5_of(md5));
    meta.modified_ms = header_text(headers, "last-modified").and_then(date);
    meta.class = header_text(headers, "x-ms-access-tier").and_then(class).map(str::to_owned);
    meta.archived = header_text(headers, "x-ms-access-tier") == Some("Archive");
    meta.tag_count = header_text(headers, "x-ms-tag-count").and_then(|n| n.parse().ok()).unwrap_or(0);
    meta
}

/// Access tiers in S3's words; the default has none.
pub(super) fn class(tier: &str) -> Option<&'static str> {
    match tier {
        "Cool" | "Cold" => Some("STANDARD_IA"),
        "Archive" => Some("GLACIER"),
        _ => None,
    }
}

/// What the service says of stored bytes: its CRC-64, else its MD5.
pub(super) fn part_tag(headers: &HeaderMap) -> String {
    let crc = header_text(headers, "x-ms-content-crc64").and_then(|t| STANDARD.decode(t).ok());
    if let Some(crc) = crc.and_then(|b| <[u8; 8]>::try_from(b).ok()) {
        return hex(&u64::from_le_bytes(crc).to_be_bytes());
    }
    md5_of(header_text(headers, "content-md5")).map(|md5| hex(&md5)).unwrap_or_default()
}

impl Azure {
    pub(super) fn set_object_headers(&self, call: &mut ApiCall<'_>, meta: &Meta) -> Result<()> {
        for (name, value) in &meta.headers {
            let own = match name.as_str() {
                "content-type" => "x-ms-blob-content-type",
                "content-encoding" => "x-ms-blob-content-encoding",
                "content-language" => "x-ms-blob-content-language",
                "content-disposition" => "x-ms-blob-content-disposition",
                "cache-control" => "x-ms-blob-cache-control",
                _ => continue,
            };
            call.set(own, value.as_bytes())?;
        }
        for (name, value) in names::to_azure(&meta.headers) {
            call.headers.insert(name, value);
        }
        if let Some(tier) = meta.class.as_deref().and_then(tier) {
            call.set("x-ms-access-tier", tier.as_bytes())?;
        }
        if !meta.tags.is_empty() {
            let mut tags = String::new();
            for (name, value) in &meta.tags {
                if !tags.is_empty() {
                    tags.push('&');
                }
                encode(&mut tags, name.as_bytes(), false);
                tags.push('=');
                encode(&mut tags, value.as_bytes(), false);
            }
            call.set("x-ms-tags", tags.as_bytes())?;
        }
        Ok(())
    }
}
