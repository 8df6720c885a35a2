//! Reading request bodies: how large one may be, how long it may take, and how much memory all of them have.
//!
//! Why not `tower-http`: its limits hold for one request. `RequestBodyLimit` bounds the size and `RequestBodyTimeout` the time
//! between two frames, so a body may arrive one byte at a time for ever, and the 512 connections of one address may hold
//! 512 × 12 MiB = 6 GiB. Here one address holds at most 16 MiB before it is authenticated and 40 MiB in all, all callers
//! together 80 MiB, and a body has 10 s and 1 s more for each 256 KiB that arrived. Cost: one lock per frame, 112 ns.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use flow_control::caller_limit::{CallerLimit, Reservation};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::ApiError;

/// Largest body of a call that creates tasks: 500 keys of 1,024 characters, each written as `\uXXXX`, and the rest;
/// an import names up to 1,000 files.
const KEYS_MAX: usize = 4 << 20;
/// Largest body of another call that carries a list: 100 keys of 2,048 characters, 10,000 ids.
const LIST_MAX: usize = 1 << 20;
/// Largest body of any other call.
const SHORT_MAX: usize = 64 << 10;
/// Largest body of a sign-in.
const SIGN_IN_MAX: usize = 16 << 10;
/// JSON values in a body of a call that carries a list: 10,000 ids, or 1,000 windows with their fields.
const LIST_VALUES: u64 = 20_000;
/// JSON values in a body of any other call: 1,000 files with their fields.
const SHORT_VALUES: u64 = 5_000;
/// JSON values in a body of a sign-in.
const SIGN_IN_VALUES: u64 = 128;
/// Memory of a parsed JSON value, bytes: a `serde_json::Value` in a list that grows.
const VALUE_BYTES: u64 = 64;
/// Memory of a parsed JSON object in addition to its values, bytes: a node of a map.
const OBJECT_BYTES: u64 = 640;
/// Short bodies of authenticated callers together, and those of one caller.
const SHORT_BUDGET: (u64, u64) = (16 << 20, 4 << 20);
/// Short bodies whose signature is not verified yet, and those from one address.
const SHORT_SIGNED_BUDGET: (u64, u64) = (16 << 20, 4 << 20);
/// Bodies of sign-ins, and those from one address: one for each connection that there can be.
const SIGN_IN_BUDGET: (u64, u64) = (16 << 20, 8 << 20);
/// Long bodies of authenticated callers, and those of one caller: two of the largest with what parsing them takes.
const LONG_BUDGET: (u64, u64) = (80 << 20, 40 << 20);
/// Long bodies whose signature is not verified yet, and those from one address.
const LONG_SIGNED_BUDGET: (u64, u64) = (40 << 20, 20 << 20);
/// Time limit of a body, without the extension by `MIN_BYTES_PER_S`.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Rate at which a longer body extends its time limit.
const MIN_BYTES_PER_S: u64 = 256 << 10;
/// A refused caller that is still sending is listened to for so long, so that it reads its answer.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Whose body is read: who proves more shares no budget with those who prove less.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum BodySender {
    /// A caller by its name: its token was checked.
    Verified(String),
    /// An address that sends a signature, which covers the body and is checked afterwards.
    Signed(IpAddr),
    /// An address that signs in.
    Unknown(IpAddr),
}

/// The memory that bodies have.
#[derive(Clone, Debug)]
pub(crate) struct BodyLimits {
    short: CallerLimit<BodySender>,
    short_signed: CallerLimit<BodySender>,
    sign_in: CallerLimit<BodySender>,
    long: CallerLimit<BodySender>,
    long_signed: CallerLimit<BodySender>,
}

/// A body, and its part of the budget until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct LimitedBody {
    pub(crate) bytes: Bytes,
    _share: Option<Reservation<BodySender>>,
}

