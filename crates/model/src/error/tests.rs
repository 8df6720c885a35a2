use super::*;

#[test]
fn message_with_a_hint_gets_no_second_one() {
    let own = Error::new(Kind::ReadOnly, "open", "it is a replica; hint: use its master").at(Side::Target);
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
        (Kind::Forbidden, Side::Source, "read", "`a`: Permission denied (os error 13)", Reason::LocalPath),
        (Kind::NoBucket, Side::Source, "open", "directory `/a`: not found", Reason::LocalPath),
        (Kind::Forbidden, Side::Local, "connect", "this service may not connect to h", Reason::EgressDenied),
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
    let (ops, texts) = words_of_reasons(include_str!("reason.rs"));
    assert!(ops.len() > 15 && texts.len() > 5, "operations {ops:?} and texts {texts:?} of `Reason::of_text`");
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
        snapshot_path => "../../snapshots", prepend_module_to_snapshot => false, omit_expression => true
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
