//! Commands out of bytes as they come: arrays of texts, or words of a line; each with the bytes that it is made of, so
//! that it can be passed on as it is.

use super::{COUNT_MAX, LINE_MAX, TEXT_MAX, decimal, line_end};
use crate::error::{ProtocolError, Result};

/// A buffer that has grown for a large command is given back when it is empty and larger than this.
const KEEP: usize = 1 << 20;

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'b> {
    /// Its bytes in the stream.
    pub raw: &'b [u8],
    /// Its name and arguments, as places in `raw`.
    args: &'b [(usize, usize)],
}

impl<'b> Command<'b> {
    /// How many there are, the name included; an empty line has none.
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// True for an empty line: a sign of life.
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    /// One argument; 0 is the name.
    pub fn arg(&self, i: usize) -> Option<&'b [u8]> {
        self.args.get(i).map(|(from, to)| &self.raw[*from..*to])
    }

    /// All of them.
    pub fn args(&self) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let raw = self.raw;
        self.args.iter().map(move |(from, to)| &raw[*from..*to])
    }
}

/// Reads commands out of a stream.
#[derive(Debug)]
pub struct Commands {
    buf: Vec<u8>,
    /// Bytes that one command may have.
    max: usize,
    /// The command that comes next begins here.
    at: usize,
    /// Bytes of the stream before the buffer.
    before: u64,
    /// How far the command that comes next is understood: arguments expected, bytes seen, places found.
    expected: Option<u64>,
    seen: usize,
    args: Vec<(usize, usize)>,
}

impl Default for Commands {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl Commands {
    /// A reader whose stream begins at an offset.
    pub fn starting_at(offset: u64) -> Self {
        Self {
            buf: Vec::new(),
            max: usize::MAX,
            at: 0,
            before: offset,
            expected: None,
            seen: 0,
            args: Vec::new(),
        }
    }

    /// The same, of commands that have at most so many bytes each.
    #[must_use]
    pub fn with_limit(self, max: usize) -> Self {
        Self { max, ..self }
    }

    /// Offset behind the last command that was given out.
    pub fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    /// Bytes that wait in the buffer.
    pub fn waiting(&self) -> usize {
        self.buf.len() - self.at
    }

    /// True when what waits begins as an array does.
    pub fn begins_command(&self) -> bool {
        self.buf.get(self.at) == Some(&b'*')
    }

    /// Takes further bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.before += self.at as u64;
            if self.at == self.buf.len() {
                self.buf.clear();
                if self.buf.capacity() > KEEP {
                    self.buf.shrink_to(KEEP);
                }
            } else {
                self.buf.drain(..self.at);
            }
            self.at = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// The next command; none when more bytes are needed.
    ///
    /// # Errors
    /// [`ProtocolError`] with the offset of what is no command.
    pub fn next_command(&mut self) -> Result<Option<Command<'_>>> {
        let base = self.offset();
        if !self.scan().map_err(|e| e.behind(base))? {
            return Ok(None);
        }
        let (from, to) = (self.at, self.at + self.seen);
        self.at = to;
        (self.expected, self.seen) = (None, 0);
        Ok(Some(Command { raw: &self.buf[from..to], args: &self.args }))
    }

    /// Goes on through the command that begins at `self.at`; true when it is there completely. What was understood is
    /// not looked at again.
    fn scan(&mut self) -> Result<bool> {
        let buf = &self.buf[self.at..];
        let expected = match self.expected {
            Some(n) => n,
            None => {
                let Some(first) = buf.first() else { return Ok(false) };
                let Some(end) = line(buf, 0)? else { return Ok(false) };
                self.args.clear();
                if *first != b'*' {
                    words(&buf[..end], &mut self.args);
                    self.seen = end + if buf[end] == b'\n' { 1 } else { 2 };
                    return Ok(true);
                }
                let n = decimal(&buf[1..end]).and_then(|n| u64::try_from(n.max(0)).ok());
                let n = n.filter(|n| *n <= COUNT_MAX);
                let n = n.ok_or_else(|| ProtocolError::new(0, "invalid number of arguments"))?;
                (self.expected, self.seen) = (Some(n), end + 2);
                n
            }
        };
        while (self.args.len() as u64) < expected {
            let from = self.seen;
            let Some(end) = line(buf, from)? else { return Ok(false) };
            let wrong = |what: &str| ProtocolError::new(from as u64, what);
            if buf[from] != b'$' {
                return Err(wrong("expected the length of an argument"));
            }
            let len =
                decimal(&buf[from + 1..end]).and_then(|n| u64::try_from(n).ok()).filter(|n| *n <= TEXT_MAX);
            let len = len.ok_or_else(|| wrong("invalid argument length"))?;
            let begin = end + 2;
            let to = usize::try_from(len).ok().and_then(|n| begin.checked_add(n));
            let to = to.ok_or_else(|| wrong("argument too long for this platform"))?;
            // Known from its header, before it is kept. What is understood of the arguments takes memory too.
            if to.saturating_add(self.args.len() * size_of::<(usize, usize)>()) > self.max {
                return Err(wrong(&format!("the command has more than {} bytes", self.max)).long());
            }
            match buf.get(to..to + 2) {
                None => return Ok(false),
                Some(b"\r\n") => {}
                Some(_) => {
                    return Err(ProtocolError::new(to as u64, "the argument exceeds its declared length"));
                }
            }
            self.args.push((begin, to));
            self.seen = to + 2;
        }
        Ok(true)
    }
}

