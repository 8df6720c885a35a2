//! The S3 dialect, directly on hyper: what AWS documents, in the words every S3 server understands.

mod error;
mod integrity;
pub mod list;
pub mod sign;
pub mod vendor;
mod versions;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use async_trait::async_trait;
use base64::Engine as _;
use flow_control::clock::SharedClock;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use model::failure::{Failure, Kind, Result};
use model::key::{Key, Order};

use crate::body::Body;
use crate::capability::{Capability, WriteCrc};
use crate::checksum::Checksums;
use crate::etag::Etag;
use crate::http::{Client, ResponseBody, check_range, collect, length};
use crate::meta::Meta;
use crate::xml::{self, blocks, escape};
use crate::{
    ListRequest, ObjectStore, Page, Position, Probe, ReadRequest, Reading, SharedStore, UploadedPart,
    VersionPage, Written, no_length,
};
use sign::{Credentials, Signer, encode, stamp};
use vendor::Vendor;

/// No listing, error or upload answer is larger: 1000 keys of 1,024 bytes, percent-encoded, with room.
const MAX_RESPONSE_BYTES: u64 = 16 << 20;

/// So many signatures refused in a row end the task; fewer among good ones are those objects' own trouble.
const MAX_REFUSED_SIGNATURES: u32 = 16;

/// Which listing the server speaks, learned from its answers.
const DIALECT_UNKNOWN: u32 = 0;
const DIALECT_V1: u32 = 1;
const DIALECT_V2: u32 = 2;

/// What a bucket's answers have taught, shared by all views of it.
#[derive(Debug, Default)]
struct ServerFacts {
    dialect: AtomicU32,
    /// Requests that were signed and accepted; counted no further than one.
    accepted: AtomicU32,
    /// Signatures refused since the last that was accepted.
    refused: AtomicU32,
    /// Whether objects that were written in frames are kept without a trace of them.
    whole_framed: integrity::WholeFramed,
}

/// How a bucket is named in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `http://host/bucket/key`
    Path,
    /// `http://bucket.host/key`
    Virtual,
}

/// What is needed to open a bucket.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// The endpoint.
    pub client: Client,
    /// The bucket; empty for calls on the account.
    pub bucket: String,
    /// How the bucket is named.
    pub addressing: Addressing,
    /// Region to sign for.
    pub region: String,
    /// None: anonymous.
    pub credentials: Option<Credentials>,
    /// Set when the operator knows better than detection.
    pub order: Option<Order>,
    /// Says on reads that the requester pays.
    pub requester_pays: bool,
    /// Whose dialect is spoken.
    pub vendor: &'static Vendor,
}

/// One bucket of an S3 endpoint.
#[derive(Debug)]
pub struct S3 {
    config: S3Config,
    client: Client,
    host: HeaderValue,
    signer: Option<Signer>,
    clock: DebugClock,
    capability: Capability,
    /// Reads are of this version of a key.
    version: Option<String>,
    /// The server makes one key of `a//b`, `/a/b` and `a/b`.
    merges_slashes: bool,
    facts: Arc<ServerFacts>,
}

struct DebugClock(SharedClock);

impl std::fmt::Debug for DebugClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// One request before it is signed.
struct ApiCall<'a> {
    op: &'static str,
    method: Method,
    key: Option<&'a Key>,
    /// Sorted by name, as signing needs.
    query: &'a [(&'a str, &'a str)],
    headers: HeaderMap,
    body: Body,
}

impl<'a> ApiCall<'a> {
    fn new(op: &'static str, method: Method, key: Option<&'a Key>) -> Self {
        Self { op, method, key, query: &[], headers: HeaderMap::new(), body: Body::bytes("") }
    }
}

/// A bucket that becomes part of a host's name is written like one.
fn check_label(bucket: &str) -> Result<()> {
    let fits = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
        && !bucket.starts_with(['.', '-'])
        && !bucket.ends_with(['.', '-'])
        && !bucket.contains("..");
    fits.then_some(()).ok_or_else(|| {
        let m = format!(
            "bucket `{bucket}` cannot be part of a host name (3 to 63 lower-case letters, digits, `.` and `-`)"
        );
        Failure::new(Kind::Invalid, "open", m)
    })
}

