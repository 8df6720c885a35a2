//! Multipart uploads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Method};
use model::error::Result;
use model::key::Key;

use super::client::{ApiCall, Azure, MAX_RESPONSE_BYTES};
use super::meta::part_tag;
use crate::body::Body;
use crate::etag::Etag;
use crate::http::{collect, header_text};
use crate::meta::Meta;
use crate::xml::escape;
use crate::{UploadedPart, Written};

/// Names of blocks have one length within a blob: the upload's eight digits and the part's five.
pub(super) const UPLOAD_DIGITS: usize = 8;

/// An upload's name: what its blocks are called by, and what the blob is to be. The service is told only at the end.
pub(super) fn upload_name(meta: &Meta) -> Result<String> {
    let text = |v: &HeaderValue| STANDARD.encode(v.as_bytes());
    let headers: Vec<(&str, String)> = meta.headers.iter().map(|(n, v)| (n.as_str(), text(v))).collect();
    let json = serde_json::json!({"headers": headers, "class": meta.class, "tags": meta.tags});
    let random = fastrand::u32(..);
    Ok(format!("{random:08x}{}", STANDARD.encode(json.to_string())))
}

pub(super) fn upload_meta(upload: &str) -> Meta {
    #[derive(serde::Deserialize, Default)]
    struct UploadMeta {
        headers: Vec<(String, String)>,
        class: Option<String>,
        tags: Vec<(String, String)>,
    }
    let json = upload.get(UPLOAD_DIGITS..).and_then(|t| STANDARD.decode(t).ok()).unwrap_or_default();
    let kept: UploadMeta = serde_json::from_slice(&json).unwrap_or_default();
    let header = |(name, value): (String, String)| {
        let value = HeaderValue::from_bytes(&STANDARD.decode(value).ok()?).ok()?;
        Some((HeaderName::try_from(name).ok()?, value))
    };
    let headers = kept.headers.into_iter().filter_map(header).collect();
    Meta { headers, class: kept.class, tags: kept.tags, ..Meta::default() }
}

pub(super) fn block(upload: &str, number: u32) -> String {
    let digits = upload.get(..UPLOAD_DIGITS).unwrap_or("00000000");
    STANDARD.encode(format!("{digits}{number:05}"))
}

impl Azure {
    pub(super) async fn put_block(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        _offset: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        let size = body.len();
        let mut call = ApiCall { body, ..ApiCall::new("write_part", Method::PUT, Some(key)) };
        call.query.extend([("comp", "block".into()), ("blockid", block(upload, number))]);
        let answer = self.send(call).await?;
        let etag = part_tag(answer.headers());
        collect(answer, MAX_RESPONSE_BYTES).await?;
        Ok(UploadedPart { number, etag, size, opaque: false, crc64: None, md5: None })
    }

    pub(super) async fn put_block_list(
        &self,
        key: &Key,
        upload: &str,
        parts: &[UploadedPart],
    ) -> Result<Written> {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
        for part in parts {
            // Uncommitted or, when an answer was lost, committed: the newest of that name.
            xml.push_str(&format!("<Latest>{}</Latest>", escape(&block(upload, part.number))));
        }
        xml.push_str("</BlockList>");
        let mut call =
            ApiCall { body: Body::bytes(xml), ..ApiCall::new("complete_upload", Method::PUT, Some(key)) };
        call.query.push(("comp", "blocklist".into()));
        self.set_object_headers(&mut call, &upload_meta(upload))?;
        let answer = self.send(call).await?;
        let etag = Etag::tagged(header_text(answer.headers(), "etag").unwrap_or_default(), None);
        collect(answer, MAX_RESPONSE_BYTES).await?;
        Ok(Written { etag, ..Written::default() })
    }
}
