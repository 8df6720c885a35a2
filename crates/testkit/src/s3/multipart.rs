//! Multipart uploads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Response, StatusCode};
use md5::{Digest, Md5};
use storage::checksum::{hex, md5_of_parts};

use super::body::StoredBody;
use super::object::{carried, content_of, repeated, with_etag};
use super::{ParsedRequest, ResponseBody, State, UploadState, error, kept, lock, now_ms, text, with_crc};
use crate::content::Content;
use crate::keys::{Keys, Object, Sorted};

pub(super) fn begin(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let id = format!("upload-{}", state.next.fetch_add(1, Ordering::SeqCst));
    let upload = UploadState {
        bucket: asked.bucket.clone(),
        key: asked.key.clone(),
        headers: carried(&asked.headers),
        parts: BTreeMap::new(),
    };
    lock(&state.uploads).insert(id.clone(), upload);
    text(
        StatusCode::OK,
        format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"),
    )
}

pub(super) fn put_part(
    state: &Arc<State>,
    asked: &ParsedRequest,
    taken: StoredBody,
) -> Response<ResponseBody> {
    let id = asked.value("uploadId").unwrap_or_default();
    let number = asked.value("partNumber").and_then(|n| n.parse().ok()).unwrap_or(0);
    let content = content_of(taken);
    let md5 = match &content {
        Content::Given(bytes) => Md5::digest(bytes).into(),
        Content::Pattern(len) => content.md5(0..*len),
    };
    match lock(&state.uploads).get_mut(&id) {
        None => error(StatusCode::NOT_FOUND, "NoSuchUpload"),
        Some(upload) => {
            upload.parts.insert(number, (content, md5));
            repeated(state, asked, with_etag(&hex(&md5)))
        }
    }
}

pub(super) fn complete(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let id = asked.value("uploadId").unwrap_or_default();
    let Some(upload) = lock(&state.uploads).remove(&id) else {
        return error(StatusCode::NOT_FOUND, "NoSuchUpload");
    };
    let count = upload.parts.len();
    let etag = format!("{}-{count}", hex(&md5_of_parts(upload.parts.values().map(|(_, md5)| *md5))));
    let part_size = upload.parts.values().next().map(|(c, _)| c.len());
    let content = if upload.parts.values().any(|(c, _)| matches!(c, Content::Pattern(_))) {
        Content::Pattern(upload.parts.values().map(|(c, _)| c.len()).sum())
    } else {
        let mut all = Vec::new();
        for (content, _) in upload.parts.values() {
            all.extend_from_slice(&content.bytes(0..content.len()));
        }
        Content::Given(all.into())
    };
    let made = Object { content, etag, part_size, headers: upload.headers, modified_ms: now_ms() };
    let made = kept(&state.options, made);
    let etag = made.etag.clone();
    let told = made.clone();
    if let Some(Keys::Kept(map)) = lock(&state.buckets).get_mut(&upload.bucket) {
        map.insert(Sorted(state.options.order, upload.key), made);
    }
    let answer = format!(
        "<CompleteMultipartUploadResult><ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
    );
    with_crc(text(StatusCode::OK, answer), &told)
}

pub(super) fn list_parts(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let uploads = lock(&state.uploads);
    let Some(upload) = uploads.get(&asked.value("uploadId").unwrap_or_default()) else {
        return error(StatusCode::NOT_FOUND, "NoSuchUpload");
    };
    let mut xml = String::from("<ListPartsResult><IsTruncated>false</IsTruncated>");
    for (number, (content, md5)) in &upload.parts {
        let size = content.len();
        xml.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>\"{}\"</ETag><Size>{size}</Size></Part>",
            hex(md5)
        ));
    }
    text(StatusCode::OK, xml + "</ListPartsResult>")
}

pub(super) fn list_uploads(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let prefix = asked.value("prefix").unwrap_or_default();
    let mut xml = String::from("<ListMultipartUploadsResult>");
    for (id, upload) in lock(&state.uploads).iter() {
        if upload.bucket == asked.bucket && upload.key.starts_with(prefix.as_bytes()) {
            let key = String::from_utf8_lossy(&upload.key);
            xml.push_str(&format!(
                "<Upload><Key>{}</Key><UploadId>{id}</UploadId></Upload>",
                storage::xml::escape(&key)
            ));
        }
    }
    text(StatusCode::OK, xml + "</ListMultipartUploadsResult>")
}
