//! The error type of the workspace: a kind, a side, the operation, a sentence, and the cause.
//!
//! [`Kind::policy`] is the only table from a kind to "retry or not"; API, webhooks and reports translate kinds to their
//! codes in one table each. Where a kind is too coarse for a decision or for the hint, the error has a [`Reason`]. Code
//! never decides by the operation or the text of a message.

mod hints;
mod reason;

use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

use serde::{Deserialize, Serialize};

use crate::printable::Printable;

pub use self::reason::Reason;

/// What went wrong, in terms that decide what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The object, bucket or row does not exist.
    NotFound,
    /// The bucket itself does not exist.
    NoBucket,
    /// The credentials are unknown or wrong.
    BadCredentials,
    /// The credentials are good, the action is not allowed.
    Forbidden,
    /// The two clocks differ by more than the signature allows.
    ClockSkew,
    /// The endpoint asks us to slow down (429, 503 SlowDown).
    Throttled,
    /// The endpoint fails for now (5xx).
    Unavailable,
    /// No answer in time.
    Timeout,
    /// No connection: refused, reset, name not resolved, TLS.
    Connect,
    /// The object changed while it was read (412).
    Changed,
    /// Bytes arrived that are not what was promised: a body cut short, an answer that cannot be read.
    Corrupt,
    /// Bytes, lengths or checksums were compared and differ.
    Mismatch,
    /// The bucket is served by another region or endpoint.
    WrongRegion,
    /// The store refuses writes without a checksum of their body.
    ChecksumRequired,
    /// A removal would take more than half of the target.
    #[serde(rename = "deletes_most")]
    DeletesTooMuch,
    /// A listing broke its promise: page out of order or not advancing.
    #[serde(rename = "disorder")]
    OutOfOrderListing,
    /// The target cannot hold this key under its own name.
    #[serde(rename = "key_refused")]
    InvalidKey,
    /// The object is larger than the target accepts.
    TooLarge,
    /// No space or quota left at the target.
    NoSpace,
    /// The target may not be written.
    ReadOnly,
    /// The object is archived and must be restored first.
    Archived,
    /// The endpoint cannot do this.
    Unsupported,
    /// The request was wrong: that of this program or of the user.
    Invalid,
    /// The state does not allow it now.
    Conflict,
    /// The lease was lost to another worker: stop at once, write nothing.
    LeaseLost,
    /// Stopped on request; not an error to show.
    Stopped,
    /// A list file does not exist or cannot be read.
    ListMissing,
    /// A list file is too large or is not named `.txt`.
    ListTooLarge,
    /// A line of a list file cannot be read.
    ListMalformed,
    /// A list file names nothing.
    ListEmpty,
    /// A line of a list file is longer than 65,535 bytes.
    ListLineTooLong,
    /// A list file's Content-Type or Content-Encoding is not what it must be.
    ListMetadata,
    /// Anything else.
    Internal,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 33] = [
        Kind::NotFound,
        Kind::NoBucket,
        Kind::BadCredentials,
        Kind::Forbidden,
        Kind::ClockSkew,
        Kind::Throttled,
        Kind::Unavailable,
        Kind::Timeout,
        Kind::Connect,
        Kind::Changed,
        Kind::Corrupt,
        Kind::Mismatch,
        Kind::WrongRegion,
        Kind::ChecksumRequired,
        Kind::DeletesTooMuch,
        Kind::OutOfOrderListing,
        Kind::InvalidKey,
        Kind::TooLarge,
        Kind::NoSpace,
        Kind::ReadOnly,
        Kind::Archived,
        Kind::Unsupported,
        Kind::Invalid,
        Kind::Conflict,
        Kind::LeaseLost,
        Kind::Stopped,
        Kind::ListMissing,
        Kind::ListTooLarge,
        Kind::ListMalformed,
        Kind::ListEmpty,
        Kind::ListLineTooLong,
        Kind::ListMetadata,
        Kind::Internal,
    ];
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Wait and try again; slow down as well when `throttle` is set.
    Retry {
        /// Also lower the number of requests in flight.
        throttle: bool,
    },
    /// Nothing changes by trying again: settle the object as failed.
    GiveUp,
    /// The whole task cannot go on until a person acts.
    StopTask,
}

impl Kind {
    /// The retry table. The list of retried kinds is kept narrow on purpose.
    pub fn policy(self) -> Policy {
        match self {
            Kind::Throttled | Kind::Unavailable | Kind::Timeout => Policy::Retry { throttle: true },
            Kind::Connect | Kind::Changed | Kind::Corrupt => Policy::Retry { throttle: false },
            Kind::NoBucket
            | Kind::WrongRegion
            | Kind::BadCredentials
            | Kind::ClockSkew
            | Kind::NoSpace
            | Kind::ReadOnly => Policy::StopTask,
            Kind::LeaseLost | Kind::Stopped => Policy::StopTask,
            Kind::ListMissing
            | Kind::ListTooLarge
            | Kind::ListMalformed
            | Kind::ListEmpty
            | Kind::ListLineTooLong
            | Kind::ListMetadata => Policy::StopTask,
            _ => Policy::GiveUp,
        }
    }

    /// True when a task that this ended has an exact ledger: it goes on where it was once a person has acted or the
    /// trouble has passed.
    pub fn is_resumable(self) -> bool {
        matches!(
            self,
            Kind::BadCredentials
                | Kind::Forbidden
                | Kind::ClockSkew
                | Kind::NoSpace
                | Kind::ReadOnly
                | Kind::NoBucket
                | Kind::WrongRegion
                | Kind::Throttled
                | Kind::Unavailable
                | Kind::Timeout
                | Kind::Connect
        )
    }