/// A bucket in a path is a segment of its own there.
fn check_segment(bucket: &str) -> Result<()> {
    if bucket == "." || bucket == ".." || bucket.bytes().any(|b| b.is_ascii_control()) {
        return Err(Failure::new(
            Kind::Invalid,
            "open",
            format!("`{}` is not a valid bucket name", bucket.escape_debug()),
        ));
    }
    Ok(())
}

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
            Failure::new(Kind::Invalid, "open", "the host of the endpoint is not a valid host name")
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
            merges_slashes: false,
            facts: Arc::default(),
        })
    }

    /// Opens a bucket: probes it below a prefix, and learns the server's listing order from its name for itself.
    ///
    /// # Errors
    /// Whatever the probe meets: no bucket, wrong credentials, no connection.
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
        s3.merges_slashes = probe.server.starts_with("SeaweedFS");
        if s3.config.order.is_none() && s3.merges_slashes {
            s3.capability.list_order = Order::Segments;
        }
        Ok((self, probe))
    }

    /// Makes the bucket; it is no error if it is ours already.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn create_bucket(&self) -> Result<()> {
        match self.send(ApiCall::new("create_bucket", Method::PUT, None)).await {
            Ok(answer) => {
                read_to_end(answer).await;
                Ok(())
            }
            Err(f)
                if f.message.contains("AlreadyOwnedByYou") || f.message.contains("BucketAlreadyExists") =>
            {
                Ok(())
            }
            Err(f) => Err(f),
        }
    }

    fn version_query(&self) -> impl Iterator<Item = (&str, &str)> {
        self.version.iter().map(|v| ("versionId", v.as_str()))
    }

    fn describe(&self, key: Option<&Key>) -> String {
        match key {
            Some(key) => format!("`{}/{key}`", self.config.bucket),
            None => format!("bucket `{}`", self.config.bucket),
        }
    }

    async fn send(&self, call: ApiCall<'_>) -> Result<Response<ResponseBody>> {
        if self.merges_slashes
            && let Some(key) = call.key.filter(|k| has_empty_segment(k.as_bytes()))
        {
            let m =
                format!("`{key}` has an empty path segment, which this server would store under another key");
            return Err(Failure::new(Kind::InvalidKey, call.op, m));
        }
        let mut path = String::with_capacity(64 + call.key.map_or(0, |k| k.as_bytes().len()));
        path.push_str(self.client.base());
        path.push('/');
        if self.config.addressing == Addressing::Path && !self.config.bucket.is_empty() {
            encode(&mut path, self.config.bucket.as_bytes(), false);
            if call.key.is_some() {
                path.push('/');
            }
        }
        if let Some(key) = call.key {
            encode(&mut path, key.as_bytes(), true);
        }
        let mut query = String::new();
        for (name, value) in call.query {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            encode(&mut query, value.as_bytes(), false);
        }
        let mut headers = call.headers;
        headers.insert(http::header::HOST, self.host.clone());
        if self.config.requester_pays
            && let Ok(name) = HeaderName::try_from(self.config.vendor.header("request-payer"))
        {
            headers.insert(name, HeaderValue::from_static("requester"));
        }
        if let Some(signer) = &self.signer {
            signer.sign(call.method.as_str(), &path, &query, &mut headers, &stamp(self.clock.0.now_ms()));
        }
        if !query.is_empty() {
            path.push('?');
            path.push_str(&query);
        }
        let mut request = Request::builder().method(call.method).uri(path).body(call.body).map_err(|e| {
            Failure::new(Kind::InvalidKey, call.op, format!("{}: {e}", self.describe(call.key)))
        })?;
        *request.headers_mut() = headers;
        let bodiless = request.method() == Method::HEAD;
        let answer = self.client.send(request).await.map_err(|f| Failure { op: call.op, ..f })?;
        if answer.status().is_success() {
            if self.facts.accepted.load(Relaxed) == 0 {
                self.facts.accepted.store(1, Relaxed);
            }
            if self.facts.refused.load(Relaxed) > 0 {
                self.facts.refused.store(0, Relaxed);
            }
            return Ok(answer);
        }
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = if bodiless { Default::default() } else { body_of(answer).await.unwrap_or_default() };
        let elsewhere = error::region_in(&headers, &body).filter(|r| *r != self.config.region);
        // A refused key may come with the region too: only these answers are about it.
        let elsewhere =
            elsewhere.filter(|_| status.is_redirection() || status == http::StatusCode::BAD_REQUEST);
        let failure = error::failure(call.op, &self.describe(call.key), status, &body, elsewhere.as_deref());
        Err(self.classify_signature_failure(call.key, &body, failure))
    }

    /// One signature that is refused while others pass is that object's trouble, not the credentials'.
    fn classify_signature_failure(&self, key: Option<&Key>, body: &[u8], failure: Failure) -> Failure {
        let refused = failure.kind == Kind::BadCredentials
            && xml::texts(body, ["Code"])
                .is_ok_and(|[code]| code.as_deref() == Some("SignatureDoesNotMatch"));
        let alone = refused
            && key.is_some()
            && self.facts.accepted.load(Relaxed) > 0
            && self.facts.refused.fetch_add(1, Relaxed) < MAX_REFUSED_SIGNATURES;
        if alone { Failure { kind: Kind::Invalid, ..failure } } else { failure }
    }

    fn write_headers(&self, meta: &Meta) -> Result<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(meta.headers.len() + 6);
        for (name, value) in &meta.headers {
            headers.append(name.clone(), value.clone());
        }
        let mut set = |name: &'static str, value: &str| -> Result<()> {
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
                Failure::new(Kind::Invalid, "write", format!("`{name}` is not a valid header"))
            })?;
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
}

