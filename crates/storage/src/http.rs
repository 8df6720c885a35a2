//! HTTP/1.1 to one endpoint: connections stay on the thread that opened them and are used again there.
//!
//! Decision: ADR 0003, `docs/adr/0003-own-s3-client-on-hyper.md`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use model::error::{Error, Kind, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::{Body, Sender};
use crate::egress::{Egress, host_of};
use crate::idle::IdlePool;
use crate::pooled_body::{PooledBody, STALL_TIMEOUT};
use crate::quick_ack::{AckStream, QuickAck};

pub use crate::body::ResponseBody;

/// Time limit of a connect, with the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One endpoint: scheme, host and port.
#[derive(Clone)]
pub struct Client {
    idle: Arc<IdlePool<Sender>>,
    https: bool,
    host: String,
    port: u16,
    authority: String,
    /// What the path of each request begins with; empty, or `/` and more without a `/` at its end.
    base: String,
    egress: Egress,
    /// The host as the operator's list would name it: without the bucket in front.
    named: String,
    acknowledge: QuickAck,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.authority)
    }
}

impl Client {
    /// An endpoint such as `http://127.0.0.1:9000`: scheme, host and optional port, nothing else.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming what is wrong with the text.
    pub fn new(endpoint: &str, egress: Egress) -> Result<Self> {
        let client = Self::with_base(endpoint, egress)?;
        if client.base.is_empty() {
            return Ok(client);
        }
        let m = format!("endpoint `{endpoint}` must have no path");
        Err(Error::new(Kind::Invalid, "endpoint", m))
    }

    /// As [`Client::new`], with a path that each request's path begins with.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_base(endpoint: &str, egress: Egress) -> Result<Self> {
        // A password in it is not repeated.
        let shown = endpoint.rsplit_once('@').map_or(endpoint, |(_, host)| host);
        let bad = |why: &str| Error::new(Kind::Invalid, "endpoint", format!("endpoint `{shown}` {why}"));
        let uri: Uri = endpoint.parse().map_err(|_| bad("is not a URL"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("must begin with http:// or https://")),
        };
        if uri.query().is_some() {
            return Err(bad("must have no query"));
        }
        if endpoint.contains('#') {
            return Err(bad("must have no fragment (#)"));
        }
        let base = uri.path().trim_end_matches('/').to_owned();
        let authority = uri.authority().ok_or_else(|| bad("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("must not carry a user or password"));
        }
        // What was understood is what was written, or the text leads elsewhere than it seems to.
        let host = host_of(endpoint).ok_or_else(|| bad("has a misleading host part"))?;
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        Ok(Self {
            idle: Arc::default(),
            https,
            authority: authority.as_str().to_owned(),
            base,
            named: host.clone(),
            host,
            port,
            egress,
            acknowledge: QuickAck::default(),
        })
    }

    /// What the path of each request begins with: empty, or as in `/storage/v1/s3`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `host[:port]` as written.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The same endpoint under a host name with a label in front, as virtual-hosted buckets need.
    pub fn with_label(&self, label: &str) -> Result<Self> {
        let scheme = if self.https { "https" } else { "http" };
        let endpoint = format!("{scheme}://{label}.{}{}", self.authority, self.base);
        let client = Self::with_base(&endpoint, self.egress.clone())?;
        if client.authority != format!("{label}.{}", self.authority) || client.base != self.base {
            let m = format!("`{label}` is not a valid host name label");
            return Err(Error::new(Kind::Invalid, "endpoint", m));
        }
        Ok(Self { named: self.named.clone(), ..client })
    }

    /// True for TLS.
    pub fn is_https(&self) -> bool {
        self.https
    }

    async fn connect(&self) -> Result<Sender> {
        let connecting = async {
            match self.egress.connect(&self.named, &self.host, self.port).await {
                Ok(stream) => self.handshake(stream).await,
                Err(f) if f.kind == Kind::Connect => {
                    let message = format!("cannot connect to {}: {}", self.authority, f.message);
                    Err(Error { message, ..f })
                }
                Err(f) => Err(f),
            }
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(result) => result,
            Err(_) => {
                let m = format!("connection to {} timed out after 10 s", self.authority);
                Err(Error::new(Kind::Connect, "connect", m))
            }
        }
    }

