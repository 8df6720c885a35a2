//! Azure Blob Storage by its REST API: block blobs of one container.
//!
//! ETags there are for conditions only; the service stores the MD5 of a blob separately. A large blob is
//! put together from blocks, which are not visible until the list of them is written; blocks that are never listed
//! vanish by themselves after a week, so there is nothing to abort.
//!
//! Decision: ADR 0009, `docs/adr/0009-azure-and-google-rest-apis.md`.

mod capability;
mod client;
mod config;
pub mod connection;
mod error;
mod list;
mod meta;
mod multipart;
mod names;
mod read;
mod sign;
mod write;

pub use client::Azure;
pub use config::AzureConfig;
pub use sign::Access;

use std::sync::Arc;

use async_trait::async_trait;
use client::{ApiCall, DebugClock, MAX_RESPONSE_BYTES};
use flow_control::clock::SharedClock;
use http::Method;
use model::error::{Error, Kind, Result};
use model::key::Key;
use multipart::upload_name;

use crate::body::Body;
use crate::capability::Capability;
use crate::http::{collect, date, header_text};
use crate::meta::Meta;
use crate::{ListRequest, ObjectStore, Page, Probe, ReadRequest, Reading, UploadedPart, Written};

impl Azure {
    /// Prepares a container; no request is made.
    pub fn new(config: AzureConfig, clock: SharedClock) -> Self {
        Self { config, clock: Arc::new(DebugClock(clock)), capability: Capability::AZURE }
    }
}

#[async_trait]
impl ObjectStore for Azure {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn location(&self) -> String {
        format!("az://{} at {}", self.config.container, self.config.client.authority())
    }

    fn service(&self) -> Option<String> {
        Some(format!("{} {}", self.config.client.authority(), self.config.account))
    }

    fn bucket(&self) -> &str {
        &self.config.container
    }

    async fn probe(&self, prefix: &str) -> Result<Probe> {
        let mut call = ApiCall::new("probe", Method::GET, None);
        for (name, value) in [("restype", "container"), ("comp", "list"), ("maxresults", "1")] {
            call.query.push((name, value.into()));
        }
        if !prefix.is_empty() {
            call.query.push(("prefix", prefix.to_owned()));
        }
        let answer = match self.send(call).await {
            Err(f) if f.kind == Kind::Forbidden => {
                return Ok(Probe { list_refused: Some(f), ..Probe::default() });
            }
            answer => answer?,
        };
        let server = header_text(answer.headers(), "server").unwrap_or_default().to_owned();
        let skew_ms = header_text(answer.headers(), "date").and_then(date).map(|t| t - self.clock.0.now_ms());
        collect(answer, MAX_RESPONSE_BYTES).await?;
        Ok(Probe { server, skew_ms, list_refused: None })
    }

    async fn list(&self, request: &ListRequest) -> Result<Page> {
        self.list_blobs(request).await
    }

    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        self.head_blob(key, part).await
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        self.read_blob(key, request).await
    }

    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        self.put_blob(key, meta, body).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.delete_blob(key).await
    }

    async fn begin_upload(&self, _key: &Key, meta: &Meta) -> Result<String> {
        upload_name(meta)
    }

    async fn write_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        offset: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        self.put_block(key, upload, number, offset, body).await
    }

    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        self.put_block_list(key, upload, parts).await
    }

    async fn abort_upload(&self, _key: &Key, _upload: &str) -> Result<()> {
        Ok(())
    }

    async fn list_parts(&self, _key: &Key, _upload: &str) -> Result<Vec<UploadedPart>> {
        let m = "Azure does not return digests of uncommitted blocks";
        Err(Error::new(Kind::Unsupported, "list_parts", m))
    }

    async fn list_uploads(&self, _prefix: &str) -> Result<Vec<(Key, String)>> {
        Ok(Vec::new())
    }

    async fn restore(&self, _key: &Key, _days: u32) -> Result<()> {
        let m = "rehydrating would change the source blob; hint: set its tier to Hot or Cool first";
        Err(Error::new(Kind::Unsupported, "restore", m))
    }

    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        self.blob_tags(key).await
    }

    async fn buckets(&self) -> Result<Vec<String>> {
        self.list_containers().await
    }
}

#[cfg(test)]
mod tests {
    use super::error::failure;
    use super::list::encoded_names;
    use super::meta::md5_of;
    use super::multipart::upload_meta;
    use crate::xml;
    use http::StatusCode;

    #[test]
    fn fuzz_azure_answers() {
        let listing = b"<?xml version='1.0'?><EnumerationResults><Blobs><Blob><Name Encoded='true'>a%2Fb</Name><Properties><Content-Length>1</Content-Length>\
            <Content-MD5>DMF1ucDxtqgxw5niaXcmYQ==</Content-MD5><Last-Modified>Mon, 01 Jan 2024 00:00:00 GMT</Last-Modified></Properties></Blob>\
            <BlobPrefix><Name>p/</Name></BlobPrefix></Blobs><NextMarker>m</NextMarker></EnumerationResults>";
        let error =
            b"<Error><Code>BlobNotFound</Code><Message>The specified blob does not exist.</Message></Error>";
        testkit::fuzz::fuzz("azure", &[listing.to_vec(), error.to_vec()], |input, _| {
            let _ = xml::blocks(input, "Blob", ["Name", "Content-Length", "Content-MD5", "Last-Modified"]);
            let _ = xml::texts(input, ["NextMarker", "Code", "Message"]);
            let _ = encoded_names(input);
            let _ = failure("list", "b", StatusCode::CONFLICT, None, input);
            if let Ok(text) = std::str::from_utf8(input) {
                let _ = upload_meta(text);
                let _ = md5_of(Some(text));
            }
        });
    }
}
