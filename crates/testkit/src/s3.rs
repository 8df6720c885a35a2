//! The scripted S3 server: keeps objects in memory or discards them, counts every request, and can be slow,
//! folder-ordered or broken. It checks no signature: real servers do that.

mod body;
mod bucket;
mod list;
mod message;
mod multipart;
mod object;
mod options;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use md5::{Digest, Md5};
use storage::checksum::{DigestSet, Hasher, hex};
use tokio::net::TcpListener;

use crate::content::Content;
use crate::faults::{Faults, InjectedFault};
use crate::keys::{Keys, Object, Sorted};
use crate::script::{Call, Step};
pub use body::base64_of;
use body::{StoredBody, take_in, unpacked};
pub use bucket::Bucket;
use list::list;
use message::{ParsedRequest, ResponseBody, error, text};
use multipart::{begin, complete, list_parts, list_uploads, put_part};
use object::{get, put, tagging};
pub use options::{Checksums, Options};

/// One request as it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Bucket.
    pub bucket: String,
    /// Key, decoded; empty for the bucket.
    pub key: String,
    /// Raw query.
    pub query: String,
    /// Range header.
    pub range: Option<String>,
    /// Status of the answer; 0 when it was cut.
    pub status: u16,
    /// Milliseconds since the server began, when the request had been taken in completely.
    pub at_ms: u64,
}

#[derive(Debug, Default)]
struct UploadState {
    bucket: String,
    key: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    parts: BTreeMap<u32, (Content, [u8; 16])>,
}

#[derive(Debug)]
struct State {
    options: Options,
    began: Instant,
    buckets: Mutex<HashMap<String, Keys>>,
    uploads: Mutex<HashMap<String, UploadState>>,
    log: Mutex<Vec<Logged>>,
    next: AtomicU64,
    received: AtomicU64,
    /// Bodies whose CRC-64 was verified and right.
    crc_verified: AtomicU64,
    sent: AtomicU64,
    last_byte_ms: AtomicU64,
    /// Requests being worked on.
    busy: AtomicU64,
}

/// One request being worked on.
struct Busy(Arc<State>);

impl Busy {
    fn new(state: &Arc<State>) -> Self {
        state.busy.fetch_add(1, Ordering::SeqCst);
        Self(state.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct S3Server {
    addr: SocketAddr,
    state: Arc<State>,
    _runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self._runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn now_ms() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    since.as_millis() as i64
}

impl S3Server {
    /// Starts on a free port of loopback.
    ///
    /// # Panics
    /// When the system gives no thread or port.
    pub fn start(options: Options) -> Self {
        Self::start_on("127.0.0.1:0", options)
    }

    /// Starts on an address.
    ///
    /// # Panics
    /// When the system gives no thread or port.
    pub fn start_on(addr: &str, options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads)
            .thread_name("s3-server")
            .enable_all()
            .build()
            .expect("threads for the server");
        let listener = std::net::TcpListener::bind(addr).expect("a port for the server");
        listener.set_nonblocking(true).expect("non-blocking");
        let addr = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            options,
            began: Instant::now(),
            buckets: Mutex::default(),
            uploads: Mutex::default(),
            log: Mutex::default(),
            next: AtomicU64::new(1),
            received: AtomicU64::new(0),
            crc_verified: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            last_byte_ms: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        });
        let serving = state.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let _ = stream.set_nodelay(true);
                let state = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let state = state.clone();
                        async move { handle(state, request).await }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { addr, state, _runtime: Some(runtime) }
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Makes a bucket, or finds it.
    pub fn bucket(&self, name: &str) -> Bucket<'_> {
        lock(&self.state.buckets).entry(name.to_owned()).or_insert_with(|| Keys::Kept(BTreeMap::new()));
        Bucket { server: self, name: name.to_owned() }
    }

    /// A bucket of `n` numbered keys that all have the same object.
    pub fn numbered(&self, name: &str, n: u64, size: u64, part_size: Option<u64>) {
        let object = object(Content::Pattern(size), part_size, vec![]);
        lock(&self.state.buckets).insert(name.to_owned(), Keys::Numbered(n, object));
    }

    /// The requests so far.
    pub fn log(&self) -> Vec<Logged> {
        lock(&self.state.log).clone()
    }

    /// Forgets the requests so far.
    pub fn clear_log(&self) {
        lock(&self.state.log).clear();
    }

    /// What goes wrong.
    pub fn faults(&self) -> &Faults {
        &self.state.options.faults
    }

