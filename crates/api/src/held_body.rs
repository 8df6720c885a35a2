//! Bodies of responses on their way to a client. While one is not written, its request keeps its permit and the bytes count
//! against a bound: a client that does not read takes no more memory than that.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flow_control::caller_limit::{CallerLimit, Reservation};
use http::StatusCode;
use http_body::{Frame, SizeHint};

use crate::error::ApiError;
use control::request_limits::RequestPermit;

/// Bytes of bodies that are being written, of all callers.
const MAX_BYTES: u64 = 96 << 20;
/// Of one project, or of one caller where the path names no project.
const MAX_BYTES_PER_CALLER: u64 = 32 << 20;
/// Smaller bodies are bounded by the number of requests.
const SMALL_BODY_BYTES: u64 = 64 << 10;
/// Bytes that are handed to the connection at once: it asks for more when it has written them.
const PIECE_BYTES: usize = 16 << 10;

/// The bytes; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct BodyBytes(CallerLimit<String>);

impl Default for BodyBytes {
    fn default() -> Self {
        Self(CallerLimit::new(MAX_BYTES, MAX_BYTES_PER_CALLER))
    }
}

impl BodyBytes {
    /// The response, whose body keeps the permit of its request and its bytes until it is written; a refusal when `caller`
    /// has too much to read already.
    pub(crate) fn hold(&self, response: Response, caller: &str, permit: RequestPermit) -> Response {
        let size = http_body::Body::size_hint(response.body()).exact().unwrap_or(0);
        let reservation = match size {
            0..=SMALL_BODY_BYTES => None,
            _ => match self.0.reserve(caller.to_owned(), size) {
                Some(reservation) => Some(reservation),
                None => {
                    let m = "Too many responses of this project are not read yet; hint: read them, or ask for shorter lists.";
                    return ApiError::gateway(StatusCode::TOO_MANY_REQUESTS, "APIGW.0308", m).into_response();
                }
            },
        };
        let held =
            |body| Body::new(HeldBody { body, rest: Bytes::new(), _permit: permit, _bytes: reservation });
        response.map(held)
    }
}

struct HeldBody {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
    _permit: RequestPermit,
    _bytes: Option<Reservation<String>>,
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use control::request_limits::RequestLimits;

    const FROM: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[tokio::test]
    async fn h2_body_that_is_not_read_keeps_its_permit_and_its_bytes() {
        let (bytes, requests) = (BodyBytes::default(), RequestLimits::default());
        let page = || vec![7; 6 << 20].into_response();
        let answer = |caller: &str| bytes.hold(page(), caller, requests.begin(caller, FROM).unwrap());
        let mut unread: Vec<Response> = (0..6).map(|_| answer("a")).collect();
        assert_eq!(requests.held_by("a"), 5, "the permits of five");
        assert_eq!(unread.pop().unwrap().status(), StatusCode::TOO_MANY_REQUESTS, "32 MiB of one project");
        assert_eq!(answer("b").status(), StatusCode::OK, "another project");
        let first = unread.pop().unwrap();
        assert_eq!(http_body::Body::size_hint(first.body()).exact(), Some(6 << 20));
        let mut body = first.into_body();
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((frame.len(), requests.held_by("a")), (PIECE_BYTES, 5));
        assert_eq!(body.collect().await.unwrap().to_bytes().len() + PIECE_BYTES, 6 << 20);
        assert_eq!((requests.held_by("a"), answer("a").status()), (4, StatusCode::OK));
    }
}
