//! Requests that were received and responses that are sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::State;
use crate::content::Content;

/// A body that is a range of a content, cut short when it is to fail.
pub(super) struct ResponseBody {
    pub(super) content: Content,
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) promised: u64,
    /// The length is told before the body.
    pub(super) sized: bool,
    pub(super) state: Option<Arc<State>>,
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

pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<ResponseBody> {
    let content = Content::Given(text.into());
    let end = content.len();
    let mut response =
        Response::new(ResponseBody { content, at: 0, end, promised: end, sized: true, state: None });
    *response.status_mut() = status;
    response
}

pub(super) fn error(status: StatusCode, code: &str) -> Response<ResponseBody> {
    text(
        status,
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>scripted</Message></Error>"),
    )
}

#[derive(Clone)]
pub(super) struct ParsedRequest {
    pub(super) method: Method,
    pub(super) bucket: String,
    pub(super) key: Vec<u8>,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
}

impl ParsedRequest {
    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|p| {
            let (n, v) = p.split_once('=').unwrap_or((p, ""));
            (n == name).then(|| {
                String::from_utf8_lossy(&storage::s3::list_parser::percent_decode(v.as_bytes(), false))
                    .into_owned()
            })
        })
    }

    pub(super) fn range(&self, len: u64) -> Option<std::ops::Range<u64>> {
        let text = self.headers.get("range")?.to_str().ok()?.strip_prefix("bytes=")?;
        let (from, to) = text.split_once('-')?;
        let from: u64 = from.parse().ok()?;
        let to = to.parse::<u64>().map_or(len, |t| t + 1).min(len);
        (from < to).then_some(from..to)
    }
}