impl Default for BodyLimits {
    fn default() -> Self {
        let shares = |(all, each)| CallerLimit::new(all, each);
        Self {
            short: shares(SHORT_BUDGET),
            short_signed: shares(SHORT_SIGNED_BUDGET),
            sign_in: shares(SIGN_IN_BUDGET),
            long: shares(LONG_BUDGET),
            long_signed: shares(LONG_SIGNED_BUDGET),
        }
    }
}

/// What the body of a call may have at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyMax {
    bytes: usize,
    values: u64,
}

/// The largest body of a call. Keys and ids come in lists; nothing else needs more than a few kilobytes.
pub(crate) fn max_of(method: &Method, path: &str) -> BodyMax {
    let carries = *method == Method::POST || *method == Method::PUT;
    let (bytes, values) = match path.rsplit('/').next().unwrap_or_default() {
        "tokens" => (SIGN_IN_MAX, SIGN_IN_VALUES),
        "task" | "tasks" | "taskgroups" | "sync-tasks" | "migration-task" if carries => {
            (KEYS_MAX, LIST_VALUES)
        }
        "events" | "cdn-info" | "batch-update" | "batch-stop" | "batch-restart" | "retry" if carries => {
            (LIST_MAX, LIST_VALUES)
        }
        _ => (SHORT_MAX, SHORT_VALUES),
    };
    BodyMax { bytes, values }
}

/// JSON values in a text, and how many of them are objects: an upper bound of both, without parsing. A text that is not JSON
/// has some number too.
fn count_values(text: &[u8]) -> (u64, u64) {
    let (mut values, mut objects, mut in_string, mut escaped) = (1, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' => {
                values += 1;
                objects += 1;
            }
            b'[' | b',' => values += 1,
            _ => {}
        }
    }
    (values, objects)
}

fn too_large() -> ApiError {
    ApiError::gateway(StatusCode::PAYLOAD_TOO_LARGE, "APIGW.0201", "Request entity too large.")
}

fn busy() -> ApiError {
    let m = "The throttling threshold has been reached: too many large requests at once; hint: retry in a few \
         seconds.";
    ApiError::gateway(StatusCode::TOO_MANY_REQUESTS, "APIGW.0308", m)
}

fn late() -> ApiError {
    let m = "The request body did not arrive in time; hint: check the network between client and service.";
    ApiError::gateway(StatusCode::REQUEST_TIMEOUT, "APIGW.0308", m)
}

fn broken() -> ApiError {
    ApiError::gateway(
        StatusCode::BAD_REQUEST,
        "APIGW.0308",
        "The request body was incomplete; hint: retry the request.",
    )
}

impl BodyLimits {
    fn shares(&self, sender: &BodySender, is_short: bool) -> &CallerLimit<BodySender> {
        match (sender, is_short) {
            (BodySender::Verified(_), true) => &self.short,
            (BodySender::Verified(_), false) => &self.long,
            (BodySender::Signed(_), true) => &self.short_signed,
            (BodySender::Signed(_), false) => &self.long_signed,
            (BodySender::Unknown(_), _) => &self.sign_in,
        }
    }

