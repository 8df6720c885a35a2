//! One error for the whole house: a kind, the operation, and a sentence that tells the reader what to do.
//!
//! [`Kind::policy`] is the only table from a kind to "try again or not"; the faces translate kinds to
//! their codes in one table each.

use std::fmt;

use serde::{Deserialize, Serialize};

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
    /// The request was wrong; ours or the user's.
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
#[derive(Clone, Debug)]
pub struct Error {
    /// Decides retry and code.
    pub kind: Kind,
    /// Which end it happened at.
    pub side: Side,
    /// What was being done, e.g. `list`, `read`, `write_part`.
    pub op: &'static str,
    /// The sentence for a person: what failed and with which answer.
    pub message: String,
}

/// Short for results of the house.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure on our own side.
    pub fn new(kind: Kind, op: &'static str, message: impl Into<String>) -> Self {
        Self { kind, side: Side::Local, op, message: message.into() }
    }

    /// The same failure, attributed to `side`.
    pub fn at(mut self, side: Side) -> Self {
        self.side = side;
        self
    }

    /// The advice of the kind, as it reads for this side and place.
    pub fn remedy(&self) -> &'static str {
        let local = self.message.starts_with("directory ") || self.message.ends_with("(os error 13)");
        let redis = self.message.contains("redis://") || self.message.contains("rediss://");
        match (self.kind, self.side) {
            (Kind::BadCredentials, _) if redis => {
                "check the user and the password (on the command line: WHIMBREL_SOURCE_PASSWORD, \
                 WHIMBREL_TARGET_PASSWORD)"
            }
            (Kind::Forbidden, _) if self.message.contains("may not connect to") => {
                "ask the operator to add the host or network to limits.inline_endpoints (for Redis: \
                 limits.redis_endpoints)"
            }
            (Kind::Forbidden, _) if redis => "grant the user the commands that docs/redis.md lists",
            (_, _) if self.op == "keyring" => {
                "restore the `seal.key` of this database from a backup; without it, move the database away and \
                 configure the service again"
            }
            (_, _) if self.op == "mode" => "run `chmod 600` on the file",
            (Kind::Conflict, _) if self.op == "rotate" => {
                "run `whimbrel keys rotate` again when the other command has finished"
            }
            (Kind::Timeout, _) if self.op == "rotate" => {
                "check the log of the service, restart the service, then run `whimbrel keys rotate` again"
            }
            (Kind::ReadOnly, _) if self.op == "rotate" => {
                "run the command as the owner of the data directory"
            }

            (_, _) if self.op == "databases" => {
                "map the database to another number (--db-map), exclude it, or raise `databases` at the target"
            }
            (Kind::Conflict, _) if self.op == "clean" => "stop the migration first, or use --force",
            (_, _) if self.op == "loop" => "stop one of the two migrations",
            (Kind::Conflict, _) if self.op == "function" => {
                "delete that library at the target, or choose what becomes of it (--functions replace or skip)"
            }
            (Kind::Unsupported, Side::Source) if self.op == "format" => {
                "the file was written by a newer or different server: copy from the running server (--mode scan), or \
                 update whimbrel"
            }
            (_, _) if self.op == "sentinel" => "use the address of the master",
            (Kind::Unsupported, Side::Source) if self.op == "psync" => {
                "copy with --mode scan, or say what REPLCONF is called there (--source-command REPLCONF=NAME)"
            }
            (Kind::Unsupported, Side::Source) if self.op == "info" && redis => {
                "say what INFO is called there (--source-command INFO=NAME)"
            }
            (_, Side::Source) if redis && self.message.contains("unknown command") => {
                "say what the command is called there (--source-command NAME=NAME_THERE), or import a backup"
            }
            (_, _) if redis && self.message.contains("unknown command") => {
                "exclude the command (--skip-command NAME), or choose a target that supports it"
            }
            (Kind::Unsupported, Side::Source) if self.op == "import" => {
                "import into an empty target without key or database filters, or exclude these commands \
                 (--leave-out-commands)"
            }
            (Kind::Conflict, _) if self.op == "diverged" && self.message.contains("NOSCRIPT") => {
                "load the script at the target (SCRIPT LOAD), delete the checkpoint key, then start again"
            }
            (Kind::Conflict, _) if self.op == "diverged" && self.message.contains("DUMP payload version") => {
                "choose a target of a newer version, delete the checkpoint key, then start again"
            }
            (Kind::Conflict, _) if self.op == "diverged" && self.message.contains("Bad data format") => {
                "the target does not take that value: choose a newer one, delete the position key, and start again"
            }
            (Kind::Changed, _) if self.op == "anew" => "nothing to do: everything is copied from the start",
            (Kind::Invalid, _) if redis && matches!(self.op, "apply" | "restore" | "rebuild" | "write") => {
                "look at what the target answers; the same command goes on or starts from the snapshot"
            }
            (Kind::Connect, _) if redis && self.message.contains("CertificateRequired") => {
                "show a certificate (--source-cert and --source-key, --target-cert and --target-key, `cert` and `key` of [[redis]])"
            }
            (Kind::Connect, _) if redis && self.message.contains("invalid peer certificate") => {
                "name its authorities (--source-ca, --target-ca, `ca` of [[redis]], or SSL_CERT_FILE)"
            }
            (Kind::Connect, _) if redis && self.op != "connect" => {
                "no action needed if the server is reachable again; if this repeats, check the server log, \
                 `timeout`, `maxclients` and output buffer limits"
            }
            (Kind::NoSpace, _) if redis => {
                "raise `maxmemory` or free memory at the target; the migration then \
                 resumes by itself"
            }
            (Kind::Unavailable, _) if self.message.contains("MISCONF") => {
                "free disk space at the target; the migration then resumes by itself"
            }
            (Kind::Unavailable, Side::Source) if self.op == "cluster" => {
                "give these slots to a master (redis-cli --cluster fix), or copy what is served (--allow-uncovered-slots)"
            }
            (Kind::Unavailable, _) if redis => {
                "no action needed; the migration resumes when the server accepts \
                 writes"
            }
            (Kind::Conflict, _) if self.op == "diverged" || self.op == "halted" => {
                "stop other writers at the target, delete the checkpoint key, then start again"
            }
            (Kind::Conflict, _) if self.op == "fence" => "no action needed; the other run continues",
            (Kind::Conflict, _) if self.op == "restore" => {
                "use --replace or --skip-existing, or choose an empty target"
            }
            (Kind::Corrupt, Side::Source)
                if matches!(self.op, "check" | "read" | "commands" | "snapshot") =>
            {
                "the file is corrupt or not an RDB/AOF backup; obtain it again"
            }
            (Kind::WrongRegion, Side::Source) => "set --source-region, or `signing_region` of the store",
            (Kind::WrongRegion, Side::Target) => "set --target-region, or `signing_region` of the store",
            (Kind::InvalidKey, Side::Source) => "shorten or rename the file",
            (Kind::Forbidden, _) if local => {
                "grant this user read permission (at the target also write permission)"
            }
            (Kind::NoBucket, _) if local => "create the directory or correct its name",
            _ => self.kind.remedy(),
        }
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
        write!(f, "{side}{}: {what}{HINT}{hint}", self.op)
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

impl std::error::Error for Error {}

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
    fn only_temporary_errors_are_retried() {
        for kind in [Kind::Throttled, Kind::Unavailable, Kind::Timeout, Kind::Connect, Kind::Corrupt] {
            assert!(matches!(kind.policy(), Policy::Retry { .. }), "{kind:?}");
        }
        for kind in [Kind::NotFound, Kind::Forbidden, Kind::Invalid, Kind::InvalidKey] {
            assert_eq!(kind.policy(), Policy::GiveUp, "{kind:?}");
        }
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
