//! Errors of a store: which of them end the task, and which only an object.

use super::*;

#[test]
fn obj_01_refused_signature_fails_only_that_object() {
    let objects = ["k0", "k1", "k2", "k3", "k4"].map(|key| (key, "x"));
    let from = source(&objects);
    let accepted = AtomicUsize::new(0);
    let to = target(move |call| match (call.method, call.key) {
        // Refused once others have passed, as a value that the server hashes in another way.
        ("PUT", "k2") if accepted.load(Ordering::SeqCst) > 0 => Step::Refuse(403, "SignatureDoesNotMatch"),
        ("PUT", "k2") => Step::Refuse(503, "SlowDown"),
        ("PUT", key) if !key.is_empty() => {
            accepted.fetch_add(1, Ordering::SeqCst);
            Step::Serve
        }
        _ => Step::Serve,
    });
    let output = run(&from, &to, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let summary = json(&output);
    assert_eq!((count(&summary, "copied"), count(&summary, "failed")), (4, 1), "{summary}");
    assert_eq!(summary["failures"][0]["key"], "k2", "{summary}");
    assert_eq!(keys(&to, "to"), ["k0", "k1", "k3", "k4"]);
}

#[test]
fn obj_15_bucket_in_another_region_is_reported_with_that_region() {
    fn region() -> Vec<(&'static str, String)> {
        vec![("x-amz-bucket-region", "eu-central-1".to_owned())]
    }
    let moved: fn() -> Step = || {
        let xml = b"<Error><Code>PermanentRedirect</Code></Error>".to_vec();
        Step::Answer(301, region(), xml)
    };
    let malformed: fn() -> Step = || {
        let xml = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong</Message>\
                   <Region>eu-central-1</Region></Error>";
        Step::Answer(400, region(), xml.into())
    };
    for answer in [moved, malformed] {
        let dir = tempfile::tempdir().unwrap();
        let from = filled(scripted(move |_| answer()), &[("k", "x")]);
        let output = to_directory("copy", &from, "from", &dir.path().join("out"));
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        let text = said(&output);
        assert!(text.contains("eu-central-1") && text.contains("--source-region"), "{text}");
    }
}

#[test]
fn obj_20_full_target_fails_the_task_and_too_large_object_fails_alone() {
    let objects = ["k0", "k1", "k2", "k3", "k4"].map(|key| (key, "x"));
    let full = target(|call| match call.method == "PUT" && !call.key.is_empty() {
        true => Step::Refuse(507, "QuotaExceeded"),
        false => Step::Serve,
    });
    let output = run(&source(&objects), &full, &[]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(json(&output)["error"]["code"], "no_space");
    let small = target(|call| match (call.method, call.key) {
        ("PUT", "k2") => Step::Refuse(413, "EntityTooLarge"),
        _ => Step::Serve,
    });
    let output = run(&source(&objects), &small, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let summary = json(&output);
    assert_eq!((count(&summary, "copied"), count(&summary, "failed")), (4, 1), "{summary}");
}

#[test]
fn obj_17_token_that_expires_in_an_upload_keeps_finished_parts() {
    let from = source(&[]);
    from.bucket("from").put_with("huge", Content::Pattern(64 * MIB), Some(8 * MIB), &[]);
    let (expired, taken) = (Arc::new(AtomicBool::new(true)), AtomicUsize::new(0));
    let still = expired.clone();
    let to = target(move |call| {
        let over = match call.method == "PUT" && is_part(call.query) {
            true => taken.fetch_add(1, Ordering::SeqCst) >= 4,
            false => taken.load(Ordering::SeqCst) > 4,
        };
        match still.load(Ordering::SeqCst) && over && !call.key.is_empty() {
            true => Step::Refuse(400, "ExpiredToken"),
            false => Step::Serve,
        }
    });
    let state = tempfile::tempdir().unwrap();
    let (from_at, to_at) = (from.endpoint(), to.endpoint());
    let again = || copy((&from_at, "from"), (&to_at, "to"), state.path()).output().unwrap();
    let first = again();
    assert_eq!(first.status.code(), Some(3), "{}", said(&first));
    assert_eq!((parts_sent(&to), to.open_uploads()), (4, 1), "{}", said(&first));
    // A new token.
    expired.store(false, Ordering::SeqCst);
    let second = again();
    assert_eq!(second.status.code(), Some(0), "{}", said(&second));
    assert_eq!((parts_sent(&to), to.open_uploads()), (8, 0), "no finished part is sent again");
    assert_eq!(keys(&to, "to"), ["huge"]);
}
