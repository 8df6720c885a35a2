//! Bytes in flight: from a connection, a file or memory, handed on without being collected.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use flow_control::budget::{Bandwidth, Ticket};
use http_body::{Frame, SizeHint};
use hyper::client::conn::http1::SendRequest;
use model::error::{Error, Kind, Result};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use crate::capability::WriteCrc;
use crate::checksum::{DigestSet, Digests, Hasher, crc64_of};
use crate::framed::{ChunkSource, Framed};
use crate::pooled_body::PooledBody;

pub use crate::observation::Observation;

/// No chunk for this long, and the read fails as timed out.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends requests over one connection.
pub(crate) type Sender = SendRequest<Body>;
/// A response body that gives its connection back when it ends.
pub type ResponseBody = PooledBody<Sender>;

/// A stream of bytes of known length.
#[derive(Debug)]
pub struct Body {
    source: Source,
    len: u64,
    left: u64,
    /// MD5 that the bytes are to have, for stores that check it.
    md5: Option<[u8; 16]>,
    /// How the CRC-64/NVME of the bytes can be sent with them.
    write_crc: WriteCrc,
    observer: Option<Box<Observer>>,
    idle: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Source {
    Memory(Bytes),
    Wire(Box<ResponseBody>),
    Channel(mpsc::Receiver<Result<Bytes>>),
    Body(Box<Body>),
    Chain(VecDeque<Body>),
    Framed(Box<Framed<Body>>),
}

/// Checks the digests of a whole stream: an error if they differ from those of the source.
#[derive(Clone)]
pub struct StreamCheck(Arc<CheckDigests>);

type CheckDigests = dyn Fn(&Digests) -> Result<()> + Send + Sync;

impl StreamCheck {
    /// A check by a function.
    pub fn new(check: impl Fn(&Digests) -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }
}

impl std::fmt::Debug for StreamCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamCheck")
    }
}

/// How the bytes of one transfer are observed.
#[derive(Clone, Debug, Default)]
pub struct ObserverOptions {
    /// Digests to compute.
    pub wanted: DigestSet,
    /// Slows the stream down.
    pub bandwidth: Option<Arc<Bandwidth>>,
    /// Bytes that were paid for before the stream began.
    pub prepaid: u64,
    /// Counts every byte that passes, for progress and for noticing stalls.
    pub moved: Arc<AtomicU64>,
    /// Asked before the last bytes are handed on: a receiver never gets all of a stream that is wrong, and publishes
    /// nothing.
    pub check: Option<StreamCheck>,
}

#[derive(Debug)]
struct Observer {
    hasher: Hasher,
    check: Option<StreamCheck>,
    bandwidth: Option<Arc<Bandwidth>>,
    prepaid: u64,
    moved: Arc<AtomicU64>,
    seen: Observation,
    delayed: Option<DelayedChunk>,
}

/// A chunk that waits until it may be handed on.
#[derive(Debug)]
struct DelayedChunk {
    chunk: Bytes,
    ticket: Ticket,
    sleep: Pin<Box<Sleep>>,
}

impl Observer {
    /// The chunk that waits, once it is paid for.
    fn poll_delayed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(unpaid) = &mut self.delayed else { return Poll::Ready(None) };
        loop {
            ready!(unpaid.sleep.as_mut().poll(cx));
            let due = self.bandwidth.as_ref().and_then(|b| b.due(unpaid.ticket));
            let Some(wait) = due else { break };
            unpaid.sleep.as_mut().reset(Instant::now() + wait);
        }
        Poll::Ready(self.delayed.take().map(|u| u.chunk))
    }

    /// What is to be paid for a chunk of `n` bytes before it is handed on.
    fn charge(&mut self, n: u64) -> Option<Ticket> {
        let paid = n.min(self.prepaid);
        self.prepaid -= paid;
        let bandwidth = self.bandwidth.as_ref()?;
        let ticket = bandwidth.reserve(n - paid)?;
        bandwidth.due(ticket).map(|_| ticket)
    }
}

impl Body {
    fn from_source(source: Source, len: u64) -> Self {
        Self { source, len, left: len, md5: None, write_crc: WriteCrc::None, observer: None, idle: None }
    }

    /// The same bytes, with the MD5 that they are to have: a store that checks it refuses others.
    #[must_use]
    pub fn with_md5(self, md5: [u8; 16]) -> Self {
        Self { md5: Some(md5), ..self }
    }

    /// The MD5 that the bytes are to have, where it is known before they are sent.
    pub fn md5(&self) -> Option<[u8; 16]> {
        self.md5
    }

    /// The same bytes, to be sent with a CRC-64/NVME as the store verifies it.
    #[must_use]
    pub fn with_write_crc(self, write_crc: WriteCrc) -> Self {
        Self { write_crc, ..self }
    }

    /// How the CRC-64/NVME of the bytes can be sent with them.
    pub fn write_crc(&self) -> WriteCrc {
        self.write_crc
    }