/// True for a key with an empty segment in front of its last.
fn has_empty_segment(key: &[u8]) -> bool {
    key.starts_with(b"/") || key.windows(2).any(|w| w == b"//")
}

async fn body_of(answer: Response<ResponseBody>) -> Result<bytes::Bytes> {
    collect(answer, MAX_RESPONSE_BYTES).await
}

fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// A checksum of `N` bytes that an answer tells of the whole object. Checksums of checksums of parts are left out
/// (AWS "Checking object integrity": composite checksums end in `-` and the number of parts).
fn checksum<const N: usize>(headers: &HeaderMap, algorithm: &str) -> Option<[u8; N]> {
    if header_text(headers, "x-amz-checksum-type").is_some_and(|t| t.eq_ignore_ascii_case("COMPOSITE")) {
        return None;
    }
    let value = header_text(headers, &format!("x-amz-checksum-{algorithm}"))?;
    base64::engine::general_purpose::STANDARD.decode(value).ok()?.try_into().ok()
}

/// A CRC-64 as headers and answers write it.
fn crc64_in(text: &str) -> Option<u64> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

impl S3 {
    /// What a write's answer tells; `etag` is of its headers or of its body.
    fn written(&self, headers: &HeaderMap, etag: Etag) -> Written {
        let etag = if self.encrypts(headers) { etag.opaque() } else { etag };
        Written { etag, sums: self.sums_of(headers) }
    }

    fn sums_of(&self, headers: &HeaderMap) -> Checksums {
        Checksums {
            crc64_nvme: checksum(headers, "crc64nvme").map(u64::from_be_bytes),
            crc32c: checksum(headers, "crc32c").map(u32::from_be_bytes),
            sha256: checksum(headers, "sha256"),
            crc64_ecma: self.crc64_ecma_of(headers),
        }
    }

    /// How the answer says that the object is encrypted, where its ETag is therefore no digest: with a key service
    /// or with a customer's key. Encryption with the store's own keys (`AES256`) keeps the MD5.
    fn encrypts(&self, headers: &HeaderMap) -> bool {
        let vendor = self.config.vendor;
        let named = |rest: &str| {
            header_text(headers, &format!("x-amz-{rest}"))
                .or_else(|| header_text(headers, &vendor.header(rest)))
        };
        named("server-side-encryption").is_some_and(|e| !e.eq_ignore_ascii_case("AES256"))
            || named("server-side-encryption-customer-algorithm").is_some()
    }

    /// CRC-64/ECMA, a decimal number in the vendor's own header.
    fn crc64_ecma_of(&self, headers: &HeaderMap) -> Option<u64> {
        let vendor = self.config.vendor;
        header_text(headers, &vendor.header("hash-crc64ecma")).filter(|_| vendor.crc64_ecma)?.parse().ok()
    }

