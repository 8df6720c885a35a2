//! Azure Blob Storage by its REST API: block blobs of one container.
//!
//! ETags there are for conditions only; the MD5 that the service keeps of a blob stands beside them. A large blob is
//! put together from blocks, which exist for nobody until the list of them is written; blocks that are never listed
//! vanish by themselves after a week, so there is nothing to abort.

pub mod connection;
mod names;
mod sign;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flow_control::clock::SharedClock;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use model::failure::{Failure, Kind, Result};
use model::key::{Key, Order};

use crate::body::Body;
use crate::capability::{Capability, PartProof};
use crate::checksum::hex;
use crate::egress::Egress;
use crate::etag::Etag;
use crate::http::{Client, ResponseBody, check_range, collect, date, length};
use crate::meta::Meta;
use crate::s3::sign::encode;
use crate::xml::{self, blocks, escape};
use crate::{
    Entry, ListRequest, ObjectStore, Page, Position, Probe, ReadRequest, Reading, StartAfter, UploadedPart,
    Written, no_length,
};

use connection::Connection;
pub use sign::Access;

/// The first service version with `startFrom` in listings.
const VERSION: &str = "2026-02-06";
/// 1,000 blobs with all their properties, with room.
const MAX_RESPONSE_BYTES: u64 = 16 << 20;
/// Names of blocks have one length within a blob: the upload's eight digits and the part's five.
const UPLOAD_DIGITS: usize = 8;

/// What is needed to open a container.
#[derive(Clone, Debug)]
pub struct AzureConfig {
    /// The blob endpoint.
    pub client: Client,
    /// In front of each path: empty, or `/account` where the host does not name the account.
    pub base: String,
    /// Account name.
    pub account: String,
    /// Who asks.
    pub access: Access,
    /// The container; empty for calls on the account.
    pub container: String,
}

impl AzureConfig {
    /// A container of an account.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the account's endpoint is no endpoint.
    pub fn new(connection: Connection, container: &str, egress: Egress) -> Result<Self> {
        Ok(Self {
            client: Client::new(&connection.endpoint, egress)?,
            base: connection.base,
            account: connection.account,
            access: connection.access,
            container: container.to_owned(),
        })
    }
}

/// One container.
#[derive(Debug)]
pub struct Azure {
    config: AzureConfig,
    clock: Arc<DebugClock>,
    capability: Capability,
}

struct DebugClock(SharedClock);

impl std::fmt::Debug for DebugClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Capability {
    /// Block blobs (Azure "Scalability and performance targets for Blob Storage").
    pub const AZURE: Capability = Capability {
        list_order: Order::Bytes,
        list_start_after: StartAfter::Unproved,
        list_allowed: true,
        list_keys_only: false,
        mtime_kept: false,
        write_checksum: false,
        write_crc: crate::capability::WriteCrc::None,
        etag_is_md5: true,
        part_proof: PartProof::Crc64,
        crc64_ecma: false,
        multipart: true,
        uploads_listed: false,
        part_min_bytes: 1,
        part_max_count: 50_000,
        write_max_bytes: 4000 << 20,
        read_if_match: true,
        head_part: false,
        tags: true,
        metadata: true,
        acl: false,
        versions: false,
        storage_class: true,
        key_max_bytes: 4096,
        copy: false,
    };
}

/// One request before it is signed.
struct ApiCall<'a> {
    op: &'static str,
    method: Method,
    key: Option<&'a Key>,
    query: Vec<(&'static str, String)>,
    headers: HeaderMap,
    body: Body,
}

impl<'a> ApiCall<'a> {
    fn new(op: &'static str, method: Method, key: Option<&'a Key>) -> Self {
        Self { op, method, key, query: Vec::new(), headers: HeaderMap::new(), body: Body::bytes("") }
    }

    fn set(&mut self, name: &'static str, value: &[u8]) -> Result<()> {
        let refused = |_| Failure::new(Kind::Invalid, "write", format!("`{name}` is not a valid header"));
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value).map_err(refused)?);
        Ok(())
    }
}

fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

fn md5_of(text: Option<&str>) -> Option<[u8; 16]> {
    STANDARD.decode(text?).ok()?.try_into().ok()
}

impl Azure {
    /// Prepares a container; no request is made.
    pub fn new(config: AzureConfig, clock: SharedClock) -> Self {
        Self { config, clock: Arc::new(DebugClock(clock)), capability: Capability::AZURE }
    }

    /// Makes the container; it is no error if it is there already.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn create_container(&self) -> Result<()> {
        let mut call = ApiCall::new("create_container", Method::PUT, None);
        call.query.push(("restype", "container".into()));
        match self.send(call).await {
            Ok(_) => Ok(()),
            Err(f) if f.message.contains("ContainerAlreadyExists") => Ok(()),
            Err(f) => Err(f),
        }
    }

    fn describe(&self, key: Option<&Key>) -> String {
        match key {
            Some(key) => format!("`{}/{key}`", self.config.container),
            None => format!("container `{}`", self.config.container),
        }
    }

    async fn send(&self, call: ApiCall<'_>) -> Result<Response<ResponseBody>> {
        let what = self.describe(call.key);
        let mut path = self.config.base.clone();
        path.push('/');
        if !self.config.container.is_empty() {
            encode(&mut path, self.config.container.as_bytes(), false);
        }
        if let Some(key) = call.key {
            path.push('/');
            encode(&mut path, key.as_bytes(), true);
        }
        let mut headers = call.headers;
        let host = HeaderValue::from_str(self.config.client.authority()).map_err(|_| {
            Failure::new(Kind::Invalid, "open", "the host of the endpoint is not a valid host name")
        })?;
        headers.insert(header::HOST, host);
        headers.insert("x-ms-version", HeaderValue::from_static(VERSION));
        let seconds = u64::try_from(self.clock.0.now_ms() / 1000).unwrap_or(0);
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        if let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(now)) {
            headers.insert("x-ms-date", value);
        }
        let request = sign::Request {
            method: call.method.as_str(),
            account: &self.config.account,
            path: &path,
            query: &call.query,
            length: call.body.len(),
        };
        // An empty body's length is not left out: the service refuses that.
        if call.method == Method::PUT {
            headers.insert(header::CONTENT_LENGTH, call.body.len().into());
        }
        let url = self.config.access.sign(&request, &mut headers);
        let mut request = Request::builder()
            .method(call.method)
            .uri(url)
            .body(call.body)
            .map_err(|e| Failure::new(Kind::InvalidKey, call.op, format!("{what}: {e}")))?;
        *request.headers_mut() = headers;
        let answer = self.config.client.send(request).await.map_err(|f| Failure { op: call.op, ..f })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (status, code) =
            (answer.status(), header_text(answer.headers(), "x-ms-error-code").map(str::to_owned));
        let body = collect(answer, MAX_RESPONSE_BYTES).await.unwrap_or_default();
        Err(failure(call.op, &what, status, code, &body))
    }

    fn set_content_headers(&self, call: &mut ApiCall<'_>, meta: &Meta) -> Result<()> {
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

/// S3's classes as access tiers.
fn tier(class: &str) -> Option<&'static str> {
    match class {
        "STANDARD_IA" => Some("Cool"),
        "GLACIER" | "DEEP_ARCHIVE" => Some("Archive"),
        _ => None,
    }
}