    /// The whole body, within its maximum. What is too large by its own words is refused before it is read. Its part of the
    /// budget includes what parsing it takes.
    pub(crate) async fn read(
        &self,
        sender: BodySender,
        headers: &HeaderMap,
        max: BodyMax,
        mut body: Body,
    ) -> Result<LimitedBody, ApiError> {
        let BodyMax { bytes: max, values: max_values } = max;
        let promised = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if promised.is_some_and(|length| length > max as u64) {
            refuse(headers, body);
            return Err(too_large());
        }
        // Long bodies leave room for short ones.
        let is_short = promised.map_or(max <= SHORT_MAX, |length| length <= SHORT_MAX as u64);
        let mut share = self.shares(&sender, is_short).reserve(sender, 0).ok_or_else(busy)?;
        let mut bytes = BytesMut::new();
        let began = Instant::now();
        loop {
            let until = began + BODY_TIMEOUT + Duration::from_secs(bytes.len() as u64 / MIN_BYTES_PER_S);
            let frame = match timeout_at(until, body.frame()).await {
                Err(_) => return Err(late()),
                Ok(None) => break,
                Ok(Some(Err(_))) => return Err(broken()),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            let refused = match () {
                () if bytes.len() + data.len() > max => too_large(),
                () if !share.grow(data.len() as u64) => busy(),
                () => {
                    bytes.extend_from_slice(&data);
                    continue;
                }
            };
            discard(body);
            return Err(refused);
        }
        let (values, objects) = count_values(&bytes);
        if values > max_values {
            return Err(too_large());
        }
        // Parsed texts are copies of parts of the body.
        if !share.grow(bytes.len() as u64 + values * VALUE_BYTES + objects * OBJECT_BYTES) {
            return Err(busy());
        }
        Ok(LimitedBody { bytes: bytes.freeze(), _share: Some(share) })
    }
}

/// Reads away a body that has no meaning for its call, within a short body's size and time: one that is left unread would end
/// the connection. Nothing is kept.
pub(crate) async fn skip(mut body: Body) -> Result<(), ApiError> {
    let mut left = SHORT_MAX;
    let until = Instant::now() + BODY_TIMEOUT;
    while !body.is_end_stream() {
        let frame = match timeout_at(until, body.frame()).await {
            Err(_) => return Err(late()),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(broken()),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        left = left.checked_sub(data.len()).ok_or_else(too_large)?;
    }
    Ok(())
}

/// True when the caller sends the body only after it was told `100 Continue`.
pub(crate) fn waits_for_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Ends a request whose body was not read so far. Reading it would send `100 Continue` to a caller that waits for that.
pub(crate) fn refuse(headers: &HeaderMap, body: Body) {
    if !waits_for_continue(headers) {
        discard(body);
    }
}

/// Reads away, for a short while and keeping nothing, what a refused caller is still sending: who sends before it reads
/// would not see the answer.
fn discard(mut body: Body) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let _ = timeout(DISCARD_TIMEOUT, async { while let Some(Ok(_)) = body.frame().await {} }).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const LONGEST: BodyMax = BodyMax { bytes: KEYS_MAX, values: LIST_VALUES };

    fn status(read: Result<LimitedBody, ApiError>) -> u16 {
        read.map_or_else(|e| e.status.as_u16(), |_| 200)
    }

    fn caller(name: &str) -> BodySender {
        BodySender::Verified(name.to_owned())
    }

    fn up_to(bytes: usize) -> BodyMax {
        BodyMax { bytes, values: SHORT_VALUES }
    }

    #[test]
    fn sec_f12_large_bodies_are_accepted_for_lists_only() {
        let max = |path: &str| max_of(&Method::POST, path).bytes;
        assert_eq!(max("/v2/p/tasks"), KEYS_MAX);
        assert_eq!(max("/v2/p/objectstorage/buckets/cdn-info"), LIST_MAX);
        assert_eq!(max("/v2/p/sync-tasks/1/events"), LIST_MAX);
        assert_eq!(max("/v2/p/tasks/1/start"), SHORT_MAX);
        assert_eq!(max("/v3/auth/tokens"), SIGN_IN_MAX);
        assert_eq!(max_of(&Method::GET, "/v2/p/tasks").bytes, SHORT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn sec_f12_body_limits_cover_size_time_and_memory() {
        let bodies = BodyLimits::default();
        let none = HeaderMap::new();
        let sent = |n: usize| Body::from(vec![b'x'; n]);
        assert_eq!(status(bodies.read(caller("a"), &none, up_to(10), sent(10)).await), 200);
        assert_eq!(status(bodies.read(caller("a"), &none, up_to(10), sent(11)).await), 413);
        let huge = HeaderMap::from_iter([(
            header::CONTENT_LENGTH,
            http::HeaderValue::from_static("100000000000000"),
        )]);
        assert_eq!(
            status(bodies.read(caller("a"), &huge, LONGEST, Body::empty()).await),
            413,
            "refused unread"
        );
        let longest = |name| bodies.read(caller(name), &none, LONGEST, sent(KEYS_MAX));
        let mut held = vec![];
        while let Ok(body) = longest("a").await {
            held.push(body);
        }
        let bytes = (held.len() * KEYS_MAX * 2) as u64;
        assert!(held.len() >= 2 && bytes <= LONG_BUDGET.1, "{} of the largest at once", held.len());
        assert_eq!(status(longest("b").await), 200, "another caller has a share");
        drop(held);
        assert_eq!(status(longest("a").await), 200);
    }

    #[tokio::test]
    async fn sec_f12_memory_of_parsed_json_is_limited() {
        let bodies = BodyLimits::default();
        let none = HeaderMap::new();
        for item in ["0", "[]", "{\"\":0}", "{}"] {
            let many = format!("{{\"a\":[{}]}}", vec![item; LIST_VALUES as usize].join(","));
            let read = bodies.read(caller("a"), &none, LONGEST, Body::from(many)).await;
            assert_eq!(status(read), 413, "{item}");
        }
        let objects = format!("[{}]", vec!["{\"\":0}"; LIST_VALUES as usize / 3].join(","));
        let mut held = vec![];
        while let Ok(body) = bodies.read(caller("a"), &none, LONGEST, Body::from(objects.clone())).await {
            held.push(body);
        }
        let parsed = held.len() as u64 * LIST_VALUES / 3 * (OBJECT_BYTES + VALUE_BYTES);
        assert!(!held.is_empty() && parsed <= LONG_BUDGET.1, "{} bodies are parsed at once", held.len());
        // What the documented bounds allow is accepted: 500 keys of 1,024 characters, escaped.
        let key = format!("\"{}\"", "\\u65e5".repeat(1024));
        let keys = format!("{{\"src_node\":{{\"object_key\":[{}]}}}}", vec![key; 500].join(","));
        assert_eq!(status(bodies.read(caller("b"), &none, LONGEST, Body::from(keys)).await), 200);
    }

    #[test]
    fn sec_f12_json_values_are_counted_outside_of_strings() {
        for (text, values, objects) in [
            ("", 1, 0),
            ("[0,0]", 3, 0),
            (r#"{"a":{},"b":[[]]}"#, 6, 2),
            (r#""[{,\"[{,""#, 1, 0),
            (r#"["\\",[]]"#, 4, 0),
        ] {
            assert_eq!(count_values(text.as_bytes()), (values, objects), "{text}");
        }
    }

    /// Callers that prove nothing take no memory from those that do, nor do those that only claim an access key.
    #[tokio::test]
    async fn sec_f12_bodies_of_strangers_leave_room_for_authenticated_callers() {
        let bodies = BodyLimits::default();
        let none = HeaderMap::new();
        let max = up_to(SHORT_MAX);
        let mut held = vec![];
        for i in 0..=255 {
            let from = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, i));
            for sender in [BodySender::Unknown(from), BodySender::Signed(from)] {
                while let Ok(body) =
                    bodies.read(sender.clone(), &none, max, Body::from(vec![b'x'; SHORT_MAX])).await
                {
                    held.push(body);
                }
            }
        }
        assert!(held.len() > 100);
        assert_eq!(status(bodies.read(caller("a"), &none, max, Body::from("{}")).await), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn sec_f12_body_without_meaning_is_read_away_within_limits() {
        assert!(skip(Body::from("{}")).await.is_ok());
        assert_eq!(skip(Body::from(vec![b'x'; SHORT_MAX + 1])).await.unwrap_err().status, 413);
        assert_eq!(skip(Body::new(Never)).await.unwrap_err().status, 408);
    }

    /// A body of which nothing arrives.
    struct Never;

    impl http_body::Body for Never {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sec_f06_missing_body_times_out() {
        let began = Instant::now();
        let sender = BodySender::Unknown(FROM);
        let read = BodyLimits::default().read(sender, &HeaderMap::new(), up_to(10), Body::new(Never)).await;
        assert_eq!(status(read), 408);
        assert!((BODY_TIMEOUT..BODY_TIMEOUT * 2).contains(&began.elapsed()));
    }
}
