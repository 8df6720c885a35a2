//! The scripted S3 server: keeps objects in memory or discards them, counts every request, and can be slow,
//! folder-ordered or broken. It checks no signature: real servers do that.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use md5::{Digest, Md5};
use model::key::Order;
use storage::checksum::{DigestSet, Hasher, hex, md5_of_parts};
use tokio::net::TcpListener;

use crate::content::Content;
use crate::faults::{Faults, InjectedFault};
use crate::keys::{Keys, Object, Sorted};
use crate::script::{Call, Script, Step};

/// What the server does with the checksum of a body that is sent with it. MD5s are verified wherever checksums are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksums {
    /// It knows none: headers are ignored, and frames with their trailer become bytes of the object.
    #[default]
    Unknown,
    /// Headers and trailers that name one are refused.
    Refused,
    /// Headers are repeated unread.
    Repeated,
    /// Headers are verified, frames become bytes of the object.
    Headers,
    /// Headers and trailers are verified.
    Verified,
    /// As that, but `aws-chunked` stays the Content-Encoding of objects.
    EncodingKept,
}

impl Checksums {
    fn verifies(self) -> bool {
        matches!(self, Checksums::Headers | Checksums::Verified | Checksums::EncodingKept)
    }
}

/// How the server behaves.
#[derive(Debug)]
pub struct Options {
    /// Order of listings.
    pub order: Order,
    /// Delay of each listing page.
    pub list_delay: Duration,
    /// Delay of each other request.
    pub delay: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// Forget bodies that are written; their ETags are those of the pattern of their length.
    pub discard: bool,
    /// Answer like a vendor whose own headers begin so (`x-obs-`): with opaque ETags and the CRC-64/ECMA of each
    /// object, to requesters who pay.
    pub vendor: Option<&'static str>,
    /// What is done with checksums that are sent.
    pub checksums: Checksums,
    /// As a bucket with Object Lock, refuse objects and parts that come without a checksum.
    pub checksum_demanded: bool,
    /// What single requests are answered in place of the server.
    pub script: Option<Script>,
    /// Keep a log of requests.
    pub log: bool,
    /// Threads.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            order: Order::Bytes,
            list_delay: Duration::ZERO,
            delay: Duration::ZERO,
            faults: Faults::none(),
            discard: false,
            vendor: None,
            checksums: Checksums::Unknown,
            checksum_demanded: false,
            script: None,
            log: true,
            threads: 1,
        }
    }
}

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

/// A bucket to fill from a test.
#[derive(Debug)]
pub struct Bucket<'s> {
    server: &'s S3Server,
    name: String,
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

/// The object as a vendor keeps it: an ETag that says nothing, and its CRC beside it.
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