    async fn handshake(&self, stream: TcpStream) -> Result<Sender> {
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(Kind::Connect, "connect", format!("{}: {e}", self.authority))
        };
        stream.set_nodelay(true).map_err(|e| failed(&e))?;
        let stream = AckStream::new(stream, self.acknowledge.clone());
        if !self.https {
            let (sender, driver) =
                http1_settings().handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
            tokio::spawn(driver);
            return Ok(sender);
        }
        let name = ServerName::try_from(self.host.clone()).map_err(|e| failed(&e))?;
        let tls = TlsConnector::from(tls_config()).connect(name, stream).await.map_err(|e| failed(&e))?;
        let (sender, driver) = http1_settings().handshake(TokioIo::new(tls)).await.map_err(|e| failed(&e))?;
        tokio::spawn(driver);
        Ok(sender)
    }

    /// Sends a request and waits for the head of the answer. The request's URI is origin-form.
    ///
    /// # Errors
    /// [`Kind::Connect`], [`Kind::Timeout`], or the failure of the body's own source.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<ResponseBody>> {
        let mut sender = match self.idle.take(|sender| !sender.is_closed()) {
            Some(mut sender) => match sender.ready().await {
                Ok(()) => sender,
                Err(_) => self.connect().await?,
            },
            None => self.connect().await?,
        };
        let progress = request.body().progress();
        let answer = self.watch(sender.send_request(request), progress).await?;
        let (head, incoming) = answer.into_parts();
        let body = PooledBody::new(incoming, self.idle.clone(), sender);
        Ok(Response::from_parts(head, body))
    }

    /// Waits for an answer as long as bytes move.
    async fn watch(
        &self,
        sending: impl Future<Output = hyper::Result<Response<Incoming>>>,
        progress: Option<Arc<AtomicU64>>,
    ) -> Result<Response<Incoming>> {
        let mut sending = std::pin::pin!(sending);
        let moved = || progress.as_ref().map_or(0, |p| p.load(Ordering::Relaxed));
        let mut before = moved();
        loop {
            match tokio::time::timeout(STALL_TIMEOUT, sending.as_mut()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(e)) => return Err(send_failure(&self.authority, e)),
                Err(_) => {
                    let now = moved();
                    if now == before {
                        let m = format!("no data was exchanged with {} for 60 s", self.authority);
                        return Err(Error::new(Kind::Timeout, "send", m));
                    }
                    before = now;
                }
            }
        }
    }
}

/// A header as text; none where it is missing or not ASCII.
pub(crate) fn header_text<'h>(headers: &'h http::HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// The length that an answer promises.
pub(crate) fn length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The kind of an error of a store whose response names no error code that is known.
pub(crate) fn kind_of_status(status: http::StatusCode) -> Kind {
    match status.as_u16() {
        401 => Kind::BadCredentials,
        403 => Kind::Forbidden,
        404 => Kind::NotFound,
        405 | 501 => Kind::Unsupported,
        408 => Kind::Timeout,
        412 => Kind::Changed,
        413 => Kind::TooLarge,
        429 | 503 => Kind::Throttled,
        507 => Kind::NoSpace,
        500..=599 => Kind::Unavailable,
        _ => Kind::Invalid,
    }
}

/// The kind of an error of a web server that serves single objects (URL lists, source CDNs). Credentials and space are
/// matters of that server, so no kind is returned that stops the whole task.
pub(crate) fn kind_of_web_status(status: http::StatusCode) -> Kind {
    match status.as_u16() {
        401 => Kind::Forbidden,
        410 => Kind::NotFound,
        507 => Kind::Unavailable,
        _ => kind_of_status(status),
    }
}

