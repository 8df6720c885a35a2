//! The S3 dialect, directly on hyper: what AWS documents, in the words every S3 server understands.
//!
//! Decision: ADR 0003, `docs/adr/0003-own-s3-client-on-hyper.md`.

mod addressing;
mod capability;
mod client;
mod config;
mod error;
mod integrity;
mod list;
pub mod list_parser;
mod meta;
mod multipart;
mod read;
pub mod sign;
pub mod vendor;
mod versions;
mod write;

pub use addressing::Addressing;
pub use client::S3;
pub use config::S3Config;

use std::sync::Arc;

use addressing::{check_label, check_segment};
use async_trait::async_trait;
use client::{ApiCall, DebugClock, body_of};
use flow_control::clock::SharedClock;
use http::{HeaderValue, Method};
use model::error::{Error, Kind, Result};
use model::key::{Key, Order};
use sign::Signer;

use crate::body::Body;
use crate::capability::{Capability, WriteCrc};
use crate::etag::Etag;
use crate::http::header_text;
use crate::meta::Meta;
use crate::xml;
use crate::{
    ListRequest, ObjectStore, Page, Probe, ReadRequest, Reading, SharedStore, UploadedPart, VersionPage,
    Written,
};

impl S3 {
    /// Prepares a bucket; no request is made.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the bucket's name cannot be part of a host name or URL.
    pub fn new(config: S3Config, clock: SharedClock) -> Result<Self> {
        let client = match config.addressing {
            Addressing::Virtual if !config.bucket.is_empty() => {
                check_label(&config.bucket)?;
                config.client.with_label(&config.bucket)?
            }
            _ => {
                check_segment(&config.bucket)?;
                config.client.clone()
            }
        };
        let host = HeaderValue::from_str(client.authority()).map_err(|_| {
            Error::new(Kind::Invalid, "open", "the host of the endpoint is not a valid host name")
        })?;
        let signer = config.credentials.clone().map(|c| Signer::new(c, &config.region));
        let mut capability = Capability { crc64_ecma: config.vendor.crc64_ecma, ..Capability::S3 };
        if let Some(order) = config.order {
            capability.list_order = order;
        }
        Ok(Self {
            config,
            client,
            host,
            signer,
            clock: DebugClock(clock),
            capability,
            version: None,
            keeps_tree: false,
            facts: Arc::default(),
        })
    }

    /// Opens a bucket: probes it below a prefix, and learns the server's listing order from its name for itself.
    ///
    /// # Errors
    /// An error of the probe: no bucket, wrong credentials, no connection.
    pub async fn open(config: S3Config, prefix: &str, clock: SharedClock) -> Result<(Self, Probe)> {
        Self::new(config, clock)?.probed(prefix).await
    }

    /// `host[:port]` of the endpoint, without the bucket.
    pub fn authority(&self) -> &str {
        self.config.client.authority()
    }

    /// As [`S3::open`], for a bucket that is prepared already.
    ///
    /// # Errors
    /// As [`S3::open`].
    pub async fn probed(mut self, prefix: &str) -> Result<(Self, Probe)> {
        let s3 = &mut self;
        let probe = s3.probe(prefix).await?;
        // SeaweedFS keeps keys in folders and lists by walking them; see docs/storage.md.
        s3.keeps_tree = probe.server.starts_with("SeaweedFS");
        if s3.config.order.is_none() && s3.keeps_tree {
            s3.capability.list_order = Order::Segments;
        }
        Ok((self, probe))
    }
}

#[async_trait]
impl ObjectStore for S3 {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn location(&self) -> String {
        format!("s3://{} at {}", self.config.bucket, self.config.client.authority())
    }

    fn service(&self) -> Option<String> {
        let identity = self.config.credentials.as_ref().map_or("", |c| c.access_key.as_str());
        Some(format!("{} {identity}", self.config.client.authority()))
    }

    fn bucket(&self) -> &str {
        &self.config.bucket
    }

    async fn probe(&self, prefix: &str) -> Result<Probe> {
        let call = ApiCall::new("probe", Method::HEAD, None);
        let answer = self.send(call).await.map_err(|f| match f.kind {
            Kind::NotFound => Error {
                kind: Kind::NoBucket,
                message: format!(
                    "bucket `{}` does not exist at {}",
                    self.config.bucket,
                    self.client.authority()
                ),
                ..f
            },
            _ => f,
        });
        let answer = match answer {
            // A HEAD has no body that tells wrong keys from a forbidden action, and keys for one prefix may not HEAD
            // the bucket: ask for what will be needed.
            Err(f) if matches!(f.kind, Kind::Forbidden | Kind::Invalid | Kind::Unsupported) => {
                let query = [("list-type", "2"), ("max-keys", "1"), ("prefix", prefix)];
                match self.send(ApiCall { query: &query, ..ApiCall::new("list", Method::GET, None) }).await {
                    Err(f) if f.kind == Kind::Forbidden => {
                        return Ok(Probe { list_refused: Some(f), ..Probe::default() });
                    }
                    answer => answer?,
                }
            }
            other => other?,
        };
        let server = header_text(answer.headers(), "server").unwrap_or_default().to_owned();
        let now = self.clock.0.now_ms();
        let skew_ms = header_text(answer.headers(), "date").and_then(crate::http::date).map(|t| t - now);
        Ok(Probe { server, skew_ms, list_refused: None })
    }

    async fn list(&self, request: &ListRequest) -> Result<Page> {
        self.list_objects(request).await
    }

    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        self.head_object(key, part).await
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        self.read_object(key, request).await
    }

    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        self.put_object(key, meta, body).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.delete_object(key).await
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

    async fn prove_write_crc(&self, key: &Key, upload: &str) -> Result<WriteCrc> {
        self.write_crc_of(key, upload).await
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

    async fn copy_from(&self, bucket: &str, from: &Key, to: &Key, if_match: &Etag) -> Result<Written> {
        self.copy_object(bucket, from, to, if_match).await
    }

    async fn restore(&self, key: &Key, days: u32) -> Result<()> {
        self.restore_object(key, days).await
    }

    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        self.object_tags(key).await
    }

    async fn acl(&self, key: &Key) -> Result<Option<&'static str>> {
        self.object_acl(key).await
    }

    async fn keeps_versions(&self) -> Result<bool> {
        let query = [("versioning", "")];
        let call = ApiCall { query: &query, ..ApiCall::new("versioning", Method::GET, None) };
        let xml = body_of(self.send(call).await?).await?;
        let [status] = xml::texts(&xml, ["Status"])?;
        Ok(status.as_deref() == Some("Enabled"))
    }

    fn at_version(&self, version: &str) -> Option<SharedStore> {
        Some(Arc::new(S3 {
            config: self.config.clone(),
            client: self.client.clone(),
            host: self.host.clone(),
            signer: self.config.credentials.clone().map(|c| Signer::new(c, &self.config.region)),
            clock: DebugClock(self.clock.0.clone()),
            capability: Capability { copy: false, ..self.capability },
            version: Some(version.to_owned()),
            keeps_tree: self.keeps_tree,
            facts: self.facts.clone(),
        }))
    }

    async fn list_versions(&self, request: &ListRequest) -> Result<VersionPage> {
        self.versions_page(request).await
    }

    async fn buckets(&self) -> Result<Vec<String>> {
        self.list_buckets().await
    }
}
