//! One request: how it is put together, signed, sent and answered.

use std::sync::Arc;

use flow_control::clock::SharedClock;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use model::error::{Error, Kind, Result};
use model::key::Key;

use super::config::AzureConfig;
use super::error::failure;
use super::sign;
use crate::body::Body;
use crate::capability::Capability;
use crate::http::{ResponseBody, collect, header_text};
use crate::s3::sign::encode;

/// The first service version with `startFrom` in listings.
pub(super) const VERSION: &str = "2026-02-06";
/// 1,000 blobs with all their properties, with room.
pub(super) const MAX_RESPONSE_BYTES: u64 = 16 << 20;

/// One request before it is signed.
pub(super) struct ApiCall<'a> {
    pub(super) op: &'static str,
    pub(super) method: Method,
    pub(super) key: Option<&'a Key>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

impl<'a> ApiCall<'a> {
    pub(super) fn new(op: &'static str, method: Method, key: Option<&'a Key>) -> Self {
        Self { op, method, key, query: Vec::new(), headers: HeaderMap::new(), body: Body::bytes("") }
    }

    pub(super) fn set(&mut self, name: &'static str, value: &[u8]) -> Result<()> {
        let refused = |_| Error::new(Kind::Invalid, "write", format!("`{name}` is not a valid header"));
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value).map_err(refused)?);
        Ok(())
    }
}

/// One container.
#[derive(Debug)]
pub struct Azure {
    pub(super) config: AzureConfig,
    pub(super) clock: Arc<DebugClock>,
    pub(super) capability: Capability,
}

/// Why the service would store a key under another name (Azure "Naming and referencing containers, blobs, and metadata").
fn changed_by_service(key: &Key) -> Option<&'static str> {
    match key.as_str() {
        None => Some("is not valid UTF-8, as names of blobs have to be"),
        Some(text) if text.contains('\\') => Some("has a backslash, which Azure would store as `/`"),
        Some(_) => None,
    }
}

pub(super) struct DebugClock(pub(super) SharedClock);

impl std::fmt::Debug for DebugClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Azure {
    pub(super) fn describe(&self, key: Option<&Key>) -> String {
        match key {
            Some(key) => format!("`{}/{key}`", self.config.container),
            None => format!("container `{}`", self.config.container),
        }
    }

    pub(super) async fn send(&self, call: ApiCall<'_>) -> Result<Response<ResponseBody>> {
        if let Some(why) = call.key.and_then(changed_by_service) {
            let m = format!("`{}` {why}", call.key.map(Key::to_string).unwrap_or_default());
            return Err(Error::new(Kind::InvalidKey, call.op, m));
        }
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
            Error::new(Kind::Invalid, "open", "the host of the endpoint is not a valid host name")
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
        // Content-Length is sent for an empty body too: the service requires it.
        if call.method == Method::PUT {
            headers.insert(header::CONTENT_LENGTH, call.body.len().into());
        }
        let url = self.config.access.sign(&request, &mut headers);
        let mut request = Request::builder()
            .method(call.method)
            .uri(url)
            .body(call.body)
            .map_err(|e| Error::new(Kind::InvalidKey, call.op, format!("{what}: {e}")).caused_by(e))?;
        *request.headers_mut() = headers;
        let answer = self.config.client.send(request).await.map_err(|f| Error { op: call.op, ..f })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (status, code) =
            (answer.status(), header_text(answer.headers(), "x-ms-error-code").map(str::to_owned));
        let body = collect(answer, MAX_RESPONSE_BYTES).await.unwrap_or_default();
        Err(failure(call.op, &what, status, code, &body))
    }
}
