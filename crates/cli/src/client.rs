//! A small client of a running service: signs as every SDK does (auth.md §2).

use flow_control::clock::Clock;
use http::{HeaderValue, Method, Request};
use model::error::{Error, Kind, Result};
use ring::hmac;
use serde_json::Value;
use storage::Body;
use storage::checksum::{hex, sha256_hex};
use storage::http::Client as Http;

use crate::args::Service;

/// A service and who calls it.
pub(crate) struct Client {
    http: Http,
    ak: String,
    sk: String,
    project: String,
}

/// An error answer of the service.
fn refused(status: u16, body: &Value) -> Error {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = match status {
        401 => Kind::BadCredentials,
        403 => Kind::Forbidden,
        404 => Kind::NotFound,
        500.. => Kind::Unavailable,
        _ => Kind::Invalid,
    };
    Error::new(kind, "request", format!("{} {}", text("error_code"), text("error_msg")))
}

impl Client {
    /// A client of the service that the arguments name.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub(crate) fn from_args(service: &Service) -> Result<Self> {
        Self::new(&service.endpoint, &service.ak, &service.sk, &service.project)
    }

    /// A client of `endpoint`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming what is missing.
    pub(crate) fn new(endpoint: &str, ak: &str, sk: &str, project: &str) -> Result<Self> {
        for (value, name) in [(ak, "WHIMBREL_AK"), (sk, "WHIMBREL_SK"), (project, "WHIMBREL_PROJECT")] {
            if value.is_empty() {
                let m = format!(
                    "{name} is not set; hint: use the value that `whimbrel init` or the first `whimbrel \
                     serve` printed"
                );
                return Err(Error::new(Kind::Invalid, "client", m));
            }
        }
        let http = Http::new(endpoint, storage::egress::Egress::anywhere())?;
        Ok(Self { http, ak: ak.into(), sk: sk.into(), project: project.into() })
    }

    /// Calls `/v2/{project}/{tail}`; a query goes in `tail`, sorted by name.
    ///
    /// # Errors
    /// What the service answers, or that it cannot be reached.
    pub(crate) async fn call(&self, method: Method, tail: &str, body: Option<&Value>) -> Result<Value> {
        let target = format!("/v2/{}/{tail}", self.project);
        let text = body.map(Value::to_string).unwrap_or_default();
        let stamp = storage::s3::sign::stamp(flow_control::clock::SystemClock.now_ms());
        let host = self.http.authority().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let hash = sha256_hex(text.as_bytes());
        let canonical = format!(
            "{method}\n{path}/\n{query}\nhost:{host}\nx-project-id:{}\nx-sdk-date:{stamp}\n\nhost;x-project-id;x-sdk-date\n{hash}",
            self.project
        );
        let hashed = sha256_hex(canonical.as_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.sk.as_bytes());
        let signature =
            hex(hmac::sign(&key, format!("SDK-HMAC-SHA256\n{stamp}\n{hashed}").as_bytes()).as_ref());
        let auth = format!(
            "SDK-HMAC-SHA256 Access={}, SignedHeaders=host;x-project-id;x-sdk-date, Signature={signature}",
            self.ak
        );
        let bad = |e: http::Error| Error::new(Kind::Invalid, "request", e.to_string());
        let request = Request::builder()
            .method(method)
            .uri(&target)
            .header("host", &host)
            .header("content-type", HeaderValue::from_static("application/json"))
            .header("x-project-id", &self.project)
            .header("x-sdk-date", &stamp)
            .header("authorization", auth)
            .body(Body::bytes(text))
            .map_err(bad)?;
        let answer = self.http.send(request).await?;
        let status = answer.status().as_u16();
        let bytes = storage::http::collect(answer, 16 << 20).await?;
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status >= 400 { Err(refused(status, &value)) } else { Ok(value) }
    }
}
