//! Google Cloud Storage by its JSON API, for service accounts and open buckets. HMAC keys go through the S3 dialect.
//!
//! Conditions are generations; the MD5 that Google keeps of an object stands beside them. A large object is composed
//! of parts, which are objects below [`PARTS_PREFIX`] until then; listings here do not show them, and they are removed with
//! the upload.

pub mod token;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flow_control::clock::SharedClock;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use model::failure::{Failure, Kind, Result};
use model::key::{Key, Order};
use ring::digest;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::capability::{Capability, PartProof};
use crate::checksum::hex;
use crate::egress::Egress;
use crate::etag::Etag;
use crate::http::{Client, ResponseBody, collect, date, length};
use crate::meta::Meta;
use crate::s3::list::instant;
use crate::s3::sign::encode;
use crate::{
    Entry, ListRequest, ObjectStore, Page, Position, Probe, ReadRequest, Reading, StartAfter, UploadedPart,
    Written, no_length,
};
use token::ServiceAccount;

/// Where parts of unfinished uploads stand.
pub const PARTS_PREFIX: &str = ".whimbrel/uploads/";
/// The first name behind all of [`PARTS_PREFIX`].
const AFTER_PARTS: &str = ".whimbrel/uploads0";
/// The usual endpoint.
pub const ENDPOINT: &str = "https://storage.googleapis.com";
const MAX_RESPONSE_BYTES: u64 = 16 << 20;
/// Sources of one compose request.
const COMPOSE_MAX: usize = 32;
/// Random digits that begin an upload's name.
const UPLOAD_DIGITS: usize = 16;

/// What is needed to open a bucket.
#[derive(Clone, Debug)]
pub struct GoogleConfig {
    /// The endpoint.
    pub client: Client,
    /// Who asks; none: anybody.
    pub account: Option<Arc<ServiceAccount>>,
    /// The bucket.
    pub bucket: String,
    /// The account's project pays for what is read.
    pub requester_pays: bool,
    /// Where tokens may be asked for.
    pub egress: Egress,
}

/// One bucket.
pub struct Google {
    config: GoogleConfig,
    clock: SharedClock,
    capability: Capability,
}

impl std::fmt::Debug for Google {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Google({})", self.config.bucket)
    }
}

impl Capability {
    /// Google Cloud Storage (Google "Quotas and limits").
    pub const GOOGLE: Capability = Capability {
        list_order: Order::Bytes,
        list_start_after: StartAfter::Unproved,
        list_allowed: true,
        list_keys_only: false,
        mtime_kept: false,
        write_checksum: false,
        write_crc: crate::capability::WriteCrc::None,
        etag_is_md5: true,
        part_proof: PartProof::Md5,
        crc64_ecma: false,
        multipart: true,
        uploads_listed: false,
        part_min_bytes: 1,
        part_max_count: 10_000,
        write_max_bytes: 5 << 40,
        read_if_match: true,
        head_part: false,
        tags: false,
        metadata: true,
        acl: false,
        versions: false,
        storage_class: true,
        key_max_bytes: 1024,
        copy: false,
    };
}

/// An object resource, as far as it is needed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    name: String,
    size: String,
    updated: String,
    generation: String,
    md5_hash: Option<String>,
    storage_class: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    content_language: Option<String>,
    content_disposition: Option<String>,
    cache_control: Option<String>,
    metadata: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listing {
    items: Vec<Object>,
    prefixes: Vec<String>,
    next_page_token: Option<String>,
}

impl Object {
    fn etag(&self) -> Etag {
        let md5 = self.md5_hash.as_ref().and_then(|t| STANDARD.decode(t).ok());
        Etag::tagged(&self.generation, md5.and_then(|m| m.try_into().ok()))
    }

    fn meta(&self) -> Meta {
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
fn class(google: &str) -> Option<&'static str> {
    match google {
        "NEARLINE" => Some("NEARLINE"),
        "COLDLINE" => Some("COLDLINE"),
        "ARCHIVE" => Some("COLD_ARCHIVE"),
        _ => None,
    }
}

fn google_class(class: &str) -> Option<&'static str> {
    match class {
        "STANDARD_IA" => Some("NEARLINE"),
        "GLACIER" => Some("COLDLINE"),
        "DEEP_ARCHIVE" => Some("ARCHIVE"),
        _ => None,
    }
}