impl Bucket<'_> {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<Sorted, Object>) -> T) -> Option<T> {
        match lock(&self.server.state.buckets).get_mut(&self.name) {
            Some(Keys::Kept(map)) => Some(f(map)),
            _ => None,
        }
    }

    fn sorted(&self, key: &str) -> Sorted {
        Sorted(self.server.state.options.order, key.as_bytes().to_vec())
    }

    /// Puts an object of given bytes.
    pub fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        self.put_with(key, Content::Given(bytes.into()), None, &[]);
    }

    /// Puts an object with a part layout and headers.
    pub fn put_with(&self, key: &str, content: Content, part_size: Option<u64>, headers: &[(&str, &[u8])]) {
        let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_vec())).collect();
        let mut object = kept(&self.server.state.options, object(content, part_size, headers));
        // Written before any migration of it began.
        object.modified_ms -= 60_000;
        let key = self.sorted(key);
        self.with(|map| map.insert(key, object));
    }

    /// All keys and objects, in order.
    pub fn objects(&self) -> Vec<(String, Object)> {
        let all = self.with(|map| {
            map.iter().map(|(k, o)| (String::from_utf8_lossy(&k.1).into_owned(), o.clone())).collect()
        });
        all.unwrap_or_default()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.with(|map| map.len()).unwrap_or(0)
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A body that is a range of a content, cut short when it is to fail.
struct ResponseBody {
    content: Content,
    at: u64,
    end: u64,
    promised: u64,
    /// The length is told before the body.
    sized: bool,
    state: Option<Arc<State>>,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.at >= this.end {
            let cut = this.at < this.promised;
            return Poll::Ready(cut.then(|| Err(std::io::Error::other("cut on purpose"))));
        }
        let chunk = this.content.chunk(this.at, this.end);
        this.at += chunk.len() as u64;
        if let Some(state) = &this.state {
            state.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            state.last_byte_ms.store(state.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.promised
    }

    fn size_hint(&self) -> SizeHint {
        match self.sized {
            true => SizeHint::with_exact(self.promised - self.at),
            false => SizeHint::default(),
        }
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<ResponseBody> {
    let content = Content::Given(text.into());
    let end = content.len();
    let mut response =
        Response::new(ResponseBody { content, at: 0, end, promised: end, sized: true, state: None });
    *response.status_mut() = status;
    response
}

fn error(status: StatusCode, code: &str) -> Response<ResponseBody> {
    text(
        status,
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>scripted</Message></Error>"),
    )
}

#[derive(Clone)]
struct ParsedRequest {
    method: Method,
    bucket: String,
    key: Vec<u8>,
    query: String,
    headers: HeaderMap,
}

impl ParsedRequest {
    fn value(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|p| {
            let (n, v) = p.split_once('=').unwrap_or((p, ""));
            (n == name).then(|| {
                String::from_utf8_lossy(&storage::s3::list_parser::percent_decode(v.as_bytes(), false))
                    .into_owned()
            })
        })
    }

    fn range(&self, len: u64) -> Option<std::ops::Range<u64>> {
        let text = self.headers.get("range")?.to_str().ok()?.strip_prefix("bytes=")?;
        let (from, to) = text.split_once('-')?;
        let from: u64 = from.parse().ok()?;
        let to = to.parse::<u64>().map_or(len, |t| t + 1).min(len);
        (from < to).then_some(from..to)
    }
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

/// The body of a request: kept, or only counted.
enum StoredBody {
    Kept(Vec<u8>),
    Counted(u64),
}

async fn take_in(state: &Arc<State>, asked: &ParsedRequest, mut body: Incoming) -> Option<StoredBody> {
    let keep = !state.options.discard || asked.method == Method::POST;
    let (mut kept, mut counted) = (Vec::new(), 0u64);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        state.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        state.last_byte_ms.store(state.began.elapsed().as_millis() as u64, Ordering::Relaxed);
        counted += data.len() as u64;
        if keep {
            kept.extend_from_slice(&data);
        }
    }
    Some(if keep { StoredBody::Kept(kept) } else { StoredBody::Counted(counted) })
}

const CRC64: &str = "x-amz-checksum-crc64nvme";

/// The body as it is kept, once its checksums are verified.
fn unpacked(
    state: &State,
    asked: &ParsedRequest,
    taken: StoredBody,
) -> Result<StoredBody, Box<Response<ResponseBody>>> {
    let StoredBody::Kept(bytes) = taken else { return Ok(taken) };
    let header = |name: &str| asked.headers.get(name).and_then(|v| v.to_str().ok());
    let checksums = state.options.checksums;
    let refused = |status, code| Err(Box::new(error(status, code)));
    let names_one = header(CRC64).is_some() || header("x-amz-trailer").is_some();
    if checksums == Checksums::Refused && (names_one || header("x-amz-checksum-algorithm").is_some()) {
        return refused(StatusCode::NOT_IMPLEMENTED, "NotImplemented");
    }
    let is_write = asked.method == Method::PUT && !asked.key.is_empty();
    let without = !names_one && header("content-md5").is_none() && header("x-amz-copy-source").is_none();
    if state.options.checksum_demanded && is_write && without {
        return refused(StatusCode::BAD_REQUEST, "MissingContentMD5");
    }
    let framed = header("x-amz-content-sha256").is_some_and(|v| v.starts_with("STREAMING-"));
    let decodes = matches!(checksums, Checksums::Verified | Checksums::EncodingKept);
    let (bytes, trailer) = match framed && decodes {
        true => match unframed(&bytes) {
            Some(found) => found,
            None => return refused(StatusCode::BAD_REQUEST, "IncompleteBody"),
        },
        false => (bytes, None),
    };
    if !checksums.verifies() {
        return Ok(StoredBody::Kept(bytes));
    }
    let crc = storage::checksum::crc64_of(&bytes).to_be_bytes();
    let told = header(CRC64).map(str::to_owned).or(trailer);
    if told.as_ref().is_some_and(|told| *told != base64_of(&crc)) {
        return refused(StatusCode::BAD_REQUEST, "BadDigest");
    }
    if header("content-md5").is_some_and(|told| told != base64_of(&Md5::digest(&bytes))) {
        return refused(StatusCode::BAD_REQUEST, "BadDigest");
    }
    if told.is_some() {
        state.crc_verified.fetch_add(1, Ordering::SeqCst);
    }
    Ok(StoredBody::Kept(bytes))
}

/// Base64, as checksums are written in headers.
pub fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The bytes inside of the frames of `aws-chunked`, and the checksum behind them.
fn unframed(mut text: &[u8]) -> Option<(Vec<u8>, Option<String>)> {
    let mut all = Vec::with_capacity(text.len());
    loop {
        let end = text.windows(2).position(|w| w == b"\r\n")?;
        let n = usize::from_str_radix(std::str::from_utf8(text.get(..end)?).ok()?, 16).ok()?;
        text = text.get(end + 2..)?;
        if n == 0 {
            let told = std::str::from_utf8(text).ok()?.trim_end().strip_prefix(CRC64)?.strip_prefix(':')?;
            return Some((all, Some(told.to_owned())));
        }
        all.extend_from_slice(text.get(..n)?);
        text = text.get(n..)?.strip_prefix(b"\r\n")?;
    }
}

/// The headers that are kept with an object.
fn kept_headers(options: &Options, headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut kept = carried(headers);
    if options.checksums == Checksums::Verified {
        for (_, value) in kept.iter_mut().filter(|(name, _)| name == "content-encoding") {
            let text = String::from_utf8_lossy(value).into_owned();
            let words = text.split(',').map(str::trim).filter(|word| *word != "aws-chunked");
            *value = words.collect::<Vec<_>>().join(",").into_bytes();
        }
        kept.retain(|(name, value)| name != "content-encoding" || !value.is_empty());
    }
    kept
}

fn carried(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers
        .iter()
        .filter(|(n, _)| {
            storage::Meta::carries(n) || matches!(n.as_str(), "x-amz-storage-class" | "x-amz-tagging")
        })
        .map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec()))
        .collect()
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

fn encoded(key: &[u8]) -> String {
    let mut out = String::with_capacity(key.len() + 8);
    storage::s3::sign::encode(&mut out, key, true);
    out
}

/// `YYYY-MM-DDThh:mm:ss.000Z`
fn iso(ms: i64) -> String {
    let stamp = storage::s3::sign::stamp(ms);
    let s = |a: usize, b: usize| stamp.get(a..b).unwrap_or_default();
    format!(
        "{}-{}-{}T{}:{}:{}.{:03}Z",
        s(0, 4),
        s(4, 6),
        s(6, 8),
        s(9, 11),
        s(11, 13),
        s(13, 15),
        ms.rem_euclid(1000)
    )
}

/// The bytes of a token.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn list(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let buckets = lock(&state.buckets);
    let Some(keys) = buckets.get(&asked.bucket) else { return error(StatusCode::NOT_FOUND, "NoSuchBucket") };
    let max = asked.value("max-keys").and_then(|m| m.parse().ok()).unwrap_or(1000usize).min(1000);
    let second = asked.value("list-type").as_deref() == Some("2");
    let token = asked.value("continuation-token").map(|t| unhex(&t));
    let key = ["marker", "start-after"].into_iter().find_map(|n| asked.value(n)).map(String::into_bytes);
    let after = token.or(key).unwrap_or_default();
    let prefix = asked.value("prefix").unwrap_or_default();
    let mut xml: Vec<u8> = Vec::with_capacity(max * 260 + 400);
    let mut n = 0;
    let mut when = (0, String::new());
    let mut last = Vec::new();
    let more = keys.walk(state.options.order, &after, prefix.as_bytes(), |key, object| {
        if n == max {
            return false;
        }
        n += 1;
        if n == max {
            last = key.to_vec();
        }
        if when.0 != object.modified_ms {
            when = (object.modified_ms, iso(object.modified_ms));
        }
        let plain = key.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'/' | b'.' | b'_'));
        xml.extend_from_slice(b"<Contents><Key>");
        if plain {
            xml.extend_from_slice(key)
        } else {
            xml.extend_from_slice(encoded(key).as_bytes())
        }
        xml.extend_from_slice(b"</Key><LastModified>");
        xml.extend_from_slice(when.1.as_bytes());
        xml.extend_from_slice(b"</LastModified><ETag>&quot;");
        xml.extend_from_slice(object.etag.as_bytes());
        xml.extend_from_slice(b"&quot;</ETag><Size>");
        xml.extend_from_slice(object.content.len().to_string().as_bytes());
        xml.extend_from_slice(b"</Size><StorageClass>STANDARD</StorageClass></Contents>");
        true
    });
    let mut out = Vec::with_capacity(xml.len() + 300);
    out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><EncodingType>url</EncodingType><IsTruncated>");
    out.extend_from_slice(if more { b"true" } else { b"false" });
    out.extend_from_slice(b"</IsTruncated>");
    if second {
        out.extend_from_slice(format!("<KeyCount>{n}</KeyCount>").as_bytes());
    }
    if more && second {
        let token = hex(&last);
        out.extend_from_slice(format!("<NextContinuationToken>{token}</NextContinuationToken>").as_bytes());
    } else if more {
        out.extend_from_slice(format!("<NextMarker>{}</NextMarker>", encoded(&last)).as_bytes());
    }
    out.extend_from_slice(&xml);
    out.extend_from_slice(b"</ListBucketResult>");
    text(StatusCode::OK, out)
}