    /// The CRC-64/NVME of bytes that are in memory.
    pub(crate) fn crc64_in_memory(&self) -> Option<u64> {
        let Source::Memory(bytes) = &self.source else { return None };
        Some(crc64_of(bytes))
    }

    /// The bytes in `aws-chunked` framing, with their CRC-64/NVME behind them. The observer of the bytes computes
    /// it in the same pass.
    pub(crate) fn framed(mut self) -> Body {
        let seen = match &mut self.observer {
            Some(observer) => {
                observer.hasher.want_crc64();
                observer.seen.clone()
            }
            None => {
                let options = ObserverOptions {
                    wanted: DigestSet { crc64_nvme: true, ..DigestSet::default() },
                    ..ObserverOptions::default()
                };
                let seen;
                (self, seen) = self.observed(&options);
                seen
            }
        };
        let len = Framed::<Body>::len_of(self.len);
        Self::from_source(Source::Framed(Box::new(Framed::new(self, seen))), len)
    }

    /// The MD5 of bytes that are in memory.
    pub fn md5_in_memory(&self) -> Option<[u8; 16]> {
        let Source::Memory(bytes) = &self.source else { return None };
        let mut hasher = Hasher::new(DigestSet { md5: true, ..DigestSet::default() });
        hasher.update(bytes);
        hasher.finish().md5
    }