/// The resource that a write asks for.
fn resource(meta: &Meta) -> Map<String, Value> {
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

struct ApiCall<'a> {
    op: &'static str,
    method: Method,
    /// Below the endpoint, percent-encoded.
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, String)>,
    body: Body,
    key: Option<&'a Key>,
}

impl Google {
    /// Prepares a bucket; no request is made.
    pub fn new(config: GoogleConfig, clock: SharedClock) -> Self {
        Self { config, clock, capability: Capability::GOOGLE }
    }

    /// Makes the bucket; it is no error if it is there already.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn create_bucket(&self, project: &str) -> Result<()> {
        let body = json!({"name": self.config.bucket}).to_string();
        let mut call = self.call("create_bucket", Method::POST, "/storage/v1/b".into(), None);
        call.query.push(("project", project.to_owned()));
        call.headers.push((header::CONTENT_TYPE, "application/json".into()));
        call.body = Body::bytes(body);
        match self.send(call).await {
            Ok(_) => Ok(()),
            Err(f) if f.message.contains("HTTP 409") => Ok(()),
            Err(f) => Err(f),
        }
    }

    fn call<'a>(&self, op: &'static str, method: Method, path: String, key: Option<&'a Key>) -> ApiCall<'a> {
        let mut query = Vec::new();
        if let Some(account) = self.config.account.as_ref().filter(|_| self.config.requester_pays) {
            query.push(("userProject", account.project.clone()));
        }
        ApiCall { op, method, path, query, headers: Vec::new(), body: Body::bytes(""), key }
    }

    fn objects(&self, before: &str) -> String {
        let mut path = format!("{before}/storage/v1/b/");
        encode(&mut path, self.config.bucket.as_bytes(), false);
        path.push_str("/o");
        path
    }

    fn object(&self, key: &[u8]) -> String {
        let mut path = self.objects("");
        path.push('/');
        encode(&mut path, key, false);
        path
    }

    async fn send(&self, call: ApiCall<'_>) -> Result<Response<ResponseBody>> {
        let what = match call.key {
            Some(key) => format!("`{}/{key}`", self.config.bucket),
            None => format!("bucket `{}`", self.config.bucket),
        };
        let mut url = call.path;
        for (i, (name, value)) in call.query.iter().enumerate() {
            url.push(if i == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            encode(&mut url, value.as_bytes(), false);
        }
        let mut request = Request::builder()
            .method(call.method)
            .uri(url)
            .header(header::HOST, self.config.client.authority());
        // Without this, objects that were stored compressed would come decompressed.
        request = request.header(header::ACCEPT_ENCODING, "gzip");
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        if let Some(account) = &self.config.account {
            let bearer = account.bearer(self.clock.now_ms(), &self.config.egress).await?;
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request
            .body(call.body)
            .map_err(|e| Failure::new(Kind::InvalidKey, call.op, format!("{what}: {e}")))?;
        let answer = self.config.client.send(request).await.map_err(|f| Failure { op: call.op, ..f })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = collect(answer, MAX_RESPONSE_BYTES).await.unwrap_or_default();
        Err(failure(call.op, &what, status, &body))
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, call: ApiCall<'_>) -> Result<T> {
        let op = call.op;
        let body = collect(self.send(call).await?, MAX_RESPONSE_BYTES).await?;
        serde_json::from_slice(&body)
            .map_err(|e| Failure::new(Kind::Corrupt, op, format!("cannot parse the response: {e}")))
    }

    async fn object_resource(&self, key: &Key) -> Result<Object> {
        self.json(self.call("head", Method::GET, self.object(key.as_bytes()), Some(key))).await
    }

    /// Writes bytes with their resource in one request.
    async fn insert_object(&self, op: &'static str, name: &str, meta: &Meta, body: Body) -> Result<Object> {
        let key = Key::from(name);
        let mut resource = resource(meta);
        resource.insert("name".into(), name.into());
        let kind = resource.get("contentType").and_then(Value::as_str).unwrap_or("application/octet-stream");
        let boundary = format!("whimbrel{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let head = format!(
            "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{}\r\n--{boundary}\r\n\
             Content-Type: {kind}\r\n\r\n",
            Value::Object(resource.clone())
        );
        let mut call = self.call(op, Method::POST, self.objects("/upload"), Some(&key));
        call.query.push(("uploadType", "multipart".into()));
        call.headers.push((header::CONTENT_TYPE, format!("multipart/related; boundary={boundary}")));
        let tail = format!("\r\n--{boundary}--\r\n");
        call.body = Body::chain([Body::bytes(head), body, Body::bytes(tail)]);
        self.json(call).await
    }

    async fn compose(&self, to: &str, from: &[String], resource: Map<String, Value>) -> Result<Object> {
        let key = Key::from(to);
        let sources: Vec<Value> = from.iter().map(|name| json!({"name": name})).collect();
        let mut call = self.call(
            "complete_upload",
            Method::POST,
            format!("{}/compose", self.object(to.as_bytes())),
            Some(&key),
        );
        call.headers.push((header::CONTENT_TYPE, "application/json".into()));
        call.body = Body::bytes(json!({"sourceObjects": sources, "destination": resource}).to_string());
        self.json(call).await
    }

    async fn delete_name(&self, name: &[u8]) -> Result<()> {
        let key = Key::new(name);
        match self.send(self.call("delete", Method::DELETE, self.object(name), Some(&key))).await {
            Ok(_) => Ok(()),
            Err(f) if f.kind == Kind::NotFound => Ok(()),
            Err(f) => Err(f),
        }
    }

    async fn list_page(
        &self,
        prefix: &str,
        start: &str,
        token: &str,
        max: u32,
        delimiter: Option<char>,
    ) -> Result<Listing> {
        let mut call = self.call("list", Method::GET, self.objects(""), None);
        call.query.extend([("prefix", prefix.to_owned()), ("maxResults", max.to_string())]);
        if !token.is_empty() {
            call.query.push(("pageToken", token.to_owned()));
        }
        if !start.is_empty() {
            call.query.push(("startOffset", start.to_owned()));
        }
        if let Some(delimiter) = delimiter {
            call.query.push(("delimiter", delimiter.into()));
        }
        self.json(call).await
    }

    /// Everything that an upload has written so far.
    async fn parts_of(&self, below: &str) -> Result<Vec<Object>> {
        let (mut all, mut token) = (Vec::new(), String::new());
        // 10,000 parts and what is composed of them, in pages of 1,000.
        for _ in 0..12 {
            let mut page = self.list_page(below, "", &token, 1000, None).await?;
            all.append(&mut page.items);
            match page.next_page_token.filter(|t| !t.is_empty()) {
                Some(next) if next != token => token = next,
                _ => break,
            }
        }
        Ok(all)
    }
}

/// The folder of an upload's parts: by its key, so that it can be found without its name.
fn parts_folder(key: &Key, upload: &str) -> String {
    let hash = hex(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    format!("{PARTS_PREFIX}{}-{}/", &hash[..32], upload.get(..UPLOAD_DIGITS).unwrap_or(upload))
}

fn failure(op: &'static str, what: &str, status: StatusCode, body: &[u8]) -> Failure {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json["error"]["message"].as_str().unwrap_or_default();
    let reason = json["error"]["errors"][0]["reason"].as_str().unwrap_or_default();
    let kind = match (status.as_u16(), reason) {
        (_, "rateLimitExceeded" | "userRateLimitExceeded") => Kind::Throttled,
        (400, "invalid") if message.contains("name") => Kind::InvalidKey,
        (401, _) => Kind::BadCredentials,
        (403, _) => Kind::Forbidden,
        (404, _) if message.contains("bucket does not exist") || op == "list" || op == "probe" => {
            Kind::NoBucket
        }
        (404, _) => Kind::NotFound,
        (408, _) => Kind::Timeout,
        (412, _) => Kind::Changed,
        (413, _) => Kind::TooLarge,
        (429 | 503, _) => Kind::Throttled,
        (500..=599, _) => Kind::Unavailable,
        _ => Kind::Invalid,
    };
    let mut text = format!("{what}: HTTP {} {reason}", status.as_u16()).trim_end().to_owned();
    if !message.is_empty() {
        text.push_str(": ");
        text.extend(message.chars().take(300));
    }
    Failure::new(kind, op, text)
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
        let max = request.max.clamp(1, 1000);
        // The offset is answered too, and must be asked for again beside a token.
        let (start, token) = match &request.from {
            Position::Start => (String::new(), ""),
            Position::After(key) => (String::from_utf8_lossy(key.as_bytes()).into_owned(), ""),
            Position::Token(text) => match text.split_once('\n') {
                Some((token, start)) => (start.to_owned(), token),
                None => (String::new(), &**text),
            },
        };
        let listing = self.list_page(&request.prefix, &start, token, max, request.delimiter).await?;
        let hidden = listing.items.iter().any(|o| o.name.starts_with(PARTS_PREFIX));
        let begins_after = matches!(request.from, Position::After(_)).then_some(&start);
        let shown = listing
            .items
            .iter()
            .filter(|o| !o.name.starts_with(PARTS_PREFIX) && begins_after != Some(&o.name));
        let mut page = Page::default();
        for object in shown {
            if object.size.parse::<u64>().is_err() {
                let m = format!("the listing has no size for `{}`", object.name);
                return Err(Failure::new(Kind::Corrupt, "list", m));
            }
            let meta = object.meta();
            let modified_ms = meta.modified_ms.unwrap_or(0);
            page.entries.push(Entry {
                key: Key::from(object.name.as_str()),
                size: meta.size,
                modified_ms,
                written_ms: modified_ms,
                etag: meta.etag,
                class: meta.class.map(Into::into),
            });
        }
        page.folders = listing.prefixes.into_iter().filter(|f| f != ".whimbrel/").collect();
        page.next = listing.next_page_token.filter(|t| !t.is_empty()).map(|next| {
            // Nothing but parts of open uploads: go on behind all of them.
            if page.entries.is_empty() && page.folders.is_empty() && hidden {
                return Position::After(Key::from(AFTER_PARTS));
            }
            Position::Token(format!("{next}\n{start}").into())
        });
        Ok(page)
    }

    async fn head(&self, key: &Key, _part: Option<u32>) -> Result<Meta> {
        Ok(self.object_resource(key).await?.meta())
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        let wanted = request.if_match.as_ref().filter(|e| !e.is_none());
        // A range comes without what describes the object; the whole is described by a request of its own.
        let known = match request.range {
            None => Some(self.object_resource(key).await?.meta()),
            Some(_) => None,
        };
        let changed = |now: &str| {
            let m = format!("`{}/{key}` has changed (generation is now {now})", self.config.bucket);
            Failure::new(Kind::Changed, "read", m)
        };
        if let (Some(meta), Some(wanted)) = (&known, wanted)
            && meta.etag.to_string() != wanted.to_string()
        {
            return Err(changed(&meta.etag.to_string()));
        }
        let mut call = self.call("read", Method::GET, self.object(key.as_bytes()), Some(key));
        call.query.push(("alt", "media".into()));
        if let Some(etag) = wanted.or(known.as_ref().map(|m| &m.etag)) {
            call.query.push(("ifGenerationMatch", etag.to_string()));
        }
        if let Some(r) = &request.range {
            call.headers.push((header::RANGE, format!("bytes={}-{}", r.start, r.end - 1)));
        }
        let answer = self.send(call).await?;
        let headers = answer.headers();
        crate::http::check_range(&answer, request.range.as_ref(), key)?;
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let generation = text("x-goog-generation").unwrap_or_default();
        if let Some(wanted) = wanted.filter(|w| !generation.is_empty() && w.to_string() != generation) {
            tracing::debug!(%key, %wanted, generation, "the object has changed");
            return Err(changed(generation));
        }
        let expected = request.expected_len().or(known.as_ref().map(|meta| meta.size));
        let len = length(headers).or(expected).ok_or_else(|| no_length(&format!("`{key}`")))?;
        let meta = known.unwrap_or_else(|| {
            let total = text("content-range").and_then(|r| r.rsplit('/').next()?.parse().ok());
            Meta { size: total.unwrap_or(len), etag: Etag::tagged(generation, None), ..Meta::default() }
        });
        Ok(Reading { meta, body: Body::wire(answer.into_body(), len) })
    }

    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        let Some(name) = key.as_str() else {
            let m = format!("`{key}` is not valid UTF-8, which this store requires");
            return Err(Failure::new(Kind::InvalidKey, "write", m));
        };
        let object = self.insert_object("write", name, meta, body).await?;
        Ok(Written { etag: object.etag(), ..Written::default() })
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.delete_name(key.as_bytes()).await
    }

    async fn begin_upload(&self, _key: &Key, meta: &Meta) -> Result<String> {
        Ok(format!("{:016x}{}", fastrand::u64(..), Value::Object(resource(meta))))
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
        let name = format!("{}{number:05}", parts_folder(key, upload));
        let object = self.insert_object("write_part", &name, &Meta::default(), body).await?;
        let etag = object.etag().md5().map(|m| hex(m)).unwrap_or_default();
        Ok(UploadedPart { number, etag, size, opaque: false, crc64: None })
    }

    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        let (Some(name), folder) = (key.as_str(), parts_folder(key, upload)) else {
            return Err(Failure::new(
                Kind::InvalidKey,
                "complete_upload",
                format!("`{key}` is not valid UTF-8"),
            ));
        };
        let mut names: Vec<String> = parts.iter().map(|p| format!("{folder}{:05}", p.number)).collect();
        let mut level = 0;
        while names.len() > COMPOSE_MAX {
            level += 1;
            let mut composed = Vec::new();
            for (i, group) in names.chunks(COMPOSE_MAX).enumerate() {
                let name = format!("{folder}c{level}-{i:05}");
                self.compose(&name, group, Map::new()).await?;
                composed.push(name);
            }
            names = composed;
        }
        let kept = upload.get(UPLOAD_DIGITS..).and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
        let object = self.compose(name, &names, kept).await?;
        self.abort_upload(key, upload).await?;
        Ok(Written { etag: object.etag(), ..Written::default() })
    }

    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
        for part in self.parts_of(&parts_folder(key, upload)).await? {
            self.delete_name(part.name.as_bytes()).await?;
        }
        Ok(())
    }

    async fn list_parts(&self, key: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
        let folder = parts_folder(key, upload);
        let part = |o: &Object| {
            let number = o.name.strip_prefix(&folder)?.parse().ok()?;
            Some(UploadedPart {
                number,
                etag: hex(o.etag().md5()?),
                size: o.size.parse().ok()?,
                opaque: false,
                crc64: None,
            })
        };
        Ok(self.parts_of(&folder).await?.iter().filter_map(part).collect())
    }

    /// Uploads of the one key that `prefix` names: they are found by it, not in order.
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        let key = Key::from(prefix);
        let all = parts_folder(&key, "");
        let all = all.trim_end_matches('/');
        let mut ids: Vec<String> = self
            .parts_of(all)
            .await?
            .iter()
            .filter_map(|o| Some(o.name.strip_prefix(all)?.split('/').next()?.to_owned()))
            .collect();
        ids.dedup();
        Ok(ids.into_iter().map(|id| (key.clone(), id)).collect())
    }

    async fn tags(&self, _key: &Key) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    async fn buckets(&self) -> Result<Vec<String>> {
        let project = self.config.account.as_ref().map(|a| a.project.clone()).unwrap_or_default();
        let mut call = self.call("buckets", Method::GET, "/storage/v1/b".into(), None);
        call.query.push(("project", project));
        let listing: Listing = self.json(call).await?;
        Ok(listing.items.into_iter().map(|b| b.name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
