//! One request: how it is put together, signed, sent and answered.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use flow_control::clock::SharedClock;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use model::error::{Error, Kind, Result};
use model::key::Key;

use super::addressing::Addressing;
use super::config::S3Config;
use super::error;
use super::sign::{Signer, encode, stamp};
use crate::body::Body;
use crate::capability::Capability;
use crate::http::{Client, ResponseBody, collect};
use crate::xml;

/// No listing, error or upload answer is larger: 1000 keys of 1,024 bytes, percent-encoded, with room.
pub(super) const MAX_RESPONSE_BYTES: u64 = 16 << 20;
/// So many signatures refused in a row end the task; fewer among good ones are those objects' own trouble.
pub(super) const MAX_REFUSED_SIGNATURES: u32 = 16;

/// One request before it is signed.
pub(super) struct ApiCall<'a> {
    pub(super) op: &'static str,
    pub(super) method: Method,
    pub(super) key: Option<&'a Key>,
    /// Sorted by name, as signing needs.
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

impl<'a> ApiCall<'a> {
    pub(super) fn new(op: &'static str, method: Method, key: Option<&'a Key>) -> Self {
        Self { op, method, key, query: &[], headers: HeaderMap::new(), body: Body::bytes("") }
    }
}

/// Why a server that keeps objects as files of a tree would store a key under another name, or never list it.
pub(super) fn changed_by_tree(key: &[u8]) -> Option<&'static str> {
    if key.starts_with(b"/") || key.windows(2).any(|w| w == b"//") {
        return Some("has an empty path segment, which this server would store under another key");
    }
    if key.contains(&b'\\') {
        return Some("has a backslash, which this server would store as `/`");
    }
    let hidden = |segment: &[u8]| segment == b".uploads" || segment.ends_with(b".versions");
    if key.split(|&b| b == b'/').any(hidden) {
        return Some("has a path segment that this server keeps for itself and does not list");
    }
    None
}

pub(super) async fn body_of(answer: Response<ResponseBody>) -> Result<bytes::Bytes> {
    collect(answer, MAX_RESPONSE_BYTES).await
}

/// Reads a small answer to its end, so that its connection can be used again.
pub(super) async fn read_to_end(answer: Response<ResponseBody>) {
    let _ = body_of(answer).await;
}

/// Whether a store keeps an object that was written in frames without `aws-chunked` as its Content-Encoding. Some decode
/// the frames and keep the word; of parts they keep neither. Unknown until the first such object was looked at: its write
/// holds the lock, others wait for it.
pub(super) type WholeFramed = tokio::sync::Mutex<Option<bool>>;

/// What a bucket's answers have taught, shared by all views of it.
#[derive(Debug, Default)]
pub(super) struct ServerFacts {
    pub(super) dialect: AtomicU32,
    /// Requests that were signed and accepted; counted no further than one.
    pub(super) accepted: AtomicU32,
    /// Signatures refused since the last that was accepted.
    pub(super) refused: AtomicU32,
    /// Whether objects that were written in frames are kept without a trace of them.
    pub(super) whole_framed: WholeFramed,
}

/// One bucket of an S3 endpoint.
#[derive(Debug)]
pub struct S3 {
    pub(super) config: S3Config,
    pub(super) client: Client,
    pub(super) host: HeaderValue,
    pub(super) signer: Option<Signer>,
    pub(super) clock: DebugClock,
    pub(super) capability: Capability,
    /// Reads are of this version of a key.
    pub(super) version: Option<String>,
    /// The server keeps objects as files of a tree, which not every key can be: it makes one key of `a//b` and `a/b`.
    pub(super) keeps_tree: bool,
    pub(super) facts: Arc<ServerFacts>,
}

pub(super) struct DebugClock(pub(super) SharedClock);

impl std::fmt::Debug for DebugClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl S3 {
    pub(super) fn version_query(&self) -> impl Iterator<Item = (&str, &str)> {
        self.version.iter().map(|v| ("versionId", v.as_str()))
    }