/// Kinds by error code (Azure "Blob Storage error codes"), else by status.
fn failure(op: &'static str, what: &str, status: StatusCode, code: Option<String>, body: &[u8]) -> Failure {
    let [in_body, message] = xml::texts(body, ["Code", "Message"]).unwrap_or_default();
    let code = code.or(in_body).unwrap_or_default();
    let kind = match code.as_str() {
        "ContainerNotFound" | "ContainerBeingDeleted" => Kind::NoBucket,
        "BlobNotFound" | "ResourceNotFound" | "InvalidBlockList" => Kind::NotFound,
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => {
            Kind::BadCredentials
        }
        "AuthorizationFailure"
        | "AuthorizationPermissionMismatch"
        | "InsufficientAccountPermissions"
        | "AccountIsDisabled"
        | "PublicAccessNotPermitted" => Kind::Forbidden,
        "ServerBusy" => Kind::Throttled,
        "OperationTimedOut" => Kind::Timeout,
        "InternalError" => Kind::Unavailable,
        "ConditionNotMet" | "TargetConditionNotMet" | "SourceConditionNotMet" => Kind::Changed,
        "BlobArchived" | "BlobBeingRehydrated" => Kind::Archived,
        "RequestBodyTooLarge" => Kind::TooLarge,
        "InvalidResourceName" | "OutOfRangeInput" | "InvalidUri" => Kind::InvalidKey,
        "Md5Mismatch" | "Crc64Mismatch" => Kind::Corrupt,
        _ => match status.as_u16() {
            401 => Kind::BadCredentials,
            403 => Kind::Forbidden,
            404 => Kind::NotFound,
            408 => Kind::Timeout,
            412 => Kind::Changed,
            429 | 503 => Kind::Throttled,
            500..=599 => Kind::Unavailable,
            _ => Kind::Invalid,
        },
    };
    let mut text = format!("{what}: HTTP {} {code}", status.as_u16()).trim_end().to_owned();
    if let Some(message) = message.filter(|m| !m.is_empty()) {
        text.push_str(": ");
        text.extend(message.lines().next().unwrap_or_default().chars().take(300));
    }
    Failure::new(kind, op, text)
}

/// Metadata out of the headers of a read or HEAD.
fn meta_of(headers: &HeaderMap) -> Meta {
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
    meta.etag = Etag::tagged(header_text(headers, "etag").unwrap_or_default(), md5_of(md5));
    meta.modified_ms = header_text(headers, "last-modified").and_then(date);
    meta.class = header_text(headers, "x-ms-access-tier").and_then(class).map(str::to_owned);
    meta.archived = header_text(headers, "x-ms-access-tier") == Some("Archive");
    meta.tag_count = header_text(headers, "x-ms-tag-count").and_then(|n| n.parse().ok()).unwrap_or(0);
    meta
}

/// Access tiers in S3's words; the default has none.
fn class(tier: &str) -> Option<&'static str> {
    match tier {
        "Cool" | "Cold" => Some("STANDARD_IA"),
        "Archive" => Some("GLACIER"),
        _ => None,
    }
}

/// An upload's name: what its blocks are called by, and what the blob is to be. The service is told only at the end.
fn upload_name(meta: &Meta) -> Result<String> {
    let text = |v: &HeaderValue| STANDARD.encode(v.as_bytes());
    let headers: Vec<(&str, String)> = meta.headers.iter().map(|(n, v)| (n.as_str(), text(v))).collect();
    let json = serde_json::json!({"headers": headers, "class": meta.class, "tags": meta.tags});
    let random = fastrand::u32(..);
    Ok(format!("{random:08x}{}", STANDARD.encode(json.to_string())))
}

