//! What the log of a migration says: every line has a code, a level and a sentence, in one table.

use model::error::{Error, Kind, Side};
use store::{Level, LogLine};

/// Something that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageCode {
    /// It was created.
    Created,
    /// It was configured and starts.
    Configured,
    /// It was started again.
    Restarted,
    /// It waits for others to end.
    Queued,
    /// It waits for others of its project to end.
    QueuedBehindProject,
    /// A check before the start found something to know.
    Warning,
    /// A snapshot begins.
    FullSyncStarted,
    /// So much of it is applied.
    FullSyncProgress,
    /// It is applied.
    FullSyncDone,
    /// The stream goes on from where it was.
    Resumed,
    /// Caught up any more.
    CaughtUp,
    /// A connection was lost.
    Disconnected,
    /// The position could not be continued from.
    FullResync,
    /// What was not migrated.
    Unsupported,
    /// Both sides counted.
    Counted,
    /// Both sides compared.
    Compared,
    /// They differ.
    Different,
    /// A stop was asked for.
    StopAsked,
    /// It has stopped.
    Stopped,
    /// It is done.
    Done,
    /// It failed.
    Failed,
    /// Its bandwidth or resume mode changed.
    Changed,
    /// A step of a cut-over.
    Cutover,
    /// A cut-over was undone.
    CutoverFailed,
    /// A file of a backup is applied.
    FileApplied,
}

/// Code, level and sentence of each; `{}` takes the parts in order.
pub(crate) const TABLE: [(MessageCode, &str, Level, &str); 25] = [
    (MessageCode::Created, "WB.0001", Level::Info, "the task was created"),
    (MessageCode::Configured, "WB.0002", Level::Info, "configured: {} from {} to {}"),
    (MessageCode::Restarted, "WB.0003", Level::Info, "started again with the stored configuration"),
    (
        MessageCode::Queued,
        "WB.0005",
        Level::Warn,
        "queued: {} migrations are running, the maximum that limits.memory allows",
    ),
    (
        MessageCode::QueuedBehindProject,
        "WB.0006",
        Level::Warn,
        "queued: {} migrations of this project are running; the remaining slots are reserved for other projects",
    ),
    (MessageCode::Warning, "WB.0004", Level::Warn, "{}"),
    (
        MessageCode::FullSyncStarted,
        "WB.0010",
        Level::Info,
        "full sync started: snapshot at offset {} of replication ID {} ({} keys)",
    ),
    (MessageCode::FullSyncProgress, "WB.0011", Level::Info, "full sync: {}% ({} of {} keys)"),
    (MessageCode::FullSyncDone, "WB.0012", Level::Info, "full sync finished: {} keys in {} s"),
    (MessageCode::Resumed, "WB.0020", Level::Info, "resumed from offset {}; no full sync needed"),
    (
        MessageCode::CaughtUp,
        "WB.0021",
        Level::Info,
        "the target has caught up: stop the writers, then stop this task, or run the cut-over",
    ),
    (MessageCode::Disconnected, "WB.0022", Level::Warn, "{}; reconnecting in {} s"),
    (
        MessageCode::FullResync,
        "WB.0023",
        Level::Warn,
        "the replication backlog no longer covers the checkpoint; a new full sync starts. Keys that the source \
         deleted in between may remain at the target",
    ),
    (MessageCode::Unsupported, "WB.0030", Level::Warn, "not migrated: {}"),
    (
        MessageCode::Counted,
        "WB.0040",
        Level::Info,
        "keys at the source: {} ({} with expiry); at the target: {} ({} with expiry)",
    ),
    (MessageCode::Compared, "WB.0041", Level::Info, "compared a sample of {} keys by value: all equal"),
    (
        MessageCode::Different,
        "WB.0042",
        Level::Warn,
        "compared a sample of {} keys by value: {} differ; the first is {}",
    ),
    (MessageCode::StopAsked, "WB.0050", Level::Info, "stop requested"),
    (MessageCode::Stopped, "WB.0051", Level::Info, "stopped"),
    (MessageCode::Done, "WB.0052", Level::Info, "finished"),
    (MessageCode::Failed, "WB.0053", Level::Error, "failed: {}"),
    (MessageCode::Changed, "WB.0054", Level::Info, "settings changed while running: {}"),
    (MessageCode::Cutover, "WB.0060", Level::Info, "cut-over: {}"),
    (MessageCode::CutoverFailed, "WB.0061", Level::Error, "the cut-over was rolled back: {}"),
    (MessageCode::FileApplied, "WB.0070", Level::Info, "file {} imported: {} keys in total"),
];

/// A failure as it is told; a remedy where one helps beyond the sentence itself.
pub(super) fn format_failure(failure: &Error) -> String {
    let side = match failure.side {
        Side::Source => "source: ",
        Side::Target => "target: ",
        Side::Local => "",
    };
    let helps = matches!(
        failure.kind,
        Kind::Connect
            | Kind::Timeout
            | Kind::BadCredentials
            | Kind::Forbidden
            | Kind::NoSpace
            | Kind::ReadOnly
            | Kind::Conflict
            | Kind::Unsupported
            | Kind::Unavailable
    );
    match failure.with_hint() {
        (what, hint) if helps => format!("{side}{what}; hint: {hint}"),
        _ => format!("{side}{}", failure.message),
    }
}

/// A line of the log.
pub fn log_line(message_code: MessageCode, at: i64, parts: &[String]) -> LogLine {
    let found = TABLE.iter().find(|(w, ..)| *w == message_code);
    let (code, level, text) = found.map_or(("WB.0000", Level::Info, "{}"), |(_, c, l, t)| (*c, *l, *t));
    let mut message = String::with_capacity(text.len());
    let mut rest = parts.iter();
    for (i, piece) in text.split("{}").enumerate() {
        if i > 0 {
            message.push_str(rest.next().map_or("", String::as_str));
        }
        message.push_str(piece);
    }
    LogLine { at, level, code: code.to_owned(), message, keywords: parts.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_codes_are_unique_and_placeholders_are_filled() {
        let mut codes: Vec<&str> = TABLE.iter().map(|(_, code, ..)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), TABLE.len());
        let said = log_line(MessageCode::FullSyncDone, 5, &["7".into(), "0.1".into()]);
        assert_eq!(
            (said.code.as_str(), said.message.as_str()),
            ("WB.0012", "full sync finished: 7 keys in 0.1 s")
        );
        assert_eq!(said.keywords, ["7", "0.1"]);
    }

    /// Changed sentences are seen in the review of the snapshot; `INSTA_UPDATE=always cargo test -p runtime` writes it.
    #[test]
    fn log_sentences_are_those_of_the_snapshot() {
        use std::fmt::Write as _;
        let mut catalogue = String::new();
        for (message_code, code, level, text) in TABLE {
            writeln!(catalogue, "{code} {level:?} {message_code:?}\n  en: {text}").unwrap();
        }
        insta::with_settings!({
            snapshot_path => "../../snapshots", prepend_module_to_snapshot => false, omit_expression => true
        }, {
            insta::assert_snapshot!("migration_log_messages", catalogue);
        });
    }

    /// The documentation lists every code with its sentence.
    #[test]
    fn log_codes_are_documented() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/redis.md")).unwrap();
        for (message_code, code, ..) in TABLE {
            assert!(page.contains(code), "{code} ({message_code:?}) is not in docs/redis.md");
        }
    }
}