/// Refuses an answer that is not of exactly the range that was asked for: a server may ignore it, and a cache or proxy
/// may send another of the same length.
pub(crate) fn check_range<T>(
    answer: &Response<T>,
    range: Option<&std::ops::Range<u64>>,
    key: &model::key::Key,
) -> Result<()> {
    let Some(range) = range else { return Ok(()) };
    if answer.status() != http::StatusCode::PARTIAL_CONTENT {
        let m = format!("`{key}`: the server ignored the requested range");
        return Err(Error::new(Kind::Unsupported, "read", m));
    }
    if is_range(answer.headers(), range) {
        return Ok(());
    }
    let told =
        answer.headers().get(http::header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or("none");
    let m = format!("`{key}`: requested bytes {range:?}, received {told}");
    Err(Error::new(Kind::Mismatch, "read", m))
}

fn is_range(headers: &http::HeaderMap, range: &std::ops::Range<u64>) -> bool {
    let told = headers.get(http::header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
    let Some(span) = told.and_then(|t| t.trim().strip_prefix("bytes ")) else { return false };
    let span = span.split('/').next().unwrap_or_default();
    let Some((first, last)) = span.split_once('-') else { return false };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    number(first) == Some(range.start) && number(last).and_then(|l| l.checked_add(1)) == Some(range.end)
}

/// All of a small answer, with or without a promised length, refused beyond `max` bytes.
///
/// # Errors
/// [`Kind::TooLarge`], [`Kind::Connect`] or [`Kind::Corrupt`].
pub async fn collect(answer: Response<ResponseBody>, max: u64) -> Result<bytes::Bytes> {
    let len = length(answer.headers());
    let mut body = answer.into_body();
    if let Some(len) = len {
        return Body::wire(body, len).collect(max).await;
    }
    let mut all = Vec::new();
    while let Some(data) = body.next_chunk().await? {
        all.extend_from_slice(&data);
        if all.len() as u64 > max {
            return Err(Error::new(Kind::TooLarge, "read", format!("the response exceeds {max} bytes")));
        }
    }
    Ok(all.into())
}

/// An HTTP date as milliseconds since the epoch.
pub(crate) fn date(text: &str) -> Option<i64> {
    let at = httpdate::parse_http_date(text).ok()?;
    i64::try_from(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn send_failure(authority: &str, e: hyper::Error) -> Error {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&e);
    while let Some(c) = cause {
        if let Some(failure) = c.downcast_ref::<Error>() {
            return failure.clone();
        }
        cause = c.source();
    }
    Error::new(Kind::Connect, "send", format!("{authority}: connection lost: {e}")).caused_by(e)
}

/// One read takes at most this much from a connection. Measured: less costs CPU at 1 MiB objects, more costs memory at
/// large ones and gains little.
const READ: usize = 256 << 10;

/// A connection's settings: a bounded read buffer, since there are many connections.
fn http1_settings() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(READ);
    builder
}

/// TLS with the certificates of this machine.
pub fn tls_config() -> Arc<rustls::ClientConfig> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    CONFIG.get_or_init(|| Arc::new(trusting(system_roots()).with_no_client_auth())).clone()
}

/// TLS that trusts only the authorities of a file, where one is given, and shows a certificate with its key, where they are.
///
/// # Errors
/// [`Kind::Invalid`] naming the file that cannot be read or used.
pub fn tls_config_of(
    ca: Option<&std::path::Path>,
    client: Option<(&std::path::Path, &std::path::Path)>,
) -> Result<Arc<rustls::ClientConfig>> {
    let roots = match ca {
        None => system_roots(),
        Some(ca) => {
            let mut roots = rustls::RootCertStore::empty();
            for one in certificates(ca)? {
                roots.add(one).map_err(|e| unusable(ca, &e))?;
            }
            roots
        }
    };
    let builder = trusting(roots);
    Ok(Arc::new(match client {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key, &e))?;
            builder.with_client_auth_cert(certificates(cert)?, secret).map_err(|e| unusable(cert, &e))?
        }
    }))
}

