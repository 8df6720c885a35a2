//! Pure: what the error replies of Redis servers and proxies mean. The only place that reads their text.
//!
//! Sources: `shared` in `server.c`, `cluster.c`, `functions.c` and `acl.c` of Redis; nutcracker and predixy for proxies.

use model::error::{Error, Kind};

/// An error reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyError<'t> {
    /// `NOAUTH`, `WRONGPASS`, or the text of a server before 6.0.
    BadCredentials,
    /// `NOPERM`: the user may not run the command.
    NoPermission,
    /// `LOADING`, `BUSY`, `MASTERDOWN`, `MISCONF` and others that pass without a change at the client.
    Transient,
    /// `CLUSTERDOWN Hash slot not served`.
    SlotNotServed,
    /// `READONLY`: it is a replica.
    ReadOnly,
    /// `OOM`: `maxmemory` is reached.
    OutOfMemory,
    /// `MOVED slot address`: the slot belongs there; the address, if it can be read.
    Moved(Option<&'t str>),
    /// `ASK slot address`: this command goes there.
    Ask(Option<&'t str>),
    /// `CROSSSLOT`: its keys belong to different slots.
    CrossSlot,
    /// `BUSYKEY`: the key exists.
    KeyExists,
    /// The server has no command of that name.
    UnknownCommand,
    /// The same in the words of a proxy.
    NotSupported,
    /// There is no database of that number.
    NoDatabase,
    /// `EXEC` came outside of a transaction: the commands before it were executed one by one.
    ExecWithoutMulti,
    /// Another library has a function of that name.
    FunctionExists(&'t str),
    /// What was to be deleted does not exist.
    NotFound,
    /// Any other.
    Other,
}

/// What an error reply means, by its prefix and by its text where the prefix is `ERR`.
pub(crate) fn classify(text: &str) -> ReplyError<'_> {
    // The reason why `EXEC` refused a transaction stands behind these words.
    let text = text.strip_prefix("EXECABORT Transaction discarded because of: ").unwrap_or(text);
    let mut words = text.split(' ');
    match words.next().unwrap_or_default() {
        "NOAUTH" | "WRONGPASS" => ReplyError::BadCredentials,
        "NOPERM" => ReplyError::NoPermission,
        "CLUSTERDOWN" if text.starts_with("CLUSTERDOWN Hash slot not served") => ReplyError::SlotNotServed,
        "LOADING" | "BUSY" | "NOREPLICAS" | "MASTERDOWN" | "NOMASTERLINK" | "TRYAGAIN" | "CLUSTERDOWN"
        | "MISCONF" => ReplyError::Transient,
        "READONLY" => ReplyError::ReadOnly,
        "OOM" => ReplyError::OutOfMemory,
        "MOVED" => ReplyError::Moved(words.nth(1)),
        "ASK" => ReplyError::Ask(words.nth(1)),
        "CROSSSLOT" => ReplyError::CrossSlot,
        "BUSYKEY" => ReplyError::KeyExists,
        "ERR" if text.contains("max number of clients") => ReplyError::Transient,
        "ERR" if text.contains("invalid password") || text.contains("without any password") => {
            ReplyError::BadCredentials
        }
        "ERR" if text.contains("unknown command") => ReplyError::UnknownCommand,
        "ERR" if text.contains("DB index is out of range") => ReplyError::NoDatabase,
        _ => classify_text(text),
    }
}

/// Replies whose prefix says nothing, as those of proxies.
fn classify_text(text: &str) -> ReplyError<'_> {
    let lower = text.to_ascii_lowercase();
    let unknown = ["unknown command", "unsupported", "not supported", "invalid command"];
    if unknown.iter().any(|part| lower.contains(part)) {
        ReplyError::NotSupported
    } else if text.contains("without MULTI") {
        ReplyError::ExecWithoutMulti
    } else if let Some(name) = existing_function(text) {
        ReplyError::FunctionExists(name)
    } else if text.contains("not found") {
        ReplyError::NotFound
    } else {
        ReplyError::Other
    }
}

/// The function that another library has (functions.c: `Function NAME already exists`).
fn existing_function(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("Function ")?;
    let (name, _) = rest.split_once(" already exists")?;
    Some(name.trim_matches(['\'', '"', '`']))
}

