//! Reading from bytes that may end too early.

use std::borrow::Cow;

use crate::error::{ProtocolError, Result};
use crate::lzf;

/// Why a read did not succeed.
#[derive(Debug)]
pub(crate) enum Stop {
    /// More bytes are needed.
    Short,
    /// The bytes are wrong.
    Wrong(ProtocolError),
}

impl From<ProtocolError> for Stop {
    fn from(error: ProtocolError) -> Self {
        Stop::Wrong(error)
    }
}

pub(crate) type Read<T> = std::result::Result<T, Stop>;

/// A place in bytes; offsets count from their beginning.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'b> {
    pub(crate) buf: &'b [u8],
    pub(crate) at: usize,
}

/// How long something is, or how a string is written (rdb.h, RDB_*BITLEN and RDB_ENC_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// A number.
    Plain(u64),
    /// A string that is an integer of 1, 2 or 4 bytes.
    Int(u8),
    /// A string that is compressed.
    Lzf,
}

impl<'b> Cursor<'b> {
    pub(crate) fn new(buf: &'b [u8]) -> Self {
        Self { buf, at: 0 }
    }

    pub(crate) fn left(&self) -> usize {
        self.buf.len() - self.at
    }

    pub(crate) fn wrong<T>(&self, what: impl Into<String>) -> Read<T> {
        Err(Stop::Wrong(ProtocolError::new(self.at as u64, what)))
    }

    pub(crate) fn take(&mut self, n: usize) -> Read<&'b [u8]> {
        let slice = self.buf.get(self.at..self.at.checked_add(n).ok_or(Stop::Short)?).ok_or(Stop::Short)?;
        self.at += n;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn byte(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16_le(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32_le(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64_le(&mut self) -> Read<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(crate) fn f64_le(&mut self) -> Read<f64> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    pub(crate) fn length(&mut self) -> Read<Length> {
        let begin = self.at;
        let first = self.byte()?;
        let length = match first >> 6 {
            0 => Length::Plain(u64::from(first & 0x3f)),
            1 => Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(self.byte()?)),
            2 if first == 0x80 => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            2 if first == 0x81 => Length::Plain(u64::from_be_bytes(self.array()?)),
            3 if first & 0x3f < 3 => Length::Int(1 << (first & 0x3f)),
            3 if first & 0x3f == 3 => Length::Lzf,
            _ => {
                self.at = begin;
                return self.wrong(format!("{first:#04x} is not a length encoding"));
            }
        };
        Ok(length)
    }

    /// A number.
    pub(crate) fn number(&mut self) -> Read<u64> {
        let begin = self.at;
        match self.length()? {
            Length::Plain(n) => Ok(n),
            _ => {
                self.at = begin;
                self.wrong("expected a number, found a string")
            }
        }
    }

    /// A count of things that take at least `each` bytes; one that the rest of a complete text cannot hold is wrong.
    pub(crate) fn count(&mut self) -> Read<u64> {
        self.number()
    }

    /// A string, expanded.
    pub(crate) fn string(&mut self) -> Read<Cow<'b, [u8]>> {
        match self.length()? {
            Length::Plain(n) => Ok(Cow::Borrowed(self.take(usize::try_from(n).map_err(|_| Stop::Short)?)?)),
            Length::Int(width) => {
                let n = match width {
                    1 => i64::from(i8::from_le_bytes(self.array()?)),
                    2 => i64::from(i16::from_le_bytes(self.array()?)),
                    _ => i64::from(i32::from_le_bytes(self.array()?)),
                };
                Ok(Cow::Owned(n.to_string().into_bytes()))
            }
            Length::Lzf => {
                let (packed, len) = (self.number()?, self.number()?);
                let begin = self.at as u64;
                let packed = self.take(usize::try_from(packed).map_err(|_| Stop::Short)?)?;
                Ok(Cow::Owned(lzf::expand(packed, len).map_err(|e| e.behind(begin))?))
            }
        }
    }

    /// A floating point number as text with its length in front (RDB_TYPE_ZSET, before version 8).
    pub(crate) fn old_double(&mut self) -> Read<f64> {
        let begin = self.at;
        let text = match self.byte()? {
            255 => return Ok(f64::NEG_INFINITY),
            254 => return Ok(f64::INFINITY),
            253 => return Ok(f64::NAN),
            n => self.take(usize::from(n))?,
        };
        let number = std::str::from_utf8(text).ok().and_then(|t| t.trim().parse().ok());
        match number {
            Some(number) => Ok(number),
            None => {
                self.at = begin;
                self.wrong("the score is not a number")
            }
        }
    }
}

/// A text that must be complete: to end too early is an error at its end.
pub(crate) fn complete<T>(read: Read<T>, len: usize) -> Result<T> {
    read.map_err(|stop| match stop {
        Stop::Short => ProtocolError::new(len as u64, "unexpected end of data"),
        Stop::Wrong(error) => error,
    })
}