    /// Bytes of bodies taken in and sent out.
    pub fn moved(&self) -> (u64, u64) {
        (self.state.received.load(Ordering::SeqCst), self.state.sent.load(Ordering::SeqCst))
    }

    /// Requests being worked on, bodies of answers aside.
    pub fn busy(&self) -> u64 {
        self.state.busy.load(Ordering::SeqCst)
    }

    /// Bodies that came with the right CRC-64, which was verified.
    pub fn crc_verified(&self) -> u64 {
        self.state.crc_verified.load(Ordering::SeqCst)
    }

    /// Open uploads.
    pub fn open_uploads(&self) -> usize {
        lock(&self.state.uploads).len()
    }
}

fn object(content: Content, part_size: Option<u64>, headers: Vec<(String, Vec<u8>)>) -> Object {
    Object { etag: content.etag(part_size), content, part_size, headers, modified_ms: now_ms() }
}

/// The object as a vendor keeps it: an ETag that proves nothing, and its CRC.
fn kept(options: &Options, mut object: Object) -> Object {
    let Some(prefix) = options.vendor else { return object };
    let mut hasher = Hasher::new(DigestSet { crc64_ecma: true, ..DigestSet::default() });
    hasher.update(&object.content.bytes(0..object.content.len()));
    let crc = hasher.finish().sums.crc64_ecma.unwrap_or_default();
    object.etag = format!("opaque-{crc:x}");
    object.headers.retain(|(n, _)| !n.ends_with("hash-crc64ecma"));
    object.headers.push((format!("{prefix}hash-crc64ecma"), crc.to_string().into_bytes()));
    object
}