impl ReplyError<'_> {
    /// The kind that decides whether it is retried.
    pub(crate) fn kind(self) -> Kind {
        match self {
            ReplyError::BadCredentials => Kind::BadCredentials,
            ReplyError::NoPermission => Kind::Forbidden,
            ReplyError::Transient | ReplyError::SlotNotServed => Kind::Unavailable,
            ReplyError::ReadOnly => Kind::ReadOnly,
            ReplyError::OutOfMemory => Kind::NoSpace,
            // The slot of the key is at another server now.
            ReplyError::Moved(_) | ReplyError::Ask(_) => Kind::Changed,
            ReplyError::CrossSlot | ReplyError::KeyExists => Kind::Conflict,
            ReplyError::UnknownCommand | ReplyError::NoDatabase => Kind::Unsupported,
            ReplyError::NotSupported
            | ReplyError::ExecWithoutMulti
            | ReplyError::FunctionExists(_)
            | ReplyError::NotFound
            | ReplyError::Other => Kind::Invalid,
        }
    }

    /// True when time may remove the cause. A command that was refused so was executed nowhere.
    pub(crate) fn is_transient(self) -> bool {
        matches!(self.kind(), Kind::Unavailable | Kind::NoSpace)
    }

    /// True when the command is not known to the server, or not passed on by the proxy.
    pub(crate) fn is_unknown_command(self) -> bool {
        matches!(self, ReplyError::UnknownCommand | ReplyError::NotSupported)
    }
}

/// The failure of an operation that was answered with an error reply.
pub(crate) fn reply_failure(url: &str, op: &'static str, text: &str) -> Error {
    Error::new(classify(text).kind(), op, format!("{url}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_replies_are_classified() {
        for (text, want) in [
            ("NOAUTH Authentication required.", ReplyError::BadCredentials),
            ("WRONGPASS invalid username-password pair", ReplyError::BadCredentials),
            ("ERR invalid password", ReplyError::BadCredentials),
            ("ERR AUTH <password> called without any password configured", ReplyError::BadCredentials),
            ("NOPERM this user has no permissions", ReplyError::NoPermission),
            ("LOADING Redis is loading the dataset in memory", ReplyError::Transient),
            ("BUSY Redis is busy running a script", ReplyError::Transient),
            ("MISCONF Redis is configured to save RDB snapshots", ReplyError::Transient),
            ("ERR max number of clients reached", ReplyError::Transient),
            ("CLUSTERDOWN The cluster is down", ReplyError::Transient),
            ("CLUSTERDOWN Hash slot not served", ReplyError::SlotNotServed),
            ("READONLY You can't write against a read only replica.", ReplyError::ReadOnly),
            ("OOM command not allowed when used memory > 'maxmemory'.", ReplyError::OutOfMemory),
            ("MOVED 5 10.0.0.2:7001", ReplyError::Moved(Some("10.0.0.2:7001"))),
            ("ASK 5 :7001", ReplyError::Ask(Some(":7001"))),
            ("CROSSSLOT Keys in request don't hash to the same slot", ReplyError::CrossSlot),
            ("BUSYKEY Target key name already exists.", ReplyError::KeyExists),
            ("ERR unknown command 'FUNCTION'", ReplyError::UnknownCommand),
            ("ERR unsupported command", ReplyError::NotSupported),
            ("Unknown command: `FUNCTION`", ReplyError::NotSupported),
            ("ERR DB index is out of range", ReplyError::NoDatabase),
            ("ERR EXEC without MULTI", ReplyError::ExecWithoutMulti),
            ("ERR Function f already exists", ReplyError::FunctionExists("f")),
            ("ERR Library 'x' already exists", ReplyError::Other),
            ("ERR Library not found", ReplyError::NotFound),
            ("WRONGTYPE Operation against a key", ReplyError::Other),
            (
                "EXECABORT Transaction discarded because of: NOREPLICAS Not enough good replicas",
                ReplyError::Transient,
            ),
            ("EXECABORT Transaction discarded because of previous errors.", ReplyError::Other),
        ] {
            assert_eq!(classify(text), want, "{text}");
        }
    }

    #[test]
    fn error_replies_decide_what_is_retried() {
        for (text, kind, transient) in [
            ("OOM command not allowed", Kind::NoSpace, true),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Kind::Unavailable, true),
            ("MOVED 5 h:1", Kind::Changed, false),
            ("NOPERM x", Kind::Forbidden, false),
            ("ERR syntax error", Kind::Invalid, false),
        ] {
            let reply = classify(text);
            assert_eq!((reply.kind(), reply.is_transient()), (kind, transient), "{text}");
        }
    }
}