/// Where a header line ends; an error when it is too long to be one.
fn line(buf: &[u8], from: usize) -> Result<Option<usize>> {
    // An inline command may end with a bare line feed, as signs of life do.
    if buf.get(from) == Some(&b'\n') {
        return Ok(Some(from));
    }
    match line_end(buf, from) {
        Some(end) if end - from <= LINE_MAX => Ok(Some(end)),
        None if buf.len().saturating_sub(from) <= LINE_MAX => Ok(None),
        _ => Err(ProtocolError::new(from as u64, "unterminated line")),
    }
}

/// Words of an inline command.
fn words(line: &[u8], out: &mut Vec<(usize, usize)>) {
    let mut at = 0;
    while at < line.len() {
        if line[at].is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let end = line[at..].iter().position(u8::is_ascii_whitespace).map_or(line.len(), |n| at + n);
        out.push((at, end));
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"\n*2\r\n$4\r\nINCR\r\n$1\r\nk\r\nPING x\r\n*3\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$0\r\n\r\n\r\n";

    fn all(chunk: usize) -> Vec<(u64, Vec<Vec<u8>>)> {
        let mut commands = Commands::starting_at(100);
        let mut out = Vec::new();
        for bytes in STREAM.chunks(chunk) {
            commands.push(bytes);
            while let Some(command) = commands.next_command().unwrap() {
                let args = command.args().map(<[u8]>::to_vec).collect();
                out.push((0, args));
                if let Some(last) = out.last_mut() {
                    last.0 = commands.offset();
                }
            }
        }
        out
    }

    #[test]
    fn commands_do_not_depend_on_chunk_boundaries() {
        let whole = all(STREAM.len());
        let text = |words: &[&str]| words.iter().map(|w| w.as_bytes().to_vec()).collect::<Vec<_>>();
        let want = [
            (101, text(&[])),
            (122, text(&["INCR", "k"])),
            (130, text(&["PING", "x"])),
            (158, text(&["SET", "a\r\n", ""])),
            (160, text(&[])),
        ];
        assert_eq!(whole, want);
        for chunk in 1..STREAM.len() {
            assert_eq!(all(chunk), whole, "{chunk} bytes at a time");
        }
    }

    #[test]
    fn sec_f14_command_size_is_limited() {
        let read = |bytes: &[u8]| {
            let mut commands = Commands::starting_at(7).with_limit(1 << 20);
            commands.push(bytes);
            commands.next_command().map(|c| c.is_some())
        };
        let refused = read(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4294967295\r\n").unwrap_err();
        assert!(refused.offset == 27 && refused.to_string().contains("more than 1048576 bytes"), "{refused}");
        // Places of arguments count as well as their bytes.
        let many = [&b"*1000000\r\n"[..], &b"$1\r\nx\r\n".repeat(60_000)].concat();
        assert!(read(&many).is_err());
        assert!(!read(b"*2\r\n$3\r\nGET\r\n$1000000\r\nab").unwrap());
        assert!(read(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").unwrap());
    }

    #[test]
    fn invalid_command_reports_its_offset() {
        for (bytes, offset) in [
            (&b"*1\r\n+OK\r\n"[..], 4),
            (b"*1\r\n$-1\r\n", 4),
            (b"*1\r\n$1\r\nab\r\n", 9),
            (b"*99999999999\r\n", 0),
            (b"*x\r\n", 0),
        ] {
            let mut commands = Commands::default();
            commands.push(bytes);
            assert_eq!(commands.next_command().unwrap_err().offset, offset, "{bytes:?}");
        }
    }
}
