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
mod tests {
    use super::*;

    #[test]
    fn message_with_a_hint_gets_no_second_one() {
        let own =
            Error::new(Kind::ReadOnly, "open", "it is a replica; hint: use its master").at(Side::Target);
        assert_eq!(own.to_string(), "target open: it is a replica; hint: use its master");
        assert_eq!(own.with_hint(), ("it is a replica", "use its master"));
    }

    #[test]
    fn cause_of_an_error_is_its_source() {
        let io = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Error::new(Kind::Forbidden, "read", format!("`a`: {io}")).caused_by(io);
        let source = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::PermissionDenied));
        let renamed = Error { message: "`b`".into(), ..error };
        assert!(renamed.cause.is_some(), "an error that is worded again keeps its cause");
    }

    #[test]
    fn errors_without_a_reason_get_its_hint_from_their_text() {
        for (kind, side, op, message, reason) in [
            (
                Kind::Forbidden,
                Side::Source,
                "read",
                "`a`: Permission denied (os error 13)",
                Reason::LocalPath,
            ),
            (Kind::NoBucket, Side::Source, "open", "directory `/a`: not found", Reason::LocalPath),
            (
                Kind::Forbidden,
                Side::Local,
                "connect",
                "this service may not connect to h",
                Reason::EgressDenied,
            ),
            (Kind::Invalid, Side::Local, "keyring", "the keyring is empty", Reason::Keyring),
            (Kind::Conflict, Side::Target, "diverged", "NOSCRIPT no", Reason::MissingScript),
            (Kind::Changed, Side::Source, "full_resync", "the source restarted", Reason::FullResync),
            (Kind::Changed, Side::Source, "anew", "written by an earlier version", Reason::FullResync),
            (Kind::NoSpace, Side::Target, "write", "redis://h:1: OOM", Reason::RedisServer),
            (Kind::Forbidden, Side::Target, "write", "k: HTTP 403 AccessDenied", Reason::Unspecified),
        ] {
            assert_eq!(Reason::of_text(kind, side, op, message), reason, "{message}");
            let error = Error::new(kind, op, message).at(side);
            assert_eq!(error.remedy(), error.clone().because(reason).remedy(), "{message}");
        }
    }

    #[test]
    fn sec_f37_message_of_a_server_is_shown_on_one_line() {
        let f = Error::new(Kind::Forbidden, "read", "line1\n2026 INFO forged\u{1b}[31m").at(Side::Source);
        assert!(f.to_string().starts_with("source read: line1\\n2026 INFO forged\\u{1b}[31m; hint: "), "{f}");
    }

    #[test]
    fn only_temporary_errors_are_retried() {
        for kind in [Kind::Throttled, Kind::Unavailable, Kind::Timeout, Kind::Connect, Kind::Corrupt] {
            assert!(matches!(kind.policy(), Policy::Retry { .. }), "{kind:?}");
        }
        for kind in [Kind::NotFound, Kind::Forbidden, Kind::Invalid, Kind::InvalidKey] {
            assert_eq!(kind.policy(), Policy::GiveUp, "{kind:?}");
        }
    }

    /// Words of operations and messages that [`Error::remedy`] looks for.
    const OPS: &str = "list read connect keyring mode rotate databases clean loop function format sentinel psync info \
        import diverged halted full_resync anew apply restore rebuild write cluster fence check commands snapshot";
    const MESSAGES: [&str; 13] = [
        "",
        "directory /a",
        "a (os error 13)",
        "MISCONF",
        "redis://a",
        "rediss://a",
        "may not connect to a",
        "redis://a: unknown command",
        "redis://a: CertificateRequired",
        "redis://a: invalid peer certificate",
        "NOSCRIPT",
        "DUMP payload version",
        "Bad data format",
    ];

    /// Operations and texts of messages in the arms of `Reason::of_text`: the literals in the pattern of an arm are
    /// operations, those of its guard are texts.
    fn words_of_reasons(source: &str) -> (Vec<&str>, Vec<&str>) {
        let body = source.split("fn of_text").nth(1).unwrap_or_default();
        let (mut ops, mut texts) = (Vec::new(), Vec::new());
        for arm in body.lines().filter(|line| line.contains("=> Reason::")) {
            let pattern = arm.split("=>").next().unwrap_or_default();
            let (pattern, guard) = pattern.split_once(" if ").unwrap_or((pattern, ""));
            ops.extend(pattern.split('"').skip(1).step_by(2));
            texts.extend(guard.split('"').skip(1).step_by(2).filter(|_| guard.contains("says(")));
        }
        (ops, texts)
    }

    /// Changed sentences are seen in the review of the snapshot; `INSTA_UPDATE=always cargo test -p model` writes it.
    #[test]
    fn remedies_are_those_of_the_snapshot() {
        use std::fmt::Write as _;
        let (ops, texts) = words_of_reasons(include_str!("error/reason.rs"));
        assert!(
            ops.len() > 15 && texts.len() > 5,
            "operations {ops:?} and texts {texts:?} of `Reason::of_text`"
        );
        for op in ops {
            assert!(OPS.split(' ').any(|o| o == op), "add the operation `{op}` to OPS");
        }
        for text in texts {
            assert!(MESSAGES.iter().any(|m| m.contains(text)), "add a message with `{text}` to MESSAGES");
        }
        let mut catalogue = String::new();
        // A remedy that serves several kinds, operations or messages is shown with the first.
        let mut shown = Vec::new();
        for kind in Kind::ALL {
            let general = kind.remedy();
            writeln!(catalogue, "{kind:?}: {general}").unwrap();
            for (op, message, side) in OPS.split(' ').flat_map(|op| {
                let sides = [Side::Source, Side::Target, Side::Local];
                MESSAGES.iter().flat_map(move |message| sides.map(|side| (op, *message, side)))
            }) {
                let remedy = Error::new(kind, op, message).at(side).remedy();
                if remedy != general && !shown.contains(&remedy) {
                    shown.push(remedy);
                    writeln!(catalogue, "  {side:?} {op} `{message}`: {remedy}").unwrap();
                }
            }
        }
        insta::with_settings!({
            snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true
        }, {
            insta::assert_snapshot!("error_remedies", catalogue);
        });
    }

    #[test]
    fn error_message_has_a_sentence_and_a_hint() {
        let f = Error::new(Kind::NoBucket, "list", "bucket `a` does not exist").at(Side::Source);
        assert_eq!(
            f.to_string(),
            "source list: bucket `a` does not exist; hint: create the bucket or correct its name"
        );
    }
}