fn unusable(path: &std::path::Path, e: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Invalid, "tls", format!("{}: {e}", path.display()))
}

/// The certificates of a PEM file, at least one.
fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|e| unusable(path, &e))?;
    if all.is_empty() {
        return Err(unusable(path, &"it holds no certificate in PEM form"));
    }
    Ok(all)
}

fn system_roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read a system certificate");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

fn trusting(
    roots: rustls::RootCertStore,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|e| unreachable!("ring supports the default TLS versions: {e}"))
        .with_root_certificates(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_without_a_known_code_gives_the_kind() {
        for (status, store, web) in [
            (400, Kind::Invalid, Kind::Invalid),
            (401, Kind::BadCredentials, Kind::Forbidden),
            (403, Kind::Forbidden, Kind::Forbidden),
            (404, Kind::NotFound, Kind::NotFound),
            (405, Kind::Unsupported, Kind::Unsupported),
            (408, Kind::Timeout, Kind::Timeout),
            (410, Kind::Invalid, Kind::NotFound),
            (412, Kind::Changed, Kind::Changed),
            (413, Kind::TooLarge, Kind::TooLarge),
            (429, Kind::Throttled, Kind::Throttled),
            (500, Kind::Unavailable, Kind::Unavailable),
            (501, Kind::Unsupported, Kind::Unsupported),
            (503, Kind::Throttled, Kind::Throttled),
            (507, Kind::NoSpace, Kind::Unavailable),
        ] {
            let status = http::StatusCode::from_u16(status).unwrap();
            assert_eq!((kind_of_status(status), kind_of_web_status(status)), (store, web), "{status}");
        }
    }

    #[test]
    fn endpoint_with_path_or_query_is_rejected() {
        let new = |endpoint: &str| Client::new(endpoint, Egress::anywhere());
        assert!(new("http://127.0.0.1:9000").is_ok());
        assert!(new("https://s3.example.com/").is_ok());
        let with_path = Client::with_base("https://h/storage/v1/s3/", Egress::anywhere()).unwrap();
        assert_eq!((with_path.base(), with_path.authority()), ("/storage/v1/s3", "h"));
        for bad in ["ftp://h", "127.0.0.1:9000", "http://h/p", "http://u:p@h", "http://h?x"] {
            assert!(new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sec_f02_range_response_must_match_the_range() {
        let is = |text: &'static str| {
            let headers = [(http::header::CONTENT_RANGE, http::HeaderValue::from_static(text))];
            is_range(&headers.into_iter().collect(), &(10..20))
        };
        assert!(is("bytes 10-19/100") && is("bytes 10-19/*"));
        for other in
            ["bytes 0-9/100", "bytes 10-20/100", "bytes */100", "10-19", "bytes 10-18446744073709551615/1"]
        {
            assert!(!is(other), "{other}");
        }
        assert!(!is_range(&http::HeaderMap::new(), &(0..1)));
    }

    #[tokio::test]
    async fn address_rules_are_checked_after_resolution() {
        let client = Client::new("http://localhost:9", Egress::default()).unwrap();
        assert_eq!(client.connect().await.unwrap_err().kind, Kind::Forbidden);
    }

    #[test]
    fn sec_f08_text_before_the_host_does_not_change_the_host() {
        for bad in ["http://127.0.0.1:1#.h", "http://a@h", "http://h?.x", "http://h#"] {
            assert!(Client::new(bad, Egress::anywhere()).is_err(), "{bad}");
        }
        let client = Client::new("http://s3.lab:9000", Egress::listed(&["s3.lab".to_owned()])).unwrap();
        for bad in ["127.0.0.1:1#", "127.0.0.1:1/", "127.0.0.1:1?", "a@127.0.0.1#"] {
            assert!(client.with_label(bad).is_err(), "{bad}");
        }
        let labelled = client.with_label("bucket").unwrap();
        assert_eq!((labelled.authority(), labelled.named.as_str()), ("bucket.s3.lab:9000", "s3.lab"));
    }
}
