//! A connection that acknowledges at once where the server waits for it.
//!
//! A server that writes the head and the body of an answer separately, with Nagle's algorithm on, holds the body back
//! until the head is acknowledged; the kernel here acknowledges after 40 ms. The pause between two reads of one answer
//! shows it. From then on, every read from that endpoint is acknowledged at once: one system call for each.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The kernel's delay of an acknowledgement (`TCP_DELACK_MIN`), with what a busy machine adds.
const DELAYED_ACK: std::ops::RangeInclusive<Duration> = Duration::from_millis(38)..=Duration::from_millis(60);

/// Whether the connections to one endpoint must acknowledge at once; learned by any of them.
pub(crate) type QuickAck = Arc<AtomicBool>;

/// A connection that measures the pauses within an answer.
#[derive(Debug)]
pub(crate) struct AckStream {
    tcp: TcpStream,
    at_once: QuickAck,
    /// When bytes of the present answer last came.
    came: Option<Instant>,
}

impl AckStream {
    pub(crate) fn new(tcp: TcpStream, at_once: QuickAck) -> Self {
        Self { tcp, at_once, came: None }
    }

    fn bytes_came(&mut self) {
        if !self.at_once.load(Ordering::Relaxed) {
            let now = Instant::now();
            let delayed = self.came.replace(now).is_some_and(|then| DELAYED_ACK.contains(&(now - then)));
            if !delayed {
                return;
            }
            self.at_once.store(true, Ordering::Relaxed);
        }
        // The kernel forgets the option, so it is set again each time. Without it the answer is only later.
        #[cfg(target_os = "linux")]
        let _ = self.tcp.set_quickack(true);
    }
}

impl AsyncRead for AckStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.bytes_came();
        }
        read
    }
}

impl AsyncWrite for AckStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.came = None;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.came = None;
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers each request of one byte in two packets, the second `pause` behind the first.
    #[expect(clippy::disallowed_methods, reason = "a test connects to the server that it starts")]
    async fn answers(pause: Duration) -> AckStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            peer.set_nodelay(true).unwrap();
            while peer.read_u8().await.is_ok() {
                peer.write_all(b"head").await.unwrap();
                tokio::time::sleep(pause).await;
                peer.write_all(b"body").await.unwrap();
            }
        });
        AckStream::new(TcpStream::connect(addr).await.unwrap(), QuickAck::default())
    }

    #[tokio::test]
    async fn pause_of_40_ms_within_a_response_enables_quick_ack() {
        let mut stream = answers(Duration::from_millis(42)).await;
        let mut answer = [0; 8];
        for _ in 0..20 {
            stream.write_all(b"?").await.unwrap();
            stream.read_exact(&mut answer).await.unwrap();
        }
        assert!(stream.at_once.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn pause_between_requests_does_not_enable_quick_ack() {
        let mut stream = answers(Duration::ZERO).await;
        let mut answer = [0; 8];
        for _ in 0..5 {
            stream.write_all(b"?").await.unwrap();
            stream.read_exact(&mut answer).await.unwrap();
            stream.came = stream.came.map(|then| then - Duration::from_millis(45));
        }
        assert!(!stream.at_once.load(Ordering::Relaxed));
    }
}
