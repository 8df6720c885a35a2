//! Multipart uploads.

use std::fmt::Write as _;

use http::{HeaderValue, Method};
use model::error::{Error, Kind, Result};
use model::key::Key;

use super::client::{ApiCall, S3, body_of, read_to_end};
use super::list_parser::flag;
use super::meta::{add_md5, crc64_in};
use super::{error, integrity};
use crate::body::Body;
use crate::etag::Etag;
use crate::http::header_text;
use crate::meta::Meta;
use crate::xml::{self, blocks, escape};
use crate::{UploadedPart, Written};

impl S3 {
    pub(super) async fn start_upload(&self, key: &Key, meta: &Meta) -> Result<String> {
        let mut headers = self.write_headers(meta)?;
        if meta.part_crc {
            integrity::announce(&mut headers);
        }
        let query = [("uploads", "")];
        let call =
            ApiCall { query: &query, headers, ..ApiCall::new("begin_upload", Method::POST, Some(key)) };
        let xml = body_of(self.send(call).await?).await?;
        let [id] = xml::texts(&xml, ["UploadId"])?;
        let id =
            id.ok_or_else(|| Error::new(Kind::Corrupt, "begin_upload", "the response has no UploadId"))?;
        Ok(if meta.part_crc { integrity::marked(&id) } else { id })
    }

    pub(super) async fn put_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        _offset: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        let size = body.len();
        let n = number.to_string();
        let (id, with_crc) = integrity::unmarked(upload);
        let query = [("partNumber", n.as_str()), ("uploadId", id)];
        let mut call = ApiCall { query: &query, ..ApiCall::new("write_part", Method::PUT, Some(key)) };
        add_md5(&mut call.headers, &body);
        call.body = if with_crc { integrity::add_crc(&mut call.headers, body) } else { body };
        let answer = self.send(call).await?;
        let etag = header_text(answer.headers(), "etag").unwrap_or_default().trim_matches('"').to_owned();
        let opaque = self.encrypts(answer.headers());
        read_to_end(answer).await;
        if etag.is_empty() {
            return Err(Error::new(Kind::Corrupt, "write_part", "the response has no ETag"));
        }
        Ok(UploadedPart { number, etag, size, opaque, crc64: None, md5: None })
    }

    pub(super) async fn finish_upload(
        &self,
        key: &Key,
        upload: &str,
        parts: &[UploadedPart],
    ) -> Result<Written> {
        let mut xml = String::with_capacity(parts.len() * 100 + 64);
        xml.push_str("<CompleteMultipartUpload>");
        for part in parts {
            let _ = write!(
                xml,
                "<Part><PartNumber>{}</PartNumber><ETag>&quot;{}&quot;</ETag></Part>",
                part.number,
                escape(&part.etag)
            );
        }
        xml.push_str("</CompleteMultipartUpload>");
        let query = [("uploadId", integrity::unmarked(upload).0)];
        let mut call = ApiCall::new("complete_upload", Method::POST, Some(key));
        call.query = &query;
        call.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        call.body = Body::bytes(xml);
        let answer = self.send(call).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let xml = body_of(answer).await?;
        // Completion may fail after its 200 was sent: the body tells (AWS CompleteMultipartUpload).
        let [etag, code, crc64] = xml::texts(&xml, ["ETag", "Code", "ChecksumCRC64NVME"])?;
        if code.is_some() {
            let status = if status.is_success() { http::StatusCode::INTERNAL_SERVER_ERROR } else { status };
            return Err(error::failure("complete_upload", &self.describe(Some(key)), status, &xml, None));
        }
        let etag = etag.map_or(Etag::None, |e| Etag::parse(&e));
        if etag.is_none() {
            let m = format!("{}: the response has no ETag, so no object was made", self.describe(Some(key)));
            return Err(Error::new(Kind::Mismatch, "complete_upload", m));
        }
        let mut written = self.written(&headers, etag);
        // It is always of the whole object (AWS "Checking object integrity": full object checksums).
        written.sums.crc64_nvme = written.sums.crc64_nvme.or(crc64.and_then(|c| crc64_in(&c)));
        Ok(written)
    }

    pub(super) async fn cancel_upload(&self, key: &Key, upload: &str) -> Result<()> {
        let query = [("uploadId", integrity::unmarked(upload).0)];
        let call = ApiCall { query: &query, ..ApiCall::new("abort_upload", Method::DELETE, Some(key)) };
        match self.send(call).await {
            Ok(answer) => {
                read_to_end(answer).await;
                Ok(())
            }
            Err(f) if f.kind == Kind::NotFound => Ok(()),
            Err(f) => Err(f),
        }
    }

    pub(super) async fn uploaded_parts(&self, key: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
        let mut parts = Vec::new();
        let mut marker = String::from("0");
        let (id, _) = integrity::unmarked(upload);
        // 10,000 parts in pages of 1,000.
        for _ in 0..11 {
            let query = [("max-parts", "1000"), ("part-number-marker", marker.as_str()), ("uploadId", id)];
            let call = ApiCall { query: &query, ..ApiCall::new("list_parts", Method::GET, Some(key)) };
            let xml = body_of(self.send(call).await?).await?;
            let found = blocks(&xml, "Part", ["PartNumber", "ETag", "Size"])?;
            for [number, etag, size] in found {
                let part = UploadedPart {
                    number: number.parse().unwrap_or(0),
                    etag: etag.trim_matches('"').to_owned(),
                    size: size.parse().unwrap_or(0),
                    opaque: false,
                    crc64: None,
                    md5: None,
                };
                parts.push(part);
            }
            let [truncated, next] = xml::texts(&xml, ["IsTruncated", "NextPartNumberMarker"])?;
            let truncated = truncated.is_some_and(|t| flag(t.as_bytes()).unwrap_or(true));
            match next {
                Some(next) if truncated && next != marker => marker = next,
                _ => break,
            }
        }
        Ok(parts)
    }

    pub(super) async fn open_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        let query = [("max-uploads", "1000"), ("prefix", prefix), ("uploads", "")];
        let call = ApiCall { query: &query, ..ApiCall::new("list_uploads", Method::GET, None) };
        let xml = body_of(self.send(call).await?).await?;
        let found = blocks(&xml, "Upload", ["Key", "UploadId"])?;
        Ok(found.into_iter().map(|[key, id]| (Key::from(key), id)).collect())
    }
}
