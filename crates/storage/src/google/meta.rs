//! Metadata and checksums, to headers and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::etag::Etag;
use crate::meta::Meta;
use crate::s3::list_parser::instant;
use crate::s3::sign::encode;

/// An object resource, as far as it is needed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) size: String,
    pub(super) updated: String,
    pub(super) generation: String,
    pub(super) md5_hash: Option<String>,
    pub(super) storage_class: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) metadata: Map<String, Value>,
}

impl Object {
    pub(super) fn etag(&self) -> Etag {
        let md5 = self.md5_hash.as_ref().and_then(|t| STANDARD.decode(t).ok());
        Etag::tagged(&self.generation, md5.and_then(|m| m.try_into().ok()))
    }

    pub(super) fn meta(&self) -> Meta {
        let content = [
            ("content-type", &self.content_type),
            ("content-encoding", &self.content_encoding),
            ("content-language", &self.content_language),
            ("content-disposition", &self.content_disposition),
            ("cache-control", &self.cache_control),
        ];
        let content = content.into_iter().filter_map(|(n, v)| {
            let v = v.as_ref().filter(|v| !v.is_empty())?;
            Some((HeaderName::from_static(n), HeaderValue::from_bytes(v.as_bytes()).ok()?))
        });
        let own = self.metadata.iter().filter_map(|(n, v)| {
            let name = HeaderName::try_from(format!("x-amz-meta-{}", n.to_ascii_lowercase())).ok()?;
            Some((name, HeaderValue::from_bytes(v.as_str()?.as_bytes()).ok()?))
        });
        Meta {
            size: self.size.parse().unwrap_or(0),
            modified_ms: instant(self.updated.as_bytes()),
            etag: self.etag(),
            headers: content.chain(own).collect(),
            class: self.storage_class.as_deref().and_then(class).map(str::to_owned),
            ..Meta::default()
        }
    }
}

/// Google's classes in S3's words; the default has none. All of them can be read at once.
pub(super) fn class(google: &str) -> Option<&'static str> {
    match google {
        "NEARLINE" => Some("NEARLINE"),
        "COLDLINE" => Some("COLDLINE"),
        "ARCHIVE" => Some("COLD_ARCHIVE"),
        _ => None,
    }
}

pub(super) fn google_class(class: &str) -> Option<&'static str> {
    match class {
        "STANDARD_IA" => Some("NEARLINE"),
        "GLACIER" => Some("COLDLINE"),
        "DEEP_ARCHIVE" => Some("ARCHIVE"),
        _ => None,
    }
}

/// The resource that a write asks for.
pub(super) fn resource(meta: &Meta) -> Map<String, Value> {
    let mut out = Map::new();
    let mut own = Map::new();
    for (name, value) in &meta.headers {
        // Google wants text: what is none is percent-encoded.
        let text = match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                let mut text = String::new();
                encode(&mut text, value.as_bytes(), true);
                text
            }
        };
        let field = match name.as_str() {
            "content-type" => "contentType",
            "content-encoding" => "contentEncoding",
            "content-language" => "contentLanguage",
            "content-disposition" => "contentDisposition",
            "cache-control" => "cacheControl",
            other => {
                if let Some(bare) = other.strip_prefix("x-amz-meta-") {
                    own.insert(bare.to_owned(), text.into());
                }
                continue;
            }
        };
        out.insert(field.to_owned(), text.into());
    }
    if !own.is_empty() {
        out.insert("metadata".into(), own.into());
    }
    if let Some(class) = meta.class.as_deref().and_then(google_class) {
        out.insert("storageClass".into(), class.into());
    }
    out
}
