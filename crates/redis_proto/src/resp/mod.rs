//! RESP, versions 2 and 3 (Redis serialization protocol specification): commands as they stand in a replication stream
//! or an append-only file, replies as servers give them, and commands on their way out.

mod commands;
mod encode;
mod replies;

pub use commands::{Command, Commands};
pub use encode::{command, header, text};
pub use replies::{Replies, Reply};

/// Longest line of a header, bytes: a number with its mark, or a short text.
const LINE_MAX: usize = 64 << 10;
/// Longest text: the servers' own bound (proto-max-bulk-len can be raised to it).
const TEXT_MAX: u64 = 4 << 30;
/// Most arguments of a command (server.h, 1024*1024), and elements of a reply.
const COUNT_MAX: u64 = 1 << 30;

/// The end of a line that begins at `from`: where `\r\n` stands; none when it is not there yet.
fn line_end(buf: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += buf.get(at..)?.iter().position(|b| *b == b'\r')?;
        if *buf.get(at + 1)? == b'\n' {
            return Some(at);
        }
        at += 1;
    }
}

/// A decimal number.
fn decimal(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut n: i64 = 0;
    for b in digits {
        n = n.checked_mul(10)?.checked_add(i64::from(b.is_ascii_digit().then(|| b - b'0')?))?;
    }
    Some(if negative { -n } else { n })
}
