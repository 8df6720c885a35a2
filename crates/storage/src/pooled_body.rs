//! The body of a response, which gives its connection back to the pool when it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use model::error::{Error, Kind, Result};

use crate::idle::IdlePool;

/// No progress for this long, neither sent nor answered, and a request fails as timed out.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A response body that gives its connection back when it ends.
#[derive(Debug)]
pub struct PooledBody<C> {
    incoming: Incoming,
    connection: Option<(Arc<IdlePool<C>>, C)>,
}

impl<C> PooledBody<C> {
    /// The body of an answer; `connection` is free for the next request when the body ends.
    pub(crate) fn new(incoming: Incoming, idle: Arc<IdlePool<C>>, connection: C) -> Self {
        let mut body = Self { incoming, connection: Some((idle, connection)) };
        body.release_if_ended();
        body
    }

    /// The next bytes; none at the end.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
            return Poll::Ready(match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => {
                        self.release_if_ended();
                        Some(Ok(data))
                    }
                    Err(_trailers) => continue,
                },
                Some(Err(e)) => {
                    Some(Err(Error::new(Kind::Connect, "read", format!("connection lost: {e}")).caused_by(e)))
                }
                None => {
                    self.release();
                    None
                }
            });
        }
    }

    /// The next bytes of an answer whose length is not known; none at its end.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let incoming = &mut self.incoming;
            let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *incoming), cx));
            match tokio::time::timeout(STALL_TIMEOUT, frame).await {
                Err(_) => return Err(Error::new(Kind::Timeout, "read", "the response stalled")),
                Ok(None) => {
                    self.release();
                    return Ok(None);
                }
                Ok(Some(Err(e))) => return Err(Error::new(Kind::Connect, "read", e.to_string())),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Called at the end of the body: the connection is free for the next request.
    fn release(&mut self) {
        if let Some((idle, connection)) = self.connection.take() {
            idle.put(connection);
        }
    }

    fn release_if_ended(&mut self) {
        if http_body::Body::is_end_stream(&self.incoming) {
            self.release();
        }
    }
}