    /// Metadata out of the headers of a read or HEAD; the vendor's own names become S3's.
    fn meta_of(&self, headers: &HeaderMap) -> Meta {
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
            Kind::NotFound => Failure {
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
        match self.list_in(request, self.facts.dialect.load(Relaxed)).await {
            // A server that refuses the second version of the listing may know the first.
            Err(f)
                if matches!(f.kind, Kind::Invalid | Kind::Unsupported)
                    && self.facts.dialect.load(Relaxed) == DIALECT_UNKNOWN
                    && request.from == Position::Start =>
            {
                let first = self.list_in(request, DIALECT_V1).await;
                first.map_err(|_| f)
            }
            // Directory buckets refuse `start-after` (AWS "ListObjectsV2": directory buckets).
            Err(f)
                if matches!(f.kind, Kind::Invalid | Kind::Unsupported)
                    && matches!(request.from, Position::After(_)) =>
            {
                Err(Failure { kind: Kind::OutOfOrderListing, ..f })
            }
            page => page,
        }
    }

    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        let number = part.map(|n| n.to_string());
        let mut query: Vec<(&str, &str)> = number.iter().map(|n| ("partNumber", n.as_str())).collect();
        query.extend(self.version_query());
        let mut call = ApiCall { query: &query, ..ApiCall::new("head", Method::HEAD, Some(key)) };
        call.headers.insert("x-amz-checksum-mode", HeaderValue::from_static("ENABLED"));
        let answer = match self.send(call).await {
            Err(f) if f.kind == Kind::Invalid => return Err(self.failure_of_get(key, &query, f).await),
            answer => answer?,
        };
        let mut meta = self.meta_of(answer.headers());
        if part.is_some() {
            meta.size = length(answer.headers()).unwrap_or(0);
        }
        Ok(meta)
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        let query: Vec<(&str, &str)> = self.version_query().collect();
        let mut call = ApiCall { query: &query, ..ApiCall::new("read", Method::GET, Some(key)) };
        let value = |text: String| {
            HeaderValue::from_str(&text).map_err(|_| Failure::new(Kind::Invalid, "read", "bad header value"))
        };
        match &request.range {
            Some(r) => {
                call.headers.insert(http::header::RANGE, value(format!("bytes={}-{}", r.start, r.end - 1))?);
            }
            // The checksums of the whole object come with the whole.
            None => {
                call.headers.insert("x-amz-checksum-mode", HeaderValue::from_static("ENABLED"));
            }
        }
        if let Some(etag) = request.if_match.as_ref().filter(|e| !e.is_none()) {
            call.headers.insert(http::header::IF_MATCH, value(format!("\"{etag}\""))?);
        }
        let answer = self.send(call).await?;
        check_range(&answer, request.range.as_ref(), key)?;
        let meta = self.meta_of(answer.headers());
        if let Some(wanted) = request.if_match.as_ref().filter(|e| !e.is_none())
            && !meta.etag.is_none()
            && !meta.etag.same_text(wanted)
        {
            let m = format!("{}: the ETag is now {}, expected {wanted}", self.describe(Some(key)), meta.etag);
            return Err(Failure::new(Kind::Changed, "read", m));
        }
        let told = length(answer.headers());
        let len = told.or(request.expected_len()).ok_or_else(|| no_length(&self.describe(Some(key))))?;
        let meta = match (told, &request.range) {
            (None, None) => Meta { size: len, ..meta },
            _ => meta,
        };
        Ok(Reading { meta, body: Body::wire(answer.into_body(), len) })
    }

    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        let mut headers = self.write_headers(meta)?;
        let (body, proving) = self.with_checksum(&mut headers, body).await?;
        let call = ApiCall { headers, body, ..ApiCall::new("write", Method::PUT, Some(key)) };
        let answer = self.send(call).await?;
        let etag = header_text(answer.headers(), "etag").map_or(Etag::None, Etag::parse);
        let written = self.written(answer.headers(), etag);
        read_to_end(answer).await;
        if let Some(proving) = proving {
            self.prove_whole_framed(key, proving).await?;
        }
        Ok(written)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        match self.send(ApiCall::new("delete", Method::DELETE, Some(key))).await {
            Ok(answer) => {
                read_to_end(answer).await;
                Ok(())
            }
            Err(f) if f.kind == Kind::NotFound => Ok(()),
            Err(f) => Err(f),
        }
    }

    async fn begin_upload(&self, key: &Key, meta: &Meta) -> Result<String> {
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
            id.ok_or_else(|| Failure::new(Kind::Corrupt, "begin_upload", "the response has no UploadId"))?;
        Ok(if meta.part_crc { integrity::marked(&id) } else { id })
    }

    async fn write_part(
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
            return Err(Failure::new(Kind::Corrupt, "write_part", "the response has no ETag"));
        }
        Ok(UploadedPart { number, etag, size, opaque, crc64: None })
    }

    async fn prove_write_crc(&self, key: &Key, upload: &str) -> Result<WriteCrc> {
        self.write_crc_of(key, upload).await
    }

    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
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
        let mut written = self.written(&headers, etag.map_or(Etag::None, |e| Etag::parse(&e)));
        // It is always of the whole object (AWS "Checking object integrity": full object checksums).
        written.sums.crc64_nvme = written.sums.crc64_nvme.or(crc64.and_then(|c| crc64_in(&c)));
        Ok(written)
    }

    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
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

    async fn list_parts(&self, key: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
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
                };
                parts.push(part);
            }
            let [truncated, next] = xml::texts(&xml, ["IsTruncated", "NextPartNumberMarker"])?;
            match (truncated.as_deref(), next) {
                (Some("true"), Some(next)) if next != marker => marker = next,
                _ => break,
            }
        }
        Ok(parts)
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        let query = [("max-uploads", "1000"), ("prefix", prefix), ("uploads", "")];
        let call = ApiCall { query: &query, ..ApiCall::new("list_uploads", Method::GET, None) };
        let xml = body_of(self.send(call).await?).await?;
        let found = blocks(&xml, "Upload", ["Key", "UploadId"])?;
        Ok(found.into_iter().map(|[key, id]| (Key::from(key), id)).collect())
    }

    async fn copy_from(&self, bucket: &str, from: &Key, to: &Key, if_match: &Etag) -> Result<Written> {
        let mut source = String::from("/");
        encode(&mut source, bucket.as_bytes(), false);
        source.push('/');
        encode(&mut source, from.as_bytes(), true);
        let mut call = ApiCall::new("copy", Method::PUT, Some(to));
        let bad = |_| Failure::new(Kind::InvalidKey, "copy", "the source key is not a valid header value");
        call.headers.insert("x-amz-copy-source", HeaderValue::from_str(&source).map_err(bad)?);
        if !if_match.is_none() {
            let etag = HeaderValue::from_str(&format!("\"{if_match}\"")).map_err(bad)?;
            call.headers.insert("x-amz-copy-source-if-match", etag);
        }
        let answer = self.send(call).await?;
        let headers = answer.headers().clone();
        let xml = body_of(answer).await?;
        let [etag, code] = xml::texts(&xml, ["ETag", "Code"])?;
        if code.is_some() {
            let status = http::StatusCode::INTERNAL_SERVER_ERROR;
            return Err(error::failure("copy", &self.describe(Some(to)), status, &xml, None));
        }
        Ok(self.written(&headers, etag.map_or(Etag::None, |e| Etag::parse(&e))))
    }

    async fn restore(&self, key: &Key, days: u32) -> Result<()> {
        if !self.config.vendor.restores {
            let m = format!("{} does not support restore requests", self.config.vendor.name);
            return Err(Failure::new(Kind::Unsupported, "restore", m));
        }
        let body = format!(
            "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Days>{days}</Days>\
             <GlacierJobParameters><Tier>Standard</Tier></GlacierJobParameters></RestoreRequest>"
        );
        let query = [("restore", "")];
        let call = ApiCall {
            query: &query,
            body: Body::bytes(body.into_bytes()),
            ..ApiCall::new("restore", Method::POST, Some(key))
        };
        match self.send(call).await {
            Ok(answer) => {
                read_to_end(answer).await;
                Ok(())
            }
            Err(f) if f.message.contains("RestoreAlreadyInProgress") => Ok(()),
            Err(f) => Err(f),
        }
    }

    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        let mut query = vec![("tagging", "")];
        query.extend(self.version_query());
        let call = ApiCall { query: &query, ..ApiCall::new("tags", Method::GET, Some(key)) };
        let xml = body_of(self.send(call).await?).await?;
        Ok(blocks(&xml, "Tag", ["Key", "Value"])?.into_iter().map(|[k, v]| (k, v)).collect())
    }

    async fn acl(&self, key: &Key) -> Result<Option<&'static str>> {
        let mut query = vec![("acl", "")];
        query.extend(self.version_query());
        let call = ApiCall { query: &query, ..ApiCall::new("acl", Method::GET, Some(key)) };
        let xml = body_of(self.send(call).await?).await?;
        versions::canned(&xml)
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
            merges_slashes: self.merges_slashes,
            facts: self.facts.clone(),
        }))
    }

    async fn list_versions(&self, request: &ListRequest) -> Result<VersionPage> {
        self.versions_page(request).await
    }

    async fn buckets(&self) -> Result<Vec<String>> {
        let account = S3Config { bucket: String::new(), ..self.config.clone() };
        let account = S3::new(account, self.clock.0.clone())?;
        let xml = body_of(account.send(ApiCall::new("buckets", Method::GET, None)).await?).await?;
        Ok(blocks(&xml, "Bucket", ["Name"])?.into_iter().map(|[name]| name).collect())
    }
}

