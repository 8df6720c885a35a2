//! Replies out of bytes as they come.

use super::{COUNT_MAX, LINE_MAX, TEXT_MAX, decimal, line_end};
use crate::error::{ProtocolError, Result};

/// Replies nest at most this deep.
const DEPTH_MAX: usize = 32;
/// Elements of one reply, all levels together.
const ELEMENTS_MAX: u64 = 64 << 20;

/// A reply of a server. Attributes of RESP3 are skipped; doubles, booleans and the like are texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR …`
    Error(String),
    /// `:1`
    Int(i64),
    /// A text.
    Bulk(Vec<u8>),
    /// Nothing.
    Nil,
    /// Several replies; maps as keys and values, one after the other.
    Array(Vec<Reply>),
    /// Told without having been asked.
    Push(Vec<Reply>),
}

impl Reply {
    /// Its bytes, where it is a text of any kind.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Reply::Simple(text) => Some(text.as_bytes()),
            Reply::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Its number, also where that is written as a text.
    pub fn number(&self) -> Option<i64> {
        match self {
            Reply::Int(n) => Some(*n),
            other => decimal(other.text()?),
        }
    }

    /// Its elements.
    pub fn array(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(all) | Reply::Push(all) => Some(all),
            _ => None,
        }
    }
}

/// Reads replies out of a stream.
#[derive(Debug)]
pub struct Replies {
    buf: Vec<u8>,
    at: usize,
    before: u64,
    /// Bytes that the reply that comes next needs at least, so that a long one is not looked at over and over.
    need: usize,
    /// Bytes that one reply may have.
    max: usize,
}

impl Default for Replies {
    fn default() -> Self {
        Self::with_limit(usize::MAX)
    }
}

impl Replies {
    /// A reader of replies that have at most so many bytes each.
    pub fn with_limit(max: usize) -> Self {
        Self { buf: Vec::new(), at: 0, before: 0, need: 0, max }
    }

    /// The replies that come next have at most so many bytes each.
    pub fn bound(&mut self, max: usize) {
        self.max = max;
    }

    /// Takes further bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.before += self.at as u64;
            self.buf.drain(..self.at);
            self.at = 0;
            if self.buf.is_empty() && self.buf.capacity() > 1 << 20 {
                self.buf.shrink_to(1 << 20);
            }
        }
        self.buf.extend_from_slice(bytes);
    }

    /// Bytes that wait in the buffer.
    pub fn waiting(&self) -> usize {
        self.buf.len() - self.at
    }

    /// Takes what is behind the last reply: a stream of another kind begins there.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.buf.drain(..self.at);
        self.buf
    }

    /// The next reply; none when more bytes are needed. Empty lines before it are skipped: a server that makes a
    /// replica wait sends them as signs of life.
    ///
    /// # Errors
    /// [`ProtocolError`] with the offset of what is no reply.
    pub fn next_reply(&mut self) -> Result<Option<Reply>> {
        if self.need == 0 {
            self.at += self.buf[self.at..].iter().take_while(|b| **b == b'\n').count();
        }
        if self.waiting() < self.need.max(1) {
            return Ok(None);
        }
        let base = self.before + self.at as u64;
        let mut scan = Scan { buf: &self.buf[self.at..], at: 0, need: 0, elements: 0 };
        match scan.reply(0).map_err(|e| e.behind(base))? {
            Some(reply) => {
                self.at += scan.at;
                self.need = 0;
                Ok(Some(reply))
            }
            // It is known to be longer before more of it is kept.
            None if scan.need.max(self.buf.len() - self.at) > self.max => {
                Err(ProtocolError::new(base, format!("the reply has more than {} bytes", self.max)).long())
            }
            None => {
                self.need = scan.need;
                Ok(None)
            }
        }
    }
}

struct Scan<'b> {
    buf: &'b [u8],
    at: usize,
    need: usize,
    elements: u64,
}