    /// Bytes in memory.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let len = bytes.len() as u64;
        Self::from_source(Source::Memory(bytes), len)
    }

    /// The body of a response of exactly `len` bytes.
    pub(crate) fn wire(body: ResponseBody, len: u64) -> Self {
        Self::from_source(Source::Wire(Box::new(body)), len)
    }

    /// Chunks from another thread, `len` bytes in all.
    pub fn channel(receiver: mpsc::Receiver<Result<Bytes>>, len: u64) -> Self {
        Self::from_source(Source::Channel(receiver), len)
    }

    /// Several bodies, one after the other.
    pub fn chain(bodies: impl IntoIterator<Item = Body>) -> Self {
        let bodies: VecDeque<Body> = bodies.into_iter().collect();
        let len = bodies.iter().map(Body::len).sum();
        Self::from_source(Source::Chain(bodies), len)
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True when there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Observes the bytes as `options` say; the second value has the results.
    pub fn observed(self, options: &ObserverOptions) -> (Body, Observation) {
        let seen = Observation::default();
        let len = self.len;
        let observer = Observer {
            hasher: Hasher::new(options.wanted),
            check: options.check.clone(),
            bandwidth: options.bandwidth.clone(),
            prepaid: options.prepaid,
            moved: options.moved.clone(),
            seen: seen.clone(),
            delayed: None,
        };
        let mut body =
            if self.observer.is_some() { Body::from_source(Source::Body(Box::new(self)), len) } else { self };
        if len == 0 {
            seen.set(Some(observer.hasher.finish()), None);
        }
        body.observer = Some(Box::new(observer));
        (body, seen)
    }

    /// A counter that rises while bytes pass, for noticing a stall.
    pub(crate) fn progress(&self) -> Option<Arc<AtomicU64>> {
        match (&self.observer, &self.source) {
            (Some(observer), _) => Some(observer.moved.clone()),
            (None, Source::Chain(bodies)) => bodies.iter().find_map(Body::progress),
            (None, Source::Framed(framed)) => framed.body().progress(),
            _ => None,
        }
    }

    /// The next chunk; none at the end. A stream shorter or longer than promised is [`Kind::Corrupt`].
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if let Some(observer) = &mut self.observer
            && let Some(chunk) = ready!(observer.poll_delayed(cx))
        {
            return Poll::Ready(Some(Ok(chunk)));
        }
        let item = match self.poll_source(cx) {
            Poll::Ready(item) => item,
            Poll::Pending => return self.poll_idle(cx),
        };
        if let Some(idle) = &mut self.idle {
            idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
        }
        match item {
            Some(Ok(chunk)) => self.pass_on(chunk, cx),
            Some(Err(failure)) => Poll::Ready(Some(Err(self.failed(failure)))),
            None if self.left > 0 => {
                let short = format!("the body ended {} bytes early (expected {} bytes)", self.left, self.len);
                Poll::Ready(Some(Err(self.failed(Error::new(Kind::Corrupt, "read", short)))))
            }
            None => Poll::Ready(None),
        }
    }

    #[inline]
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        match &mut self.source {
            Source::Memory(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Memory(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Source::Wire(body) => body.poll_chunk(cx),
            Source::Channel(receiver) => receiver.poll_recv(cx),
            Source::Body(body) => body.poll_chunk(cx),
            Source::Framed(framed) => framed.poll_chunk(cx),
            Source::Chain(bodies) => loop {
                let Some(first) = bodies.front_mut() else { break Poll::Ready(None) };
                match ready!(first.poll_chunk(cx)) {
                    None => drop(bodies.pop_front()),
                    item => break Poll::Ready(item),
                }
            },
        }
    }

    /// Fails a body that has had no data for [`IDLE_TIMEOUT`].
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(IDLE_TIMEOUT)));
        if idle.as_mut().poll(cx).is_ready() {
            let late = Error::new(Kind::Timeout, "read", "no data received for 60 s");
            return Poll::Ready(Some(Err(self.failed(late))));
        }
        Poll::Pending
    }

    /// Counts, hashes and passes on a chunk; over the bandwidth, it is kept back until it may be passed on.
    #[inline]
    fn pass_on(&mut self, chunk: Bytes, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let n = chunk.len() as u64;
        if n > self.left {
            let long = format!("received more than the expected {} bytes", self.len);
            return Poll::Ready(Some(Err(self.failed(Error::new(Kind::Corrupt, "read", long)))));
        }
        self.left -= n;
        if let Some(observer) = &mut self.observer {
            observer.hasher.update(&chunk);
            observer.moved.fetch_add(n, Ordering::Relaxed);
            if self.left == 0 {
                let digests = observer.hasher.finish();
                observer.seen.set(Some(digests), None);
                if let Some(Err(wrong)) = observer.check.take().map(|check| (check.0)(&digests)) {
                    return Poll::Ready(Some(Err(self.failed(wrong))));
                }
            }
            if let Some(ticket) = observer.charge(n) {
                let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
                observer.delayed = Some(DelayedChunk { chunk, ticket, sleep });
                return self.poll_chunk(cx);
            }
        }
        Poll::Ready(Some(Ok(chunk)))
    }

    fn delayed_len(&self) -> u64 {
        self.observer.as_ref().and_then(|t| t.delayed.as_ref()).map_or(0, |u| u.chunk.len() as u64)
    }

    fn failed(&mut self, failure: Error) -> Error {
        if let Some(observer) = &self.observer {
            observer.seen.set(None, Some(failure.clone()));
        }
        failure
    }

    /// The next chunk.
    pub async fn chunk(&mut self) -> Option<Result<Bytes>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// All bytes, refused when there are more than `max`.
    pub async fn collect(mut self, max: u64) -> Result<Bytes> {
        if self.len > max {
            let m = format!("{} bytes exceed the maximum of {max}", self.len);
            return Err(Error::new(Kind::TooLarge, "read", m));
        }
        let mut all = Vec::with_capacity(usize::try_from(self.len).unwrap_or(0));
        while let Some(chunk) = self.chunk().await {
            let chunk = chunk?;
            if chunk.len() as u64 == self.len {
                return Ok(chunk);
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }
}

impl ChunkSource for Body {
    fn len(&self) -> u64 {
        self.len
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        Body::poll_chunk(self, cx)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        self.get_mut().poll_chunk(cx).map(|item| item.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.delayed_len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left + self.delayed_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn truncated_body_is_an_error() {
        let (tx, rx) = mpsc::channel(1);
        tx.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
        drop(tx);
        let err = Body::channel(rx, 5).collect(10).await.unwrap_err();
        assert_eq!(err.kind, Kind::Corrupt);
    }

    #[tokio::test]
    async fn tap_reports_digests_and_byte_counts() {
        let options = ObserverOptions {
            wanted: DigestSet { md5: true, ..DigestSet::default() },
            ..ObserverOptions::default()
        };
        let (body, seen) = Body::bytes("123456789").observed(&options);
        body.collect(100).await.unwrap();
        assert_eq!(options.moved.load(Ordering::Relaxed), 9);
        let md5 = seen.digests().and_then(|d| d.md5).unwrap();
        assert_eq!(crate::checksum::hex(&md5), "25f9e794323b453885f5181f1b624d0b");
    }

    #[tokio::test]
    async fn wrong_stream_ends_before_its_last_bytes() {
        let (tx, rx) = mpsc::channel(2);
        tx.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
        tx.send(Ok(Bytes::from_static(b"de"))).await.unwrap();
        let wrong = || Error::new(Kind::Mismatch, "read", "other bytes");
        let options = ObserverOptions {
            check: Some(StreamCheck::new(
                move |digests| if digests.bytes == 5 { Err(wrong()) } else { Ok(()) },
            )),
            ..ObserverOptions::default()
        };
        let (mut body, seen) = Body::channel(rx, 5).observed(&options);
        assert_eq!(body.chunk().await.unwrap().unwrap(), "abc");
        assert_eq!(body.chunk().await.unwrap().unwrap_err().kind, Kind::Mismatch);
        assert_eq!(seen.failure().unwrap().kind, Kind::Mismatch);
    }

    #[tokio::test]
    async fn body_over_the_limit_is_rejected_unread() {
        assert_eq!(Body::bytes("12345").collect(4).await.unwrap_err().kind, Kind::TooLarge);
    }
}
