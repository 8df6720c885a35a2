//! Gives error responses of the HTTP library the body that every other error has.
//!
//! hyper answers a request that it cannot parse with a head alone, and has no hook for it. Such an answer is known by
//! three marks: a status of 4xx, no content, and no request id, which every answer of the API carries.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest head that hyper writes itself is about 150 bytes.
const HEAD_MAX: usize = 512;

/// A connection whose error responses without a body get one.
#[derive(Debug)]
pub(crate) struct HttpErrorBody<S> {
    stream: S,
    /// The response that replaces the one being written, and how many of its bytes are written.
    instead: Option<(Vec<u8>, usize)>,
}

impl<S> HttpErrorBody<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, instead: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpErrorBody<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HttpErrorBody<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_none() {
            match status_without_body(buf) {
                Some(status) => this.instead = Some((error_response(status), 0)),
                None => return Pin::new(&mut this.stream).poll_write(cx, buf),
            }
        }
        while let Some((text, written)) = &mut this.instead {
            if *written == text.len() {
                this.instead = None;
                break;
            }
            let n = ready!(Pin::new(&mut this.stream).poll_write(cx, &text[*written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += n;
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The status of a whole answer of 4xx that has neither a body nor a request id.
fn status_without_body(head: &[u8]) -> Option<u16> {
    let is_refusal = head.starts_with(b"HTTP/1.1 4") || head.starts_with(b"HTTP/1.0 4");
    if !is_refusal || head.len() > HEAD_MAX || !head.ends_with(b"\r\n\r\n") {
        return None;
    }
    let text = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    let has = |line: &str| text.lines().any(|l| l.starts_with(line));
    let bare = text.lines().any(|l| l == "content-length: 0") && !has("x-request-id:");
    text.get(9..12)?.parse().ok().filter(|_| bare)
}

/// The whole answer for a status, which closes the connection.
fn error_response(status: u16) -> Vec<u8> {
    let id = seal::random::<16>().map_or_else(|_| "0".repeat(32), |b| storage::checksum::hex(&b));
    let (code, message) = match status {
        413 | 414 | 431 => ("APIGW.0201", "Request entity too large: its URL or its headers."),
        408 => ("APIGW.0308", "The request did not arrive in time."),
        _ => ("OMS.0064", "The request is not valid HTTP/1.1."),
    };
    let body = serde_json::json!({"error_code": code, "error_msg": message, "request_id": id}).to_string();
    let status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_REQUEST);
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nX-Request-Id: {id}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BARE: &[u8] =
        b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn sec_f35_only_responses_of_the_http_library_are_replaced() {
        assert_eq!(status_without_body(BARE), Some(431));
        assert_eq!(status_without_body(b"HTTP/1.0 400 Bad Request\r\ncontent-length: 0\r\n\r\n"), Some(400));
        for whole in [
            &b"HTTP/1.1 404 Not Found\r\nX-Request-Id: 1\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n",
            b"HTTP/1.1 4",
            b"",
        ] {
            assert_eq!(status_without_body(whole), None, "{}", String::from_utf8_lossy(whole));
        }
    }

    #[tokio::test]
    async fn sec_f35_error_response_is_replaced_completely_on_a_slow_connection() {
        let (near, mut far) = tokio::io::duplex(7);
        let writing = tokio::spawn(async move {
            let mut stream = HttpErrorBody::new(near);
            stream.write_all(BARE).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        writing.await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error_code"], "APIGW.0201");
        assert!(head.contains(body["request_id"].as_str().unwrap()));
    }
}