impl Scan<'_> {
    fn wrong<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(ProtocolError::new(self.at as u64, what))
    }

    fn line(&mut self) -> Result<Option<std::ops::Range<usize>>> {
        match line_end(self.buf, self.at) {
            Some(end) => {
                let range = self.at..end;
                self.at = end + 2;
                Ok(Some(range))
            }
            None if self.buf.len() - self.at > LINE_MAX => self.wrong("unterminated line"),
            None => {
                self.need = self.buf.len() + 1;
                Ok(None)
            }
        }
    }

    fn count(&self, text: &[u8]) -> Result<Option<u64>> {
        match decimal(text) {
            Some(-1) => Ok(None),
            Some(n) if n >= 0 && n as u64 <= COUNT_MAX => Ok(Some(n as u64)),
            _ => self.wrong("invalid reply length"),
        }
    }

    fn reply(&mut self, depth: usize) -> Result<Option<Reply>> {
        self.elements += 1;
        if depth > DEPTH_MAX || self.elements > ELEMENTS_MAX {
            return self.wrong("the reply is nested too deeply or has too many elements");
        }
        let begin = self.at;
        let Some(line) = self.line()? else { return Ok(None) };
        let Some((mark, text)) = self.buf[line.clone()].split_first() else {
            return self.wrong("empty reply");
        };
        let string = || String::from_utf8_lossy(text).into_owned();
        Ok(Some(match mark {
            b'+' | b',' | b'(' => Reply::Simple(string()),
            b'-' => Reply::Error(string()),
            b':' => match decimal(text) {
                Some(n) => Reply::Int(n),
                None => return self.wrong("invalid number"),
            },
            b'#' => Reply::Int(i64::from(text == b"t")),
            b'_' => Reply::Nil,
            b'$' | b'=' | b'!' => return self.bulk(*mark, line),
            b'*' | b'~' | b'>' | b'%' | b'|' => return self.aggregate(*mark, line, depth),
            other => {
                self.at = begin;
                return self.wrong(format!("{other:#04x} is not a reply type"));
            }
        }))
    }
    /// A string whose length stands in its first line; none when more bytes are needed.
    fn bulk(&mut self, mark: u8, line: std::ops::Range<usize>) -> Result<Option<Reply>> {
        let Some(len) = self.count(&self.buf[line.start + 1..line.end])? else { return Ok(Some(Reply::Nil)) };
        if len > TEXT_MAX {
            return self.wrong("invalid string length");
        }
        let end = usize::try_from(len).ok().and_then(|n| self.at.checked_add(n));
        let Some(end) = end else { return self.wrong("string too long for this platform") };
        let buf = self.buf;
        let (Some(bytes), Some(tail)) = (buf.get(self.at..end), buf.get(end..end + 2)) else {
            self.need = end + 2;
            return Ok(None);
        };
        if tail != b"\r\n" {
            return self.wrong("the string exceeds its declared length");
        }
        self.at = end + 2;
        Ok(Some(match mark {
            b'!' => Reply::Error(String::from_utf8_lossy(bytes).into_owned()),
            // A verbatim text has a form of three letters in front.
            b'=' => Reply::Bulk(bytes.get(4..).unwrap_or_default().to_vec()),
            _ => Reply::Bulk(bytes.to_vec()),
        }))
    }

    /// Replies whose number stands in the first line; none when more bytes are needed.
    fn aggregate(&mut self, mark: u8, line: std::ops::Range<usize>, depth: usize) -> Result<Option<Reply>> {
        let Some(n) = self.count(&self.buf[line.start + 1..line.end])? else { return Ok(Some(Reply::Nil)) };
        let n = if matches!(mark, b'%' | b'|') { n * 2 } else { n };
        let mut all = Vec::new();
        for _ in 0..n {
            match self.reply(depth + 1)? {
                Some(reply) => all.push(reply),
                None => return Ok(None),
            }
        }
        match mark {
            b'>' => Ok(Some(Reply::Push(all))),
            // Attributes stand before the reply that they describe.
            b'|' => self.reply(depth + 1),
            _ => Ok(Some(Reply::Array(all))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_type_is_parsed_byte_by_byte() {
        let stream = b"+OK\r\n-ERR no\r\n:-5\r\n$3\r\na\r\n\r\n$-1\r\n*2\r\n:1\r\n*0\r\n%1\r\n+k\r\n_\r\n>1\r\n+p\r\n#t\r\n";
        let want = [
            Reply::Simple("OK".into()),
            Reply::Error("ERR no".into()),
            Reply::Int(-5),
            Reply::Bulk(b"a\r\n"[..3].to_vec()),
            Reply::Nil,
            Reply::Array(vec![Reply::Int(1), Reply::Array(vec![])]),
            Reply::Array(vec![Reply::Simple("k".into()), Reply::Nil]),
            Reply::Push(vec![Reply::Simple("p".into())]),
            Reply::Int(1),
        ];
        for chunk in [1, 2, 3, 7, stream.len()] {
            let mut replies = Replies::default();
            let mut found = Vec::new();
            for bytes in stream.chunks(chunk) {
                replies.push(bytes);
                while let Some(reply) = replies.next_reply().unwrap() {
                    found.push(reply);
                }
            }
            assert_eq!(found, want, "{chunk}");
        }
    }

    #[test]
    fn sec_f14_reply_size_is_limited() {
        let read = |max: usize, bytes: &[u8]| {
            let mut replies = Replies::with_limit(max);
            replies.push(bytes);
            replies.next_reply()
        };
        // Its header is enough, at whatever depth it stands.
        for bytes in [&b"$1073741824\r\n"[..], b"*2\r\n:1\r\n$1073741824\r\nab", b"!1048600\r\n"] {
            let refused = read(1 << 20, bytes).unwrap_err();
            assert!(refused.to_string().contains("more than 1048576 bytes"), "{refused}");
        }
        // Many small ones are one reply too.
        let many = [&b"*1000000\r\n"[..], &b":1\r\n".repeat(300_000)].concat();
        assert!(read(1 << 20, &many).is_err());
        assert_eq!(read(1 << 20, b"$3\r\nab").unwrap(), None);
        assert_eq!(read(9, b"$3\r\nabc\r\n").unwrap(), Some(Reply::Bulk(b"abc".to_vec())));
    }

    #[test]
    fn invalid_reply_is_an_error() {
        for bytes in [&b"?\r\n"[..], b"$5\r\nabcdeXX", b":x\r\n", b"*-2\r\n", b"\r\n"] {
            let mut replies = Replies::default();
            replies.push(bytes);
            assert!(replies.next_reply().is_err(), "{bytes:?}");
        }
        let mut replies = Replies::default();
        replies.push(&b"*1\r\n".repeat(40));
        assert!(replies.next_reply().is_err(), "too deep");
    }
}