    pub(super) fn describe(&self, key: Option<&Key>) -> String {
        match key {
            Some(key) => format!("`{}/{key}`", self.config.bucket),
            None => format!("bucket `{}`", self.config.bucket),
        }
    }

    pub(super) async fn send(&self, call: ApiCall<'_>) -> Result<Response<ResponseBody>> {
        if self.keeps_tree
            && let Some(key) = call.key
            && let Some(why) = changed_by_tree(key.as_bytes())
        {
            let m = format!("`{key}` {why}");
            return Err(Error::new(Kind::InvalidKey, call.op, m));
        }
        if let Some(key) = call.key
            && key.as_str().is_none()
            && matches!(call.op, "write" | "begin_upload" | "copy")
        {
            // Servers that do not refuse it store it under another key (AWS "Naming Amazon S3 objects": UTF-8).
            let m = format!("`{key}` is not valid UTF-8, as keys of S3 have to be");
            return Err(Error::new(Kind::InvalidKey, call.op, m));
        }
        let (mut path, query) = (self.path_of(call.key), query_of(call.query));
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
            Error::new(Kind::InvalidKey, call.op, format!("{}: {e}", self.describe(call.key))).caused_by(e)
        })?;
        *request.headers_mut() = headers;
        let bodiless = request.method() == Method::HEAD;
        let answer = self.client.send(request).await.map_err(|f| Error { op: call.op, ..f })?;
        if answer.status().is_success() {
            self.signature_accepted();
            return Ok(answer);
        }
        Err(self.failure_of(call.op, call.key, answer, bodiless).await)
    }

    /// The path of a request, percent-encoded, without the query.
    fn path_of(&self, key: Option<&Key>) -> String {
        let mut path = String::with_capacity(64 + key.map_or(0, |k| k.as_bytes().len()));
        path.push_str(self.client.base());
        path.push('/');
        if self.config.addressing == Addressing::Path && !self.config.bucket.is_empty() {
            encode(&mut path, self.config.bucket.as_bytes(), false);
            if key.is_some() {
                path.push('/');
            }
        }
        if let Some(key) = key {
            encode(&mut path, key.as_bytes(), true);
        }
        path
    }

    /// Notes an accepted signature; the shared counters are written only when they change.
    fn signature_accepted(&self) {
        if self.facts.accepted.load(Relaxed) == 0 {
            self.facts.accepted.store(1, Relaxed);
        }
        if self.facts.refused.load(Relaxed) > 0 {
            self.facts.refused.store(0, Relaxed);
        }
    }

    /// The failure for an error answer.
    async fn failure_of(
        &self,
        op: &'static str,
        key: Option<&Key>,
        answer: Response<ResponseBody>,
        bodiless: bool,
    ) -> Error {
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = if bodiless { Default::default() } else { body_of(answer).await.unwrap_or_default() };
        let elsewhere = error::region_in(&headers, &body).filter(|r| *r != self.config.region);
        // A refused key may come with the region too: only these answers are about it.
        let elsewhere =
            elsewhere.filter(|_| status.is_redirection() || status == http::StatusCode::BAD_REQUEST);
        let failure = error::failure(op, &self.describe(key), status, &body, elsewhere.as_deref());
        self.classify_signature_failure(key, &body, failure)
    }

    /// One signature that is refused while others pass is that object's trouble, not the credentials'.
    pub(super) fn classify_signature_failure(&self, key: Option<&Key>, body: &[u8], failure: Error) -> Error {
        let refused = failure.kind == Kind::BadCredentials
            && xml::texts(body, ["Code"])
                .is_ok_and(|[code]| code.as_deref() == Some("SignatureDoesNotMatch"));
        let alone = refused
            && key.is_some()
            && self.facts.accepted.load(Relaxed) > 0
            && self.facts.refused.fetch_add(1, Relaxed) < MAX_REFUSED_SIGNATURES;
        if alone { Error { kind: Kind::Invalid, ..failure } } else { failure }
    }
}

/// The query of a request, percent-encoded; empty for none.
fn query_of(pairs: &[(&str, &str)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        encode(&mut query, value.as_bytes(), false);
    }
    query
}