fn upload_meta(upload: &str) -> Meta {
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

fn block(upload: &str, number: u32) -> String {
    let digits = upload.get(..UPLOAD_DIGITS).unwrap_or("00000000");
    STANDARD.encode(format!("{digits}{number:05}"))
}

/// What the service says of stored bytes: its CRC-64, else its MD5.
fn part_tag(headers: &HeaderMap) -> String {
    let crc = header_text(headers, "x-ms-content-crc64").and_then(|t| STANDARD.decode(t).ok());
    if let Some(crc) = crc.and_then(|b| <[u8; 8]>::try_from(b).ok()) {
        return hex(&u64::from_le_bytes(crc).to_be_bytes());
    }
    md5_of(header_text(headers, "content-md5")).map(|md5| hex(&md5)).unwrap_or_default()
}

/// Names that XML cannot hold are percent-encoded and marked so.
fn encoded_names(xml: &[u8]) -> Vec<Vec<u8>> {
    const MARK: &[u8] = b"<Name Encoded=\"true\">";
    let mut names = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.windows(MARK.len()).position(|w| w == MARK) {
        rest = &rest[at + MARK.len()..];
        let end = rest.iter().position(|&b| b == b'<').unwrap_or(rest.len());
        names.push(rest[..end].to_vec());
    }
    names
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
        let max = request.max.clamp(1, 1000);
        let mut call = ApiCall::new("list", Method::GET, None);
        call.query.extend([("restype", "container".into()), ("comp", "list".into())]);
        call.query.push(("maxresults", max.to_string()));
        call.query.push(("prefix", request.prefix.clone()));
        if let Some(delimiter) = request.delimiter {
            call.query.push(("delimiter", delimiter.into()));
        }
        // The answer begins with the key that `startFrom` names (Azure "List Blobs").
        let begins_after = match &request.from {
            Position::Start => None,
            Position::After(key) => {
                call.query.push(("startFrom", String::from_utf8_lossy(key.as_bytes()).into_owned()));
                Some(key)
            }
            Position::Token(marker) => {
                call.query.push(("marker", marker.to_string()));
                None
            }
        };
        let xml = collect(self.send(call).await?, MAX_RESPONSE_BYTES).await?;
        let encoded = encoded_names(&xml);
        let fields = [
            "Name",
            "Last-Modified",
            "Etag",
            "Content-Length",
            "Content-MD5",
            "AccessTier",
            "BlobType",
            "ResourceType",
        ];
        let mut page = Page::default();
        for [name, modified, etag, size, md5, tier, kind, resource] in blocks(&xml, "Blob", fields)? {
            let key = match encoded.iter().any(|e| e == name.as_bytes()) {
                true => Key::new(crate::s3::list::percent_decode(name.as_bytes(), false)),
                false => Key::from(name),
            };
            if begins_after == Some(&key) {
                continue;
            }
            // An account with folders lists them beside what is in them.
            if resource == "directory" {
                continue;
            }
            let modified_ms = date(&modified).unwrap_or(0);
            let size = size.parse().map_err(|_| {
                Failure::new(Kind::Corrupt, "list", format!("the listing has no size for `{key}` ({kind})"))
            })?;
            page.entries.push(Entry {
                key,
                size,
                modified_ms,
                written_ms: modified_ms,
                etag: Etag::tagged(&etag, md5_of(Some(&md5))),
                class: class(&tier).map(Into::into),
            });
        }
        page.folders = blocks(&xml, "BlobPrefix", ["Name"])?.into_iter().map(|[name]| name).collect();
        let [next] = xml::texts(&xml, ["NextMarker"])?;
        page.next = next.filter(|n| !n.is_empty()).map(|n| Position::Token(n.into()));
        Ok(page)
    }

    async fn head(&self, key: &Key, _part: Option<u32>) -> Result<Meta> {
        let answer = self.send(ApiCall::new("head", Method::HEAD, Some(key))).await?;
        Ok(meta_of(answer.headers()))
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        let mut call = ApiCall::new("read", Method::GET, Some(key));
        if let Some(r) = &request.range {
            call.set("x-ms-range", format!("bytes={}-{}", r.start, r.end - 1).as_bytes())?;
        }
        if let Some(etag) = request.if_match.as_ref().filter(|e| !e.is_none()) {
            call.set("if-match", format!("\"{etag}\"").as_bytes())?;
        }
        let answer = self.send(call).await?;
        let what = self.describe(Some(key));
        check_range(&answer, request.range.as_ref(), key)?;
        let meta = meta_of(answer.headers());
        let len = length(answer.headers()).or(request.expected_len()).ok_or_else(|| no_length(&what))?;
        Ok(Reading { meta, body: Body::wire(answer.into_body(), len) })
    }

    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        let mut call = ApiCall { body, ..ApiCall::new("write", Method::PUT, Some(key)) };
        call.set("x-ms-blob-type", b"BlockBlob")?;
        self.set_content_headers(&mut call, meta)?;
        let answer = self.send(call).await?;
        let md5 = md5_of(header_text(answer.headers(), "content-md5"));
        let etag = Etag::tagged(header_text(answer.headers(), "etag").unwrap_or_default(), md5);
        collect(answer, MAX_RESPONSE_BYTES).await?;
        Ok(Written { etag, ..Written::default() })
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let call = ApiCall::new("delete", Method::DELETE, Some(key));
        match self.send(call).await {
            Ok(_) => Ok(()),
            Err(f) if f.kind == Kind::NotFound => Ok(()),
            Err(f) => Err(f),
        }
    }

    async fn begin_upload(&self, _key: &Key, meta: &Meta) -> Result<String> {
        upload_name(meta)
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
        let mut call = ApiCall { body, ..ApiCall::new("write_part", Method::PUT, Some(key)) };
        call.query.extend([("comp", "block".into()), ("blockid", block(upload, number))]);
        let answer = self.send(call).await?;
        let etag = part_tag(answer.headers());
        collect(answer, MAX_RESPONSE_BYTES).await?;
        Ok(UploadedPart { number, etag, size, opaque: false, crc64: None })
    }

    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
        for part in parts {
            // Uncommitted or, when an answer was lost, committed: the newest of that name.
            xml.push_str(&format!("<Latest>{}</Latest>", escape(&block(upload, part.number))));
        }
        xml.push_str("</BlockList>");
        let mut call =
            ApiCall { body: Body::bytes(xml), ..ApiCall::new("complete_upload", Method::PUT, Some(key)) };
        call.query.push(("comp", "blocklist".into()));
        self.set_content_headers(&mut call, &upload_meta(upload))?;
        let answer = self.send(call).await?;
        let etag = Etag::tagged(header_text(answer.headers(), "etag").unwrap_or_default(), None);
        collect(answer, MAX_RESPONSE_BYTES).await?;
        Ok(Written { etag, ..Written::default() })
    }

    async fn abort_upload(&self, _key: &Key, _upload: &str) -> Result<()> {
        Ok(())
    }

    async fn list_parts(&self, _key: &Key, _upload: &str) -> Result<Vec<UploadedPart>> {
        let m = "Azure does not return digests of uncommitted blocks";
        Err(Failure::new(Kind::Unsupported, "list_parts", m))
    }

    async fn list_uploads(&self, _prefix: &str) -> Result<Vec<(Key, String)>> {
        Ok(Vec::new())
    }

    async fn restore(&self, _key: &Key, _days: u32) -> Result<()> {
        let m = "rehydrating would change the source blob; hint: set its tier to Hot or Cool first";
        Err(Failure::new(Kind::Unsupported, "restore", m))
    }

    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        let mut call = ApiCall::new("tags", Method::GET, Some(key));
        call.query.push(("comp", "tags".into()));
        let xml = collect(self.send(call).await?, MAX_RESPONSE_BYTES).await?;
        Ok(blocks(&xml, "Tag", ["Key", "Value"])?.into_iter().map(|[k, v]| (k, v)).collect())
    }

    async fn buckets(&self) -> Result<Vec<String>> {
        let account = AzureConfig { container: String::new(), ..self.config.clone() };
        let account = Azure { config: account, clock: self.clock.clone(), ..*self };
        let mut call = ApiCall::new("buckets", Method::GET, None);
        call.query.push(("comp", "list".into()));
        let xml = collect(account.send(call).await?, MAX_RESPONSE_BYTES).await?;
        Ok(blocks(&xml, "Container", ["Name"])?.into_iter().map(|[name]| name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
