//! Ends a connection whose client does not read its response, or reads it so slowly that it would keep it in memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Time in which a client that keeps the service waiting must have read [`MIN_READ_BYTES`].
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that a slow client must read in [`WRITE_TIMEOUT`]: 8.5 KiB/s.
const MIN_READ_BYTES: usize = 256 << 10;

/// A connection with a least rate for what is written to it.
#[derive(Debug)]
pub(crate) struct WriteTimeout<S> {
    stream: S,
    timeout: Duration,
    /// Since a write had to wait: the end of the period, and the bytes that were written in it.
    blocked: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> WriteTimeout<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, timeout: WRITE_TIMEOUT, blocked: None }
    }

    /// Nothing is left to write.
    fn done(&mut self) {
        self.blocked = None;
    }

    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let timeout = self.timeout;
        let (end, written) = self.blocked.get_or_insert_with(|| (Box::pin(tokio::time::sleep(timeout)), 0));
        while end.as_mut().poll(cx).is_ready() {
            if *written < MIN_READ_BYTES {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")));
            }
            *written = 0;
            end.as_mut().reset(Instant::now() + timeout);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_write(cx, buf) {
            Poll::Pending => this.poll_blocked(cx),
            Poll::Ready(done) => {
                if let (Some((_, written)), Ok(n)) = (&mut this.blocked, &done) {
                    *written += n;
                }
                Poll::Ready(done)
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_flush(cx) {
            // TLS writes what it has buffered when it is flushed.
            Poll::Pending => this.poll_blocked(cx).map_ok(drop),
            Poll::Ready(done) => {
                this.done();
                Poll::Ready(done)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_shutdown(cx) {
            Poll::Pending => this.poll_blocked(cx).map_ok(drop),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Writes 4 MiB to a client that reads pieces of so many bytes, each when the one before has been waited for.
    async fn write_to_reader(piece: usize, timeout: Duration) -> io::Result<()> {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; piece];
            while piece > 0 && theirs.read_exact(&mut buffer).await.is_ok() {
                tokio::task::yield_now().await;
            }
            // The connection stays open.
            std::future::pending::<()>().await;
        });
        let mut stream = WriteTimeout { timeout, ..WriteTimeout::new(ours) };
        let written = stream.write_all(&vec![0; 4 << 20]).await;
        reader.abort();
        written
    }

    #[tokio::test]
    async fn h2_client_that_does_not_read_loses_its_connection() {
        let refused = write_to_reader(0, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        assert!(write_to_reader(16 << 10, WRITE_TIMEOUT).await.is_ok(), "one that reads is waited for");
    }
}
