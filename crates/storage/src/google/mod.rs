//! Google Cloud Storage by its JSON API, for service accounts and open buckets. HMAC keys go through the S3 dialect.
//!
//! Conditions are generations; Google stores the MD5 of an object separately. A large object is composed
//! of parts, which are objects below [`PARTS_PREFIX`] until then; listings here do not show them, and they are removed with
//! the upload.
//!
//! Decision: ADR 0009, `docs/adr/0009-azure-and-google-rest-apis.md`.

mod capability;
mod client;
mod config;
mod error;
mod list;
mod meta;
mod multipart;
mod read;
pub mod token;
mod write;

pub use client::Google;
pub use config::{ENDPOINT, GoogleConfig};
pub use multipart::PARTS_PREFIX;

use async_trait::async_trait;
use client::MAX_RESPONSE_BYTES;
use flow_control::clock::SharedClock;
use http::{HeaderMap, Method};
use model::error::{Kind, Result};
use model::key::Key;

use crate::body::Body;
use crate::capability::Capability;
use crate::http::{collect, date};
use crate::meta::Meta;
use crate::{ListRequest, ObjectStore, Page, Probe, ReadRequest, Reading, UploadedPart, Written};

impl Google {
    /// Prepares a bucket; no request is made.
    pub fn new(config: GoogleConfig, clock: SharedClock) -> Self {
        Self { config, clock, capability: Capability::GOOGLE }
    }
}

#[async_trait]
impl ObjectStore for Google {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn location(&self) -> String {
        format!("gs://{} at {}", self.config.bucket, self.config.client.authority())
    }

    fn service(&self) -> Option<String> {
        Some(self.config.client.authority().to_owned())
    }

    fn bucket(&self) -> &str {
        &self.config.bucket
    }

    async fn probe(&self, prefix: &str) -> Result<Probe> {
        let mut call = self.call("probe", Method::GET, self.objects(""), None);
        call.query.push(("maxResults", "1".into()));
        if !prefix.is_empty() {
            call.query.push(("prefix", prefix.to_owned()));
        }
        let answer = match self.send(call).await {
            Err(f) if f.kind == Kind::Forbidden => {
                return Ok(Probe { list_refused: Some(f), ..Probe::default() });
            }
            answer => answer?,
        };
        let text =
            |h: &HeaderMap, n: &str| h.get(n).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let server = text(answer.headers(), "server");
        let skew_ms = date(&text(answer.headers(), "date")).map(|t| t - self.clock.now_ms());
        collect(answer, MAX_RESPONSE_BYTES).await?;
        Ok(Probe { server, skew_ms, list_refused: None })
    }

    async fn list(&self, request: &ListRequest) -> Result<Page> {
        self.list_objects(request).await
    }

    async fn head(&self, key: &Key, _part: Option<u32>) -> Result<Meta> {
        Ok(self.object_resource(key).await?.meta())
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        self.read_object(key, request).await
    }

    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        self.put_object(key, meta, body).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.delete_name(key.as_bytes()).await
    }

    async fn begin_upload(&self, key: &Key, meta: &Meta) -> Result<String> {
        self.start_upload(key, meta).await
    }

    async fn write_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        offset: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        self.put_part(key, upload, number, offset, body).await
    }

    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        self.finish_upload(key, upload, parts).await
    }

    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
        self.cancel_upload(key, upload).await
    }

    async fn list_parts(&self, key: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
        self.uploaded_parts(key, upload).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        self.open_uploads(prefix).await
    }

    async fn tags(&self, _key: &Key) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    async fn buckets(&self) -> Result<Vec<String>> {
        self.list_buckets().await
    }
}

#[cfg(test)]
mod tests {
    use super::error::failure;
    use super::list::Listing;
    use http::StatusCode;

    #[test]
    fn fuzz_google_json() {
        let listing = br#"{"kind":"storage#objects","nextPageToken":"t","prefixes":["p/"],"items":[{"name":"a/\u00e9","size":"1","updated":"2024-01-01T00:00:00.000Z",
            "generation":"1","md5Hash":"DMF1ucDxtqgxw5niaXcmYQ==","crc32c":"AAAAAA==","storageClass":"NEARLINE","metadata":{"k":"v"},"contentType":"x/y"}]}"#;
        let error = br#"{"error":{"code":404,"message":"No such object","errors":[{"reason":"notFound"}]}}"#;
        testkit::fuzz::fuzz("google json", &[listing.to_vec(), error.to_vec()], |input, _| {
            for object in serde_json::from_slice::<Listing>(input).unwrap_or_default().items {
                let _ = (object.etag(), object.meta());
            }
            let _ = failure("list", "b", StatusCode::NOT_FOUND, input);
        });
    }
}
