//! What is wrong with bytes that came in, and where.

use std::fmt;

/// Bytes that cannot be read as what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// Offset of the first byte of what cannot be read, from the beginning of the stream.
    pub offset: u64,
    /// What is wrong, in one sentence.
    pub what: String,
    /// The bytes are not damaged: a newer or another server wrote them.
    pub newer: bool,
    /// The bytes are not damaged: there are more of them than are taken.
    pub long: bool,
}

/// Short for what readers answer.
pub type Result<T> = std::result::Result<T, ProtocolError>;

impl ProtocolError {
    /// An error at an offset.
    pub fn new(offset: u64, what: impl Into<String>) -> Self {
        Self { offset, what: what.into(), newer: false, long: false }
    }

    /// The same, for what is only too long.
    #[must_use]
    pub fn long(self) -> Self {
        Self { long: true, ..self }
    }

    /// The same error, of bytes that a newer or another server wrote.
    pub fn newer(self) -> Self {
        Self { newer: true, ..self }
    }

    /// The same error, in a stream that began so many bytes earlier.
    pub fn behind(self, bytes: u64) -> Self {
        Self { offset: self.offset.saturating_add(bytes), ..self }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.what)
    }
}

impl std::error::Error for ProtocolError {}
