//! Metadata and checksums, to headers and back.

use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use model::error::{Error, Kind, Result};

use super::client::S3;
use super::sign::encode;
use super::vendor;
use crate::Written;
use crate::body::Body;
use crate::checksum::Checksums;
use crate::etag::Etag;
use crate::http::{header_text, length};
use crate::meta::Meta;

/// A CRC-64 as headers and answers write it.
pub(super) fn crc64_in(text: &str) -> Option<u64> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// A checksum of `N` bytes that a response has for the whole object. Checksums of checksums of parts are ignored
/// (AWS "Checking object integrity": composite checksums end in `-` and the number of parts).
pub(super) fn checksum<const N: usize>(headers: &HeaderMap, algorithm: &str) -> Option<[u8; N]> {
    if header_text(headers, "x-amz-checksum-type").is_some_and(|t| t.eq_ignore_ascii_case("COMPOSITE")) {
        return None;
    }
    let value = header_text(headers, &format!("x-amz-checksum-{algorithm}"))?;
    base64::engine::general_purpose::STANDARD.decode(value).ok()?.try_into().ok()
}

/// The MD5 of a body that is known before it is sent: a store that gets other bytes refuses them.
pub(super) fn add_md5(headers: &mut HeaderMap, body: &Body) {
    let Some(md5) = body.md5() else { return };
    let text = base64::engine::general_purpose::STANDARD.encode(md5);
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert("content-md5", value);
    }
}

impl S3 {
    pub(super) fn write_headers(&self, meta: &Meta) -> Result<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(meta.headers.len() + 6);
        for (name, value) in &meta.headers {
            headers.append(name.clone(), value.clone());
        }
        let mut set = |name: &'static str, value: &str| -> Result<()> {
            let value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| Error::new(Kind::Invalid, "write", format!("`{name}` is not a valid header")))?;
            headers.insert(HeaderName::from_static(name), value);
            Ok(())
        };
        if let Some(class) = &meta.class {
            set("x-amz-storage-class", class)?;
        }
        if let Some(acl) = &meta.acl {
            set("x-amz-acl", acl)?;
        }
        if let Some(encryption) = &meta.encryption {
            set("x-amz-server-side-encryption", encryption)?;
        }
        if !meta.tags.is_empty() {
            let mut text = String::new();
            for (name, value) in &meta.tags {
                if !text.is_empty() {
                    text.push('&');
                }
                encode(&mut text, name.as_bytes(), false);
                text.push('=');
                encode(&mut text, value.as_bytes(), false);
            }
            set("x-amz-tagging", &text)?;
        }
        Ok(headers)
    }

    /// What a write's answer tells; `etag` is of its headers or of its body.
    pub(super) fn written(&self, headers: &HeaderMap, etag: Etag) -> Written {
        let etag = if self.encrypts(headers) { etag.opaque() } else { etag };
        Written { etag, sums: self.sums_of(headers) }
    }

    pub(super) fn sums_of(&self, headers: &HeaderMap) -> Checksums {
        Checksums {
            crc64_nvme: checksum(headers, "crc64nvme").map(u64::from_be_bytes),
            crc32c: checksum(headers, "crc32c").map(u32::from_be_bytes),
            sha256: checksum(headers, "sha256"),
            crc64_ecma: self.crc64_ecma_of(headers),
        }
    }

    /// How the answer says that the object is encrypted, where its ETag is therefore no digest: with a key service
    /// or with a customer's key. Encryption with the store's own keys (`AES256`) keeps the MD5.
    pub(super) fn encrypts(&self, headers: &HeaderMap) -> bool {
        let vendor = self.config.vendor;
        let named = |rest: &str| {
            header_text(headers, &format!("x-amz-{rest}"))
                .or_else(|| header_text(headers, &vendor.header(rest)))
        };
        named("server-side-encryption").is_some_and(|e| !e.eq_ignore_ascii_case("AES256"))
            || named("server-side-encryption-customer-algorithm").is_some()
    }

    /// CRC-64/ECMA, a decimal number in the vendor's own header.
    pub(super) fn crc64_ecma_of(&self, headers: &HeaderMap) -> Option<u64> {
        let vendor = self.config.vendor;
        header_text(headers, &vendor.header("hash-crc64ecma")).filter(|_| vendor.crc64_ecma)?.parse().ok()
    }

    /// Metadata out of the headers of a read or HEAD; the vendor's own names become S3's.
    pub(super) fn meta_of(&self, headers: &HeaderMap) -> Meta {
        let vendor = self.config.vendor;
        let either = |rest: &str| {
            header_text(headers, &format!("x-amz-{rest}"))
                .or_else(|| header_text(headers, &vendor.header(rest)))
        };
        let mut meta = Meta { size: length(headers).unwrap_or(0), ..Meta::default() };
        let own_meta = vendor.header("meta-");
        for (name, value) in headers {
            if let Some(value) = Meta::carried(name, value) {
                meta.headers.push((name.clone(), value));
            } else if let Some(rest) = name.as_str().strip_prefix(&own_meta)
                && let Ok(name) = HeaderName::try_from(format!("x-amz-meta-{rest}"))
            {
                meta.headers.push((name, value.clone()));
            }
        }
        if let Some(total) =
            header_text(headers, "content-range").and_then(|r| r.rsplit('/').next()?.parse().ok())
        {
            meta.size = total;
        }
        meta.etag = header_text(headers, "etag").map_or(Etag::None, Etag::parse);
        if self.encrypts(headers) {
            meta.etag = meta.etag.opaque();
        }
        meta.modified_ms = header_text(headers, "last-modified").and_then(crate::http::date);
        meta.class = either("storage-class").map(str::to_owned);
        meta.tag_count = either("tagging-count").and_then(|n| n.parse().ok()).unwrap_or(0);
        meta.parts = header_text(headers, "x-amz-mp-parts-count").and_then(|n| n.parse().ok());
        meta.encryption = either("server-side-encryption").map(str::to_owned);
        meta.sums = self.sums_of(headers);
        let restored = either("restore").is_some_and(|r| r.contains("ongoing-request=\"false\""));
        meta.archived = !restored && meta.class.as_deref().is_some_and(vendor::is_archive);
        meta
    }
}