    /// The advice shown to the person who must act.
    pub fn remedy(self) -> &'static str {
        match self {
            Kind::NotFound => "check the name",
            Kind::NoBucket => "create the bucket or correct its name",
            Kind::BadCredentials => "check the access key and secret key",
            Kind::Forbidden => {
                "grant this access key permission to list and read (at the target also to write)"
            }
            Kind::ClockSkew => "synchronise the clock of this machine; signatures are valid for 15 minutes",
            Kind::Throttled => "lower --concurrency, or wait",
            Kind::Unavailable => "start the task again when the endpoint works",
            Kind::Timeout => "check the network between this machine and the endpoint",
            Kind::Connect => "check the address, port and TLS setting of the endpoint",
            Kind::Changed => "copy the object again while nothing writes to it",
            Kind::Corrupt => "check the network and the store",
            Kind::Mismatch => "check the network, proxies and caches between this machine and the store",
            Kind::WrongRegion => "set the region of the bucket",
            Kind::DeletesTooMuch => "if this is intended, use --delete-most",
            Kind::ChecksumRequired => "report this message as a defect of whimbrel",
            Kind::OutOfOrderListing => "set `order` of the store to `unknown`",
            Kind::InvalidKey => "rename the object or choose another target",
            Kind::TooLarge => "raise the part size, or choose a target with a larger limit",
            Kind::NoSpace => "free space at the target, then start the task again",
            Kind::ReadOnly => "make the file system writable, then start again",
            Kind::Archived => "restore the object from its archive tier first",
            Kind::Unsupported => "choose an option that this store supports",
            Kind::Invalid => "correct the value and try again",
            Kind::Conflict => "wait until the current operation has finished",
            Kind::LeaseLost => "no action needed; another worker has taken over",
            Kind::Stopped => "start the task again to resume it",
            Kind::ListMissing => "upload the list file to the configured bucket and key",
            Kind::ListTooLarge => "split the list into `.txt` files of at most 1 GiB",
            Kind::ListMalformed | Kind::ListLineTooLong => "correct the line and upload the list again",
            Kind::ListEmpty => "add at least one line to the list file",
            Kind::ListMetadata => "upload the list with Content-Type text/plain and without Content-Encoding",
            Kind::Internal => "report this message with the log",
        }
    }
}

/// Which end of a migration failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The side that is read.
    Source,
    /// The side that is written.
    Target,
    /// Neither: the service itself.
    #[serde(rename = "here")]
    Local,
}

/// An error with its kind, side, operation and sentence. Never holds a secret.
///
/// The message is complete: where there is a cause, it contains the cause's text. The cause is for code, see
/// [`std::error::Error::source`].
#[derive(Clone, Debug)]
pub struct Error {
    /// Decides retry and code.
    pub kind: Kind,
    /// Which end it happened at.
    pub side: Side,
    /// What was being done, e.g. `list`, `read`, `write_part`. Context for a person: code decides by kind and reason.
    pub op: &'static str,
    /// The sentence for a person: what failed and with which answer.
    pub message: String,
    /// What exactly failed, where the kind alone does not decide what happens next.
    pub reason: Reason,
    /// The error of the library or the operating system that led to this one.
    pub cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The `Result` of the workspace.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the service itself: no side, reason or cause.
    pub fn new(kind: Kind, op: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            side: Side::Local,
            op,
            message: message.into(),
            reason: Reason::Unspecified,
            cause: None,
        }
    }

    /// The error of work that ends because a stop was requested.
    pub fn stopped(op: &'static str) -> Self {
        Self::new(Kind::Stopped, op, "the task was stopped")
    }

    /// The error of the operating system about a file that this service writes: [`Kind::NoSpace`], [`Kind::ReadOnly`] or
    /// [`Kind::Internal`].
    pub fn of_own_file(op: &'static str, path: &Path, e: io::Error) -> Self {
        let kind = match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Kind::ReadOnly,
            _ => Kind::Internal,
        };
        Self::new(kind, op, format!("{}: {e}", path.display())).caused_by(e)
    }

    /// The same error with a reason.
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }

    /// The same error with the error that led to it. Its text must already be in the message.
    #[must_use]
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// The same failure, attributed to `side`.
    pub fn at(mut self, side: Side) -> Self {
        self.side = side;
        self
    }

    /// The message without its hint, and one hint: that of the message, else that of the kind.
    pub fn with_hint(&self) -> (&str, &str) {
        let (what, hint) = split_hint(&self.message);
        (what, hint.unwrap_or_else(|| self.remedy()))
    }

    /// True when [`Kind::policy`] says that trying again may help.
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind.policy(), Policy::Retry { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Source => "source ",
            Side::Target => "target ",
            Side::Local => "",
        };
        let (what, hint) = self.with_hint();
        write!(f, "{side}{}: {}{HINT}{}", self.op, Printable(what), Printable(hint))
    }
}

/// What stands between a message and its hint.
const HINT: &str = "; hint: ";

/// A message without its hint, and the hint.
pub fn split_hint(message: &str) -> (&str, Option<&str>) {
    match message.split_once(HINT) {
        Some((what, hint)) => (what, Some(hint)),
        None => (message, None),
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests;