/// Answers a write with what a vendor tells of the new object.
fn with_crc(mut response: Response<ResponseBody>, made: &Object) -> Response<ResponseBody> {
    for (name, value) in made.headers.iter().filter(|(n, _)| n.ends_with("hash-crc64ecma")) {
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::try_from(name.as_str()), http::HeaderValue::from_bytes(value))
        {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn handle(state: Arc<State>, request: Request<Incoming>) -> std::io::Result<Response<ResponseBody>> {
    let _busy = Busy::new(&state);
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let asked = ParsedRequest {
        bucket: bucket.to_owned(),
        key: storage::s3::list_parser::percent_decode(key.as_bytes(), false),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        method: parts.method,
        headers: parts.headers,
    };
    let fault = state.options.faults.draw();
    let answer = answer(&state, &asked, body, fault).await;
    if state.options.log {
        let range = asked.headers.get("range").and_then(|r| r.to_str().ok()).map(str::to_owned);
        let logged = Logged {
            method: asked.method.to_string(),
            bucket: asked.bucket.clone(),
            key: String::from_utf8_lossy(&asked.key).into_owned(),
            query: asked.query.clone(),
            range,
            status: answer.as_ref().map_or(0, |a| a.status().as_u16()),
            at_ms: state.began.elapsed().as_millis() as u64,
        };
        lock(&state.log).push(logged);
    }
    match answer {
        Some(mut answer) => {
            if fault == Some(InjectedFault::Truncate) && answer.status().is_success() && answer.body().end > 1
            {
                let body = answer.body_mut();
                body.end = body.at + (body.end - body.at) / 2;
            }
            Ok(answer)
        }
        // An error of the service makes hyper cut the connection without an answer.
        None => Err(std::io::Error::other("cut on purpose")),
    }
}

async fn answer(
    state: &Arc<State>,
    asked: &ParsedRequest,
    body: Incoming,
    fault: Option<InjectedFault>,
) -> Option<Response<ResponseBody>> {
    match fault {
        Some(InjectedFault::SlowDown) => return Some(error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
        Some(InjectedFault::InternalError) => {
            return Some(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
        }
        Some(InjectedFault::Reset) => return None,
        _ => {}
    }
    if let Some(prefix) = state.options.vendor.filter(|_| asked.bucket.starts_with("paid"))
        && !asked.headers.contains_key(format!("{prefix}request-payer"))
    {
        return Some(error(StatusCode::FORBIDDEN, "AccessDenied"));
    }
    let mut taken = take_in(state, asked, body).await?;
    if let (Some(InjectedFault::Flip), StoredBody::Kept(bytes)) = (fault, &mut taken)
        && let Some(byte) = bytes.iter_mut().rev().nth(100)
    {
        *byte ^= 1;
    }
    let taken = match unpacked(state, asked, taken) {
        Ok(taken) => taken,
        Err(refused) => return Some(*refused),
    };
    let step = step(state, asked);
    match &step {
        Step::Refuse(code, name) => return Some(error(status(*code), name)),
        Step::Answer(code, headers, body) => return Some(told(status(*code), headers, body)),
        Step::Vanish => forget(state, asked, true),
        Step::DropBucket => forget(state, asked, false),
        Step::Serve | Step::Unsized | Step::Encrypted => {}
    }
    let delay = if asked.key.is_empty() { state.options.list_delay } else { state.options.delay };
    let done = match delay.is_zero() {
        true => route(state, asked, taken),
        // What has been read is done, as at any server, whether or not somebody still waits for the answer.
        false => {
            let (state, asked) = (state.clone(), asked.clone());
            let work = async move {
                tokio::time::sleep(delay).await;
                route(&state, &asked, taken)
            };
            tokio::spawn(work).await.ok()?
        }
    };
    let done = match step {
        Step::Unsized => without_length(done),
        Step::Encrypted => encrypted(done),
        _ => done,
    };
    if fault == Some(InjectedFault::LoseAnswer) { None } else { Some(done) }
}

/// What the script says of a request.
fn step(state: &State, asked: &ParsedRequest) -> Step {
    let Some(script) = &state.options.script else { return Step::Serve };
    script.decide(&Call {
        method: asked.method.as_str(),
        bucket: &asked.bucket,
        key: &String::from_utf8_lossy(&asked.key),
        query: &asked.query,
        headers: &asked.headers,
    })
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// An answer that a script gives whole.
fn told(status: StatusCode, headers: &[(&'static str, String)], body: &[u8]) -> Response<ResponseBody> {
    let mut response = text(status, body.to_vec());
    for (name, value) in headers {
        if let Ok(value) = http::HeaderValue::from_str(value) {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

/// Removes the key of a request, or its bucket.
fn forget(state: &State, asked: &ParsedRequest, key_only: bool) {
    let mut buckets = lock(&state.buckets);
    if !key_only {
        buckets.remove(&asked.bucket);
    } else if let Some(Keys::Kept(map)) = buckets.get_mut(&asked.bucket) {
        map.remove(&Sorted(state.options.order, asked.key.clone()));
    }
}

fn without_length(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().remove(http::header::CONTENT_LENGTH);
    response.body_mut().sized = false;
    response
}

/// The answer of a bucket that is encrypted with a key service.
fn encrypted(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    let Some(etag) = headers.get("etag").cloned() else { return response };
    let opaque: [u8; 16] = Md5::digest([etag.as_bytes(), b"key"].concat()).into();
    if let Ok(value) = http::HeaderValue::from_str(&format!("\"{}\"", hex(&opaque))) {
        headers.insert("etag", value);
    }
    headers.insert("x-amz-server-side-encryption", http::HeaderValue::from_static("aws:kms"));
    response
}

fn route(state: &Arc<State>, asked: &ParsedRequest, taken: StoredBody) -> Response<ResponseBody> {
    let has = |name: &str| asked.value(name).is_some();
    match (&asked.method, asked.key.is_empty()) {
        (&Method::HEAD, true) => match lock(&state.buckets).contains_key(&asked.bucket) {
            true => text(StatusCode::OK, ""),
            false => text(StatusCode::NOT_FOUND, ""),
        },
        (&Method::GET, true) if has("uploads") => list_uploads(state, asked),
        (&Method::GET, true) => list(state, asked),
        (&Method::PUT, true) => {
            lock(&state.buckets).entry(asked.bucket.clone()).or_insert_with(|| Keys::Kept(BTreeMap::new()));
            text(StatusCode::OK, "")
        }
        (&Method::POST, false) if has("uploads") => begin(state, asked),
        (&Method::POST, false) => complete(state, asked),
        (&Method::PUT, false) if has("uploadId") => put_part(state, asked, taken),
        (&Method::PUT, false) => put(state, asked, taken),
        (&Method::GET, false) if has("uploadId") => list_parts(state, asked),
        (&Method::GET, false) if has("tagging") => tagging(state, asked),
        (&Method::GET | &Method::HEAD, false) => get(state, asked),
        (&Method::DELETE, false) if has("uploadId") => {
            lock(&state.uploads).remove(&asked.value("uploadId").unwrap_or_default());
            text(StatusCode::NO_CONTENT, "")
        }
        (&Method::DELETE, false) => {
            if let Some(Keys::Kept(map)) = lock(&state.buckets).get_mut(&asked.bucket) {
                map.remove(&Sorted(state.options.order, asked.key.clone()));
            }
            text(StatusCode::NO_CONTENT, "")
        }
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

/// The bytes of a token.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}