/// The MD5 of a body that is known before it is sent: a store that gets other bytes refuses them.
fn add_md5(headers: &mut HeaderMap, body: &Body) {
    let Some(md5) = body.md5() else { return };
    let text = base64::engine::general_purpose::STANDARD.encode(md5);
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert("content-md5", value);
    }
}

impl S3 {
    /// Why a HEAD was refused: its answer has no body, so the first byte is read instead (AWS "HeadObject").
    async fn failure_of_get(&self, key: &Key, query: &[(&str, &str)], refused: Failure) -> Failure {
        let mut call = ApiCall { query, ..ApiCall::new("head", Method::GET, Some(key)) };
        call.headers.insert(http::header::RANGE, HeaderValue::from_static("bytes=0-0"));
        self.send(call).await.err().unwrap_or(refused)
    }

    /// One page in one version of the listing.
    async fn list_in(&self, request: &ListRequest, dialect: u32) -> Result<Page> {
        let max = request.max.clamp(1, 1000);
        let (shown, delimiter) = (max.to_string(), request.delimiter.map(String::from).unwrap_or_default());
        let walks_folders = self.capability.list_order == Order::Segments;
        let mut from = String::new();
        let first = match &request.from {
            Position::Token(token) => match token.split_once(':') {
                Some(("1", marker)) => {
                    from = marker.to_owned();
                    true
                }
                _ => false,
            },
            Position::After(key) => {
                from = String::from_utf8_lossy(key.as_bytes()).into_owned();
                if walks_folders && !from.ends_with('/') {
                    // A folder walk that begins after `a` would skip what lies below it, `a/b`.
                    from.push('/');
                }
                dialect == DIALECT_V1
            }
            Position::Start => dialect == DIALECT_V1,
        };
        let mut query: Vec<(&str, &str)> = Vec::with_capacity(7);
        if let Position::Token(token) = &request.from
            && let Some(("2", token)) = token.split_once(':')
        {
            query.push(("continuation-token", token));
        }
        if !delimiter.is_empty() {
            query.push(("delimiter", &delimiter));
        }
        query.push(("encoding-type", "url"));
        if first {
            if !from.is_empty() {
                query.push(("marker", &from));
            }
            query.extend([("max-keys", &*shown), ("prefix", &request.prefix)]);
        } else {
            query.extend([("list-type", "2"), ("max-keys", &*shown), ("prefix", &request.prefix)]);
            if !from.is_empty() {
                query.push(("start-after", &from));
            }
        }
        let answer = self.send(ApiCall { query: &query, ..ApiCall::new("list", Method::GET, None) }).await?;
        let xml = body_of(answer).await.map_err(|f| Failure { op: "list", ..f })?;
        let listing = list::parse(&xml)?;
        if listing.counted || listing.token.is_some() {
            self.facts.dialect.store(DIALECT_V2, Relaxed);
        } else if first {
            self.facts.dialect.store(DIALECT_V1, Relaxed);
        }
        self.page_of(listing, max, walks_folders)
    }