fn get(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let buckets = lock(&state.buckets);
    let Some(keys) = buckets.get(&asked.bucket) else { return error(StatusCode::NOT_FOUND, "NoSuchBucket") };
    let Some(object) = keys.get(state.options.order, &asked.key) else {
        return error(StatusCode::NOT_FOUND, "NoSuchKey");
    };
    let wanted = asked.headers.get("if-match").and_then(|v| v.to_str().ok()).map(|v| v.trim_matches('"'));
    if wanted.is_some_and(|w| w != object.etag) {
        return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
    }
    let len = object.content.len();
    let part = asked.value("partNumber").and_then(|n| n.parse::<u64>().ok());
    let range = match (part, asked.range(len)) {
        (Some(n), _) => {
            let size = object.part_size.unwrap_or(len.max(1));
            Some((n - 1) * size..(n * size).min(len))
        }
        (None, range) => range,
    };
    let (status, span) = match range {
        Some(range) => (StatusCode::PARTIAL_CONTENT, range),
        None => (StatusCode::OK, 0..len),
    };
    let body = ResponseBody {
        content: object.content.clone(),
        at: span.start,
        end: span.end,
        promised: span.end,
        sized: true,
        state: Some(state.clone()),
    };
    let mut builder = Response::builder().status(status).header("etag", format!("\"{}\"", object.etag));
    let modified = std::time::UNIX_EPOCH + Duration::from_millis(object.modified_ms.max(0) as u64);
    builder = builder.header("last-modified", httpdate::fmt_http_date(modified));
    if status == StatusCode::PARTIAL_CONTENT {
        builder = builder
            .header("content-range", format!("bytes {}-{}/{len}", span.start, span.end.saturating_sub(1)));
    }
    if part.is_some() {
        let count = object.part_size.map_or(1, |p| len.div_ceil(p));
        builder = builder.header("x-amz-mp-parts-count", count);
    }
    for (name, value) in &object.headers {
        match name.as_str() {
            "x-amz-tagging" => {
                let count = value.split(|b| *b == b'&').count();
                builder = builder.header("x-amz-tagging-count", count);
            }
            _ => builder = builder.header(name.as_str(), value.as_slice()),
        }
    }
    builder = builder.header("content-length", span.end - span.start);
    builder.body(body).unwrap_or_else(|_| error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"))
}

fn tagging(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let buckets = lock(&state.buckets);
    let object = buckets.get(&asked.bucket).and_then(|k| k.get(state.options.order, &asked.key));
    let mut xml = String::from("<Tagging><TagSet>");
    let tags = object.and_then(|o| o.headers.iter().find(|(n, _)| n == "x-amz-tagging"));
    let decode = |b: &str| {
        String::from_utf8_lossy(&storage::s3::list_parser::percent_decode(b.as_bytes(), true)).into_owned()
    };
    for pair in tags.map(|(_, v)| String::from_utf8_lossy(v).into_owned()).unwrap_or_default().split('&') {
        if let Some((n, v)) = pair.split_once('=') {
            xml.push_str(&format!(
                "<Tag><Key>{}</Key><Value>{}</Value></Tag>",
                storage::xml::escape(&decode(n)),
                storage::xml::escape(&decode(v))
            ));
        }
    }
    text(StatusCode::OK, xml + "</TagSet></Tagging>")
}

fn with_etag(etag: &str) -> Response<ResponseBody> {
    let mut response = text(StatusCode::OK, "");
    if let Ok(value) = http::HeaderValue::from_str(&format!("\"{etag}\"")) {
        response.headers_mut().insert("etag", value);
    }
    response
}

fn content_of(taken: StoredBody) -> Content {
    match taken {
        StoredBody::Kept(bytes) => Content::Given(bytes.into()),
        StoredBody::Counted(n) => Content::Pattern(n),
    }
}

fn put(state: &Arc<State>, asked: &ParsedRequest, taken: StoredBody) -> Response<ResponseBody> {
    if asked.key.len() > 1024 {
        return error(StatusCode::BAD_REQUEST, "KeyTooLongError");
    }
    let content = match asked.headers.get("x-amz-copy-source").and_then(|v| v.to_str().ok()) {
        None => content_of(taken),
        Some(source) => {
            let (bucket, key) = source.trim_start_matches('/').split_once('/').unwrap_or_default();
            let key = storage::s3::list_parser::percent_decode(key.as_bytes(), false);
            let buckets = lock(&state.buckets);
            let found = buckets.get(bucket).and_then(|k| k.get(state.options.order, &key)).cloned();
            drop(buckets);
            let Some(found) = found else { return error(StatusCode::NOT_FOUND, "NoSuchKey") };
            let etag = found.etag.clone();
            store(state, asked, Object { modified_ms: now_ms(), ..found });
            return text(
                StatusCode::OK,
                format!("<CopyObjectResult><ETag>\"{etag}\"</ETag></CopyObjectResult>"),
            );
        }
    };
    let made = kept(&state.options, object(content, None, kept_headers(&state.options, &asked.headers)));
    let answer = with_crc(with_etag(&made.etag), &made);
    store(state, asked, made);
    repeated(state, asked, answer)
}

/// The answer with the checksum of the request, where the server repeats it unread.
fn repeated(
    state: &State,
    asked: &ParsedRequest,
    mut answer: Response<ResponseBody>,
) -> Response<ResponseBody> {
    if state.options.checksums == Checksums::Repeated
        && let Some(told) = asked.headers.get(CRC64)
    {
        answer.headers_mut().insert(CRC64, told.clone());
    }
    answer
}

fn store(state: &Arc<State>, asked: &ParsedRequest, object: Object) {
    let mut buckets = lock(&state.buckets);
    if state.options.discard && object.content.len() < 1 << 30 && !state.options.log {
        return;
    }
    if let Some(Keys::Kept(map)) = buckets.get_mut(&asked.bucket) {
        map.insert(Sorted(state.options.order, asked.key.clone()), object);
    }
}

fn begin(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let id = format!("upload-{}", state.next.fetch_add(1, Ordering::SeqCst));
    let upload = UploadState {
        bucket: asked.bucket.clone(),
        key: asked.key.clone(),
        headers: carried(&asked.headers),
        parts: BTreeMap::new(),
    };
    lock(&state.uploads).insert(id.clone(), upload);
    text(
        StatusCode::OK,
        format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"),
    )
}

fn put_part(state: &Arc<State>, asked: &ParsedRequest, taken: StoredBody) -> Response<ResponseBody> {
    let id = asked.value("uploadId").unwrap_or_default();
    let number = asked.value("partNumber").and_then(|n| n.parse().ok()).unwrap_or(0);
    let content = content_of(taken);
    let md5 = match &content {
        Content::Given(bytes) => Md5::digest(bytes).into(),
        Content::Pattern(len) => content.md5(0..*len),
    };
    match lock(&state.uploads).get_mut(&id) {
        None => error(StatusCode::NOT_FOUND, "NoSuchUpload"),
        Some(upload) => {
            upload.parts.insert(number, (content, md5));
            repeated(state, asked, with_etag(&hex(&md5)))
        }
    }
}

fn complete(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let id = asked.value("uploadId").unwrap_or_default();
    let Some(upload) = lock(&state.uploads).remove(&id) else {
        return error(StatusCode::NOT_FOUND, "NoSuchUpload");
    };
    let count = upload.parts.len();
    let etag = format!("{}-{count}", hex(&md5_of_parts(upload.parts.values().map(|(_, md5)| *md5))));
    let part_size = upload.parts.values().next().map(|(c, _)| c.len());
    let content = if upload.parts.values().any(|(c, _)| matches!(c, Content::Pattern(_))) {
        Content::Pattern(upload.parts.values().map(|(c, _)| c.len()).sum())
    } else {
        let mut all = Vec::new();
        for (content, _) in upload.parts.values() {
            all.extend_from_slice(&content.bytes(0..content.len()));
        }
        Content::Given(all.into())
    };
    let made = Object { content, etag, part_size, headers: upload.headers, modified_ms: now_ms() };
    let made = kept(&state.options, made);
    let etag = made.etag.clone();
    let told = made.clone();
    if let Some(Keys::Kept(map)) = lock(&state.buckets).get_mut(&upload.bucket) {
        map.insert(Sorted(state.options.order, upload.key), made);
    }
    let answer = format!(
        "<CompleteMultipartUploadResult><ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
    );
    with_crc(text(StatusCode::OK, answer), &told)
}

fn list_parts(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let uploads = lock(&state.uploads);
    let Some(upload) = uploads.get(&asked.value("uploadId").unwrap_or_default()) else {
        return error(StatusCode::NOT_FOUND, "NoSuchUpload");
    };
    let mut xml = String::from("<ListPartsResult><IsTruncated>false</IsTruncated>");
    for (number, (content, md5)) in &upload.parts {
        let size = content.len();
        xml.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>\"{}\"</ETag><Size>{size}</Size></Part>",
            hex(md5)
        ));
    }
    text(StatusCode::OK, xml + "</ListPartsResult>")
}

fn list_uploads(state: &Arc<State>, asked: &ParsedRequest) -> Response<ResponseBody> {
    let prefix = asked.value("prefix").unwrap_or_default();
    let mut xml = String::from("<ListMultipartUploadsResult>");
    for (id, upload) in lock(&state.uploads).iter() {
        if upload.bucket == asked.bucket && upload.key.starts_with(prefix.as_bytes()) {
            let key = String::from_utf8_lossy(&upload.key);
            xml.push_str(&format!(
                "<Upload><Key>{}</Key><UploadId>{id}</UploadId></Upload>",
                storage::xml::escape(&key)
            ));
        }
    }
    text(StatusCode::OK, xml + "</ListMultipartUploadsResult>")
}
