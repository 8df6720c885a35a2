//! Bytes: checksums that a store requires, and content that differs.

use super::*;

#[test]
fn obj_02_bucket_that_requires_checksums_accepts_all_objects() {
    let from = source(&[("small", "hello"), ("empty", "")]);
    from.bucket("from").put_with("large", Content::Pattern(40 * MIB), Some(8 * MIB), &[]);
    let to = target(|call| {
        let has = |name: &str| call.headers.keys().any(|n| n.as_str().starts_with(name));
        if call.method == "PUT" && !call.key.is_empty() && !has("content-md5") && !has("x-amz-checksum-") {
            let text = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put requests";
            let xml = format!("<Error><Code>InvalidRequest</Code><Message>{text}</Message></Error>");
            return Step::Answer(400, vec![], xml.into_bytes());
        }
        Step::Serve
    });
    let output = run(&from, &to, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let etags = |server: &S3Server, bucket: &str| -> Vec<(String, String)> {
        server.bucket(bucket).objects().into_iter().map(|(key, object)| (key, object.etag)).collect()
    };
    assert_eq!(etags(&from, "from"), etags(&to, "to"));
}

#[test]
fn obj_03_encrypted_target_writes_each_object_once() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    let to = target(|call| match call.key {
        "" => Step::Serve,
        _ => Step::Encrypted,
    });
    let state = tempfile::tempdir().unwrap();
    let mut command = whimbrel();
    command.arg("copy").arg(dir.path()).args(["s3://to", "--json", "--target-endpoint", &to.endpoint()]);
    let output = command.arg("--state-dir").arg(state.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let log = to.log();
    let whole = |l: &&Logged| l.method == "PUT" && l.query.is_empty();
    let writes = log.iter().filter(whole).filter(|l| ["a", "b", "c"].contains(&&*l.key)).count();
    assert_eq!(writes, 3, "each object is written once");
    assert_eq!(keys(&to, "to"), ["a", "b", "c"]);
}

#[test]
fn obj_14_response_without_content_length_is_read_to_the_listed_size() {
    let dir = tempfile::tempdir().unwrap();
    let from = scripted(|call| match call.method == "GET" && !call.key.is_empty() {
        true => Step::Unsized,
        false => Step::Serve,
    });
    let from = filled(from, &[("small", "hello"), ("empty", "")]);
    let large = Content::Pattern(40 * MIB);
    from.bucket("from").put_with("large", large.clone(), None, &[]);
    let output = to_directory("copy", &from, "from", &dir.path().join("out"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let read = |name: &str| std::fs::read(dir.path().join("out").join(name)).unwrap();
    assert_eq!((read("small"), read("empty")), (b"hello".to_vec(), vec![]));
    assert!(read("large") == large.bytes(0..40 * MIB), "the large object differs");
}

/// The source lists 100 bytes with their MD5, and answers a read with other bytes under that ETag.
#[test]
fn sec_f02_content_that_differs_from_the_listed_object_fails() {
    let listed = "a".repeat(100);
    let etag = {
        let server = source(&[("k", &listed)]);
        server.bucket("from").objects()[0].1.etag.clone()
    };
    for length in [100usize, 50, 5_000] {
        let etag = format!("\"{etag}\"");
        let from = scripted(move |call| match (call.method, call.key) {
            ("GET", "k") => Step::Answer(200, vec![("etag", etag.clone())], vec![b'b'; length]),
            _ => Step::Serve,
        });
        let (from, to) = (filled(from, &[("k", &listed)]), target(serve));
        let output = run(&from, &to, &[]);
        assert_eq!(output.status.code(), Some(1), "{length} bytes: {}", said(&output));
        let summary = json(&output);
        assert_eq!(
            (count(&summary, "copied"), count(&summary, "failed")),
            (0, 1),
            "{length} bytes: {summary}"
        );
    }
}

/// A proxy answers the first read with other bytes under the right ETag: the file that stands at the target stays, and the
/// next run copies the object.
#[test]
fn sec_f02_wrong_bytes_are_not_published_and_the_next_run_copies_the_object() {
    let listed = "a".repeat(100);
    let etag = format!("\"{}\"", source(&[("k", &listed)]).bucket("from").objects()[0].1.etag);
    let broken = Arc::new(AtomicBool::new(true));
    let still = broken.clone();
    let from = scripted(move |call| match (call.method, call.key) {
        ("GET", "k") if still.load(Ordering::SeqCst) => {
            Step::Answer(200, vec![("etag", etag.clone())], vec![b'b'; 100])
        }
        _ => Step::Serve,
    });
    let from = filled(from, &[("k", &listed)]);
    let to = tempfile::tempdir().unwrap();
    std::fs::write(to.path().join("k"), "before").unwrap();
    let first = to_directory("copy", &from, "from", to.path());
    assert_eq!(first.status.code(), Some(1), "{}", said(&first));
    assert_eq!(std::fs::read_to_string(to.path().join("k")).unwrap(), "before");
    broken.store(false, Ordering::SeqCst);
    let second = to_directory("copy", &from, "from", to.path());
    assert_eq!(second.status.code(), Some(0), "{}", said(&second));
    assert_eq!(std::fs::read_to_string(to.path().join("k")).unwrap(), listed);
}

/// An object of two parts whose second is answered with other bytes: its ETag is the MD5 of the parts' MD5s.
#[test]
fn sec_f02_composite_etag_is_checked_towards_directories() {
    let size = 32 * MIB;
    let make = |server: &S3Server| {
        server.bucket("from").put_with("huge", Content::Pattern(size), Some(16 * MIB), &[]);
    };
    let etag = {
        let server = source(&[]);
        make(&server);
        format!("\"{}\"", server.bucket("from").objects()[0].1.etag)
    };
    assert!(etag.ends_with("-2\""), "{etag}");
    for wrong in [false, true] {
        let etag = etag.clone();
        let from = scripted(move |call| {
            let range = call.headers.get("range").and_then(|v| v.to_str().ok()).unwrap_or_default();
            let from = range.strip_prefix("bytes=").and_then(|r| r.split_once('-'));
            match from.and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?))) {
                Some((first, last)) if wrong && call.method == "GET" && first >= 16 * MIB => {
                    let range = format!("bytes {first}-{last}/{size}");
                    let len = usize::try_from(last + 1 - first).unwrap();
                    Step::Answer(206, vec![("etag", etag.clone()), ("content-range", range)], vec![b'x'; len])
                }
                _ => Step::Serve,
            }
        });
        make(&from);
        let to = tempfile::tempdir().unwrap();
        let output = to_directory("copy", &from, "from", to.path());
        let summary = json(&output);
        let expected = if wrong { (Some(1), 0, 1) } else { (Some(0), 1, 0) };
        let found = (output.status.code(), count(&summary, "copied"), count(&summary, "failed"));
        assert_eq!(found, expected, "{summary} {}", said(&output));
        assert_eq!(to.path().join("huge").exists(), !wrong);
        if !wrong {
            assert_eq!(summary["proof"]["digest"].as_u64(), Some(1), "{summary}");
        }
    }
}