    /// How the listing goes on: by the token of the second version, else by the marker of the first, which is the
    /// last name shown where the server tells none (AWS "ListObjects": NextMarker).
    fn page_of(&self, listing: list::Listing, max: u32, walks_folders: bool) -> Result<Page> {
        let list::Listing { mut page, truncated, token, marker, counted } = listing;
        let last = || {
            let folder = page.folders.last().map(|f| Key::from(f.as_str()));
            page.entries.last().map(|e| e.key.clone()).max(folder)
        };
        page.next = match (truncated, token) {
            (true, Some(token)) => Some(Position::Token(format!("2:{token}").into())),
            (true, None) => match marker.or_else(last) {
                // It counts as the second version does, and tells no token: only the key can lead on.
                Some(key) if counted => Some(Position::After(key)),
                Some(key) => {
                    self.facts.dialect.store(DIALECT_V1, Relaxed);
                    Some(Position::Token(format!("1:{key}").into()))
                }
                None => {
                    let m = "the listing says it is truncated but has no key and no continuation token";
                    return Err(Failure::new(Kind::OutOfOrderListing, "list", m));
                }
            },
            // A full page of a folder walk is not trusted to be the last.
            (false, _) if walks_folders && page.entries.len() >= max as usize => last().map(Position::After),
            (false, _) => None,
        };
        Ok(page)
    }
}

/// Reads a small answer to its end, so that its connection can be used again.
async fn read_to_end(answer: Response<ResponseBody>) {
    let _ = body_of(answer).await;
}
