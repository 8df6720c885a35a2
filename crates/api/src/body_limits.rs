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
use flow_control::caller_limit::{CallerLimit, Reservation, caller_of};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::ApiError;

/// Largest body of a call that carries a list (auth.md §2.5).
const LIST_MAX: usize = 12 << 20;
/// Largest body of any other call.
const SHORT_MAX: usize = 64 << 10;
/// Largest body of a sign-in.
const SIGN_IN_MAX: usize = 16 << 10;
/// Short bodies together, and those from one address.
const SHORT_BUDGET: (u64, u64) = (16 << 20, 4 << 20);
/// Long bodies of callers that are known, and those from one address: two of the largest.
const LONG_BUDGET: (u64, u64) = (40 << 20, 24 << 20);
/// Long bodies whose signature is about the body, so that their caller is not known yet: one of the largest for an address.
const UNVERIFIED_BUDGET: (u64, u64) = (24 << 20, 12 << 20);
/// A body has so long, and longer for what has come already, at this rate a second.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const MIN_BYTES_PER_S: u64 = 256 << 10;
/// A refused caller that is still sending is listened to for so long, so that it reads its answer.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The memory that bodies have.
#[derive(Clone, Debug)]
pub(crate) struct BodyLimits {
    short: CallerLimit<IpAddr>,
    long: CallerLimit<IpAddr>,
    unverified: CallerLimit<IpAddr>,
}

/// A body, and its part of the budget until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct LimitedBody {
    pub(crate) bytes: Bytes,
    _share: Option<Reservation<IpAddr>>,
}

impl Default for BodyLimits {
    fn default() -> Self {
        let shares = |(all, each)| CallerLimit::new(all, each);
        Self { short: shares(SHORT_BUDGET), long: shares(LONG_BUDGET), unverified: shares(UNVERIFIED_BUDGET) }
    }
}

/// The largest body of a call. Keys, events and ids come in lists; nothing else needs more than a few kilobytes.
pub(crate) fn max_of(method: &Method, path: &str) -> usize {
    let carries = *method == Method::POST || *method == Method::PUT || *method == Method::DELETE;
    match path.rsplit('/').next().unwrap_or_default() {
        "tokens" => SIGN_IN_MAX,
        "task" | "tasks" | "taskgroups" | "sync-tasks" | "events" | "cdn-info" | "batch-update"
        | "batch-stop" | "batch-restart" | "delete" | "retry"
            if carries =>
        {
            LIST_MAX
        }
        _ => SHORT_MAX,
    }
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
    /// The whole body, of at most `max` bytes. What is too large by its own words is refused before it is read.
    pub(crate) async fn read(
        &self,
        from: IpAddr,
        known: bool,
        headers: &HeaderMap,
        max: usize,
        mut body: Body,
    ) -> Result<LimitedBody, ApiError> {
        let promised = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if promised.is_some_and(|length| length > max as u64) {
            refuse(headers, body);
            return Err(too_large());
        }
        // Long bodies leave room for short ones, and those that nothing proves leave room for others.
        let is_short = promised.map_or(max <= SHORT_MAX, |length| length <= SHORT_MAX as u64);
        let shares = match (is_short, known) {
            (true, _) => &self.short,
            (false, true) => &self.long,
            (false, false) => &self.unverified,
        };
        let mut share = shares.reserve(caller_of(from), 0).ok_or_else(busy)?;
        let mut bytes = BytesMut::new();
        let began = Instant::now();
        loop {
            let until = began + BODY_TIMEOUT + Duration::from_secs(bytes.len() as u64 / MIN_BYTES_PER_S);
            let frame = match timeout_at(until, body.frame()).await {
                Err(_) => return Err(late()),
                Ok(None) => return Ok(LimitedBody { bytes: bytes.freeze(), _share: Some(share) }),
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
    }
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

    fn status(read: Result<LimitedBody, ApiError>) -> u16 {
        read.map_or_else(|e| e.status.as_u16(), |_| 200)
    }

    #[test]
    fn sec_f12_large_bodies_are_accepted_for_lists_only() {
        let max = |path: &str| max_of(&Method::POST, path);
        assert_eq!(max("/v2/p/tasks"), LIST_MAX);
        assert_eq!(max("/v2/p/sync-tasks/1/events"), LIST_MAX);
        assert_eq!(max("/v2/p/tasks/1/start"), SHORT_MAX);
        assert_eq!(max("/v3/auth/tokens"), SIGN_IN_MAX);
        assert_eq!(max_of(&Method::GET, "/v2/p/tasks"), SHORT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn sec_f12_body_limits_cover_size_time_and_memory() {
        let bodies = BodyLimits::default();
        let none = HeaderMap::new();
        let sent = |n: usize| Body::from(vec![b'x'; n]);
        assert_eq!(status(bodies.read(FROM, true, &none, 10, sent(10)).await), 200);
        assert_eq!(status(bodies.read(FROM, true, &none, 10, sent(11)).await), 413);
        let huge = HeaderMap::from_iter([(
            header::CONTENT_LENGTH,
            http::HeaderValue::from_static("100000000000000"),
        )]);
        assert_eq!(
            status(bodies.read(FROM, true, &huge, LIST_MAX, Body::empty()).await),
            413,
            "refused unread"
        );
        // Two of the largest are all that one address has.
        let first = bodies.read(FROM, true, &none, LIST_MAX, sent(LIST_MAX)).await;
        let second = bodies.read(FROM, true, &none, LIST_MAX, sent(LIST_MAX)).await;
        assert_eq!(status(bodies.read(FROM, true, &none, LIST_MAX, sent(1)).await), 429);
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(status(bodies.read(other, true, &none, LIST_MAX, sent(1)).await), 200);
        drop((first, second));
        assert_eq!(status(bodies.read(FROM, true, &none, LIST_MAX, sent(1)).await), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn sec_f06_missing_body_times_out() {
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
        let began = Instant::now();
        let read = BodyLimits::default().read(FROM, true, &HeaderMap::new(), 10, Body::new(Never)).await;
        assert_eq!(status(read), 408);
        assert!((BODY_TIMEOUT..BODY_TIMEOUT * 2).contains(&began.elapsed()));
    }
}
