//! One request: how it is put together, signed, sent and answered.

use flow_control::clock::SharedClock;
use http::{HeaderName, Method, Request, Response, header};
use model::error::{Error, Kind, Result};
use model::key::Key;

use super::config::GoogleConfig;
use super::error::failure;
use crate::body::Body;
use crate::capability::Capability;
use crate::http::{ResponseBody, collect};
use crate::s3::sign::encode;

/// Longest JSON response.
pub(super) const MAX_RESPONSE_BYTES: u64 = 16 << 20;

pub(super) struct ApiCall<'a> {
    pub(super) op: &'static str,
    pub(super) method: Method,
    /// Below the endpoint, percent-encoded.
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Body,
    pub(super) key: Option<&'a Key>,
}

/// One bucket.
pub struct Google {
    pub(super) config: GoogleConfig,
    pub(super) clock: SharedClock,
    pub(super) capability: Capability,
}

impl std::fmt::Debug for Google {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Google({})", self.config.bucket)
    }
}

impl Google {
    pub(super) fn call<'a>(
        &self,
        op: &'static str,
        method: Method,
        path: String,
        key: Option<&'a Key>,
    ) -> ApiCall<'a> {
        let mut query = Vec::new();
        if let Some(account) = self.config.account.as_ref().filter(|_| self.config.requester_pays) {
            query.push(("userProject", account.project.clone()));
        }
        ApiCall { op, method, path, query, headers: Vec::new(), body: Body::bytes(""), key }
    }

    pub(super) fn objects(&self, before: &str) -> String {
        let mut path = format!("{before}/storage/v1/b/");
        encode(&mut path, self.config.bucket.as_bytes(), false);
        path.push_str("/o");
        path
    }

    pub(super) fn object(&self, key: &[u8]) -> String {
        let mut path = self.objects("");
        path.push('/');
        encode(&mut path, key, false);
        path
    }

    pub(super) async fn send(&self, call: ApiCall<'_>) -> Result<Response<ResponseBody>> {
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
            .map_err(|e| Error::new(Kind::InvalidKey, call.op, format!("{what}: {e}")).caused_by(e))?;
        let answer = self.config.client.send(request).await.map_err(|f| Error { op: call.op, ..f })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = collect(answer, MAX_RESPONSE_BYTES).await.unwrap_or_default();
        Err(failure(call.op, &what, status, &body))
    }

    pub(super) async fn json<T: serde::de::DeserializeOwned>(&self, call: ApiCall<'_>) -> Result<T> {
        let op = call.op;
        let body = collect(self.send(call).await?, MAX_RESPONSE_BYTES).await?;
        serde_json::from_slice(&body).map_err(|e| {
            Error::new(Kind::Corrupt, op, format!("cannot parse the response: {e}")).caused_by(e)
        })
    }
}
