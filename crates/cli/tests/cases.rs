//! One test for each entry of the shared cases that needs the whole program; each carries the id of its entry.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use testkit::content::Content;
use testkit::s3::Logged;
use testkit::{Call, Options, S3Server, Script, Step};

use crate::support::{copy, json, whimbrel};

const MIB: u64 = 1 << 20;
/// The MD5 of `1`.
const MD5_OF_1: &str = "c4ca4238a0b923820dcc509a6f75849b";

fn scripted(decide: impl Fn(&Call<'_>) -> Step + Send + Sync + 'static) -> S3Server {
    S3Server::start(Options { script: Some(Script::new(decide)), ..Options::default() })
}

/// A server with these objects in the bucket `from`.
fn source(objects: &[(&str, &str)]) -> S3Server {
    filled(S3Server::start(Options::default()), objects)
}

fn filled(server: S3Server, objects: &[(&str, &str)]) -> S3Server {
    let bucket = server.bucket("from");
    for (key, text) in objects {
        bucket.put(key, (*text).to_owned());
    }
    server
}

/// A server with an empty bucket `to`.
fn target(decide: impl Fn(&Call<'_>) -> Step + Send + Sync + 'static) -> S3Server {
    let server = scripted(decide);
    server.bucket("to");
    server
}

fn serve(_: &Call<'_>) -> Step {
    Step::Serve
}

/// `whimbrel copy s3://from s3://to`, with a ledger of its own.
fn run(from: &S3Server, to: &S3Server, more: &[&str]) -> Output {
    let state = tempfile::tempdir().unwrap();
    copy((&from.endpoint(), "from"), (&to.endpoint(), "to"), state.path()).args(more).output().unwrap()
}

/// `whimbrel COMMAND s3://PLACE DIRECTORY`.
fn to_directory(command: &str, from: &S3Server, place: &str, to: &Path) -> Output {
    let state = tempfile::tempdir().unwrap();
    let mut command_line = whimbrel();
    command_line.args([command, &format!("s3://{place}")]).arg(to);
    command_line.args(["--json", "--source-endpoint", &from.endpoint()]);
    if command == "copy" {
        command_line.arg("--state-dir").arg(state.path());
    }
    command_line.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn keys(server: &S3Server, bucket: &str) -> Vec<String> {
    server.bucket(bucket).objects().into_iter().map(|(key, _)| key).collect()
}

fn count(summary: &Value, what: &str) -> u64 {
    summary["objects"][what].as_u64().unwrap_or_else(|| panic!("`{what}` is missing in {summary}"))
}

fn parts_sent(server: &S3Server) -> usize {
    let log = server.log();
    log.iter().filter(|l| l.method == "PUT" && l.status == 200 && is_part(&l.query)).count()
}

/// A part of an object. Parts from number 5000 on are samples, which show how the target verifies checksums.
fn is_part(query: &str) -> bool {
    let number = query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")?.parse::<u32>().ok());
    number.is_some_and(|number| number < 5000)
}

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

/// Keys are listed, and reads answer that they are not there.
fn with_a_lost_object() -> S3Server {
    let server = scripted(|call| match (call.method, call.key) {
        ("GET" | "HEAD", "lost") => Step::Refuse(404, "NoSuchKey"),
        _ => Step::Serve,
    });
    filled(server, &[("fine", "1"), ("lost", "22")])
}

#[test]
fn obj_05_listed_object_that_is_not_found_fails() {
    let (from, to) = (with_a_lost_object(), target(serve));
    to.bucket("to").put("lost", "last good copy");
    let output = run(&from, &to, &["--delete", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let summary = json(&output);
    assert_eq!((count(&summary, "failed"), count(&summary, "gone")), (1, 0), "{summary}");
    assert_eq!(summary["failures"][0]["code"], "not_found", "{summary}");
    assert_eq!(keys(&to, "to"), ["fine", "lost"]);
}

#[test]
fn obj_05_listed_object_is_not_deleted_at_the_target() {
    let (from, to) = (with_a_lost_object(), target(serve));
    for key in ["lost", "old"] {
        to.bucket("to").put(key, "last good copy");
    }
    // The object is left as it is, so that the run succeeds and goes on to the removal.
    let output = run(&from, &to, &["--overwrite", "never", "--delete", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(keys(&to, "to"), ["fine", "lost"], "{}", said(&output));
}

/// Copies 50 objects; the source bucket is gone from the first request behind them for which `when` holds.
fn source_bucket_vanishes(when: fn(&Call<'_>) -> bool) {
    let copied = Arc::new(AtomicUsize::new(0));
    let seen = copied.clone();
    let from = scripted(move |call| match seen.load(Ordering::SeqCst) >= 50 && when(call) {
        true => Step::DropBucket,
        false => Step::Serve,
    });
    for i in 0..50 {
        from.bucket("from").put(&format!("f{i:02}"), format!("{i}"));
    }
    let to = target(move |call| {
        if call.method == "PUT" && call.key.starts_with('f') {
            copied.fetch_add(1, Ordering::SeqCst);
        }
        Step::Serve
    });
    for i in 0..10 {
        to.bucket("to").put(&format!("old{i}"), "x");
    }
    let output = run(&from, &to, &["--delete", "--yes"]);
    assert_ne!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(to.bucket("to").len(), 60, "nothing is removed: {}", said(&output));
}

#[test]
fn obj_07_source_bucket_missing_before_second_listing_deletes_nothing() {
    source_bucket_vanishes(|call| call.method == "GET" && call.key.is_empty());
}

#[test]
fn obj_07_source_bucket_missing_after_second_listing_deletes_nothing() {
    source_bucket_vanishes(|call| call.method == "HEAD" && call.key.starts_with("old"));
}

#[test]
fn obj_07_deleting_more_than_half_of_a_target_requires_an_option() {
    let (from, to) = (source(&[("a", "1")]), target(serve));
    for key in ["x", "y", "z"] {
        to.bucket("to").put(key, "x");
    }
    let refused = run(&from, &to, &["--delete", "--yes"]);
    assert_ne!(refused.status.code(), Some(0), "{}", said(&refused));
    assert!(said(&refused).contains("--delete-most"), "{}", said(&refused));
    assert_eq!(to.bucket("to").len(), 4);
    let done = run(&from, &to, &["--delete", "--yes", "--delete-most"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert_eq!(keys(&to, "to"), ["a"]);
}

#[test]
fn obj_08_objects_deleted_during_the_copy_are_counted_and_named() {
    let from = scripted(|call| match (call.method, call.key.starts_with("gone")) {
        ("GET" | "HEAD", true) => Step::Vanish,
        _ => Step::Serve,
    });
    let from = filled(from, &[("ok", "1")]);
    for i in 0..8 {
        from.bucket("from").put(&format!("gone{i}"), "1");
    }
    let to = target(serve);
    let output = run(&from, &to, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let summary = json(&output);
    let parts: u64 = ["copied", "skipped", "failed", "gone"].map(|part| count(&summary, part)).iter().sum();
    assert_eq!((count(&summary, "found"), count(&summary, "gone"), parts), (9, 8, 9), "{summary}");
    assert!(said(&output).contains("8 gone"), "{}", said(&output));
}

#[test]
fn obj_09_times_up_to_1970_are_kept_and_updates_are_detected() {
    use std::os::unix::fs::MetadataExt;
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    let five_years = Duration::from_secs(5 * 365 * 86_400);
    let times = [("zero", UNIX_EPOCH), ("negative", UNIX_EPOCH - five_years)];
    let write = |text: fn(&str) -> String, later: Duration| {
        for (name, time) in times {
            std::fs::write(from.join(name), text(name)).unwrap();
            let file = std::fs::File::options().write(true).open(from.join(name)).unwrap();
            file.set_modified(time + later).unwrap();
        }
        let mut command = whimbrel();
        command.arg("copy").args([&from, &to]).arg("--state-dir").arg(state.path());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    };
    write(str::to_owned, Duration::ZERO);
    let mtime = |name: &str| std::fs::metadata(to.join(name)).unwrap().mtime();
    assert_eq!((mtime("zero"), mtime("negative")), (0, -157_680_000));
    write(str::to_uppercase, Duration::from_secs(5));
    assert_eq!((mtime("zero"), mtime("negative")), (5, -157_679_995));
    assert_eq!(std::fs::read(to.join("zero")).unwrap(), b"ZERO");
    assert_eq!(std::fs::read(to.join("negative")).unwrap(), b"NEGATIVE");
}

/// Credentials that may list, read and write below `team-a/` only.
fn one_prefix_only(call: &Call<'_>) -> Step {
    let listed = call.method == "GET" && call.key.is_empty() && call.query.contains("prefix=team-a%2F");
    match call.key.starts_with("team-a/") || listed {
        true => Step::Serve,
        false => Step::Refuse(403, "AccessDenied"),
    }
}

#[test]
fn obj_11_credentials_limited_to_a_prefix_copy_that_prefix() {
    let from = filled(scripted(one_prefix_only), &[("team-a/x", "1"), ("team-b/y", "2")]);
    let to = target(one_prefix_only);
    let state = tempfile::tempdir().unwrap();
    let (from_at, to_at) = (from.endpoint(), to.endpoint());
    let mut command = copy((&from_at, "from/team-a/"), (&to_at, "to/team-a/"), state.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(keys(&to, "to"), ["team-a/x"]);
}

#[test]
fn obj_11_write_only_target_works_with_overwrite_always() {
    let from = source(&[("a", "1"), ("b", "2")]);
    let to = target(|call| match call.method == "PUT" && !call.key.is_empty() {
        true => Step::Serve,
        false => Step::Refuse(403, "AccessDenied"),
    });
    let output = run(&from, &to, &["--overwrite", "always"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(keys(&to, "to"), ["a", "b"]);
}

#[test]
fn obj_12_single_object_is_copied_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let from = source(&[("dir/file.bin", "content"), ("dir/other", "x")]);
    let out = dir.path().join("out");
    let output = to_directory("copy", &from, "from/dir/file.bin", &out);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(count(&json(&output), "copied"), 1);
    let file = dir.path().join("out/file.bin");
    assert_eq!(std::fs::read(&file).unwrap(), b"content");
    // A file of a directory likewise.
    let state = tempfile::tempdir().unwrap();
    let mut command = whimbrel();
    command.arg("copy").arg(&file).arg(dir.path().join("again")).arg("--state-dir").arg(state.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(std::fs::read(dir.path().join("again/file.bin")).unwrap(), b"content");
}

#[test]
fn obj_12_prefix_without_objects_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let from = source(&[("dir/file.bin", "content")]);
    std::fs::create_dir(dir.path().join("out")).unwrap();
    for command in ["copy", "verify"] {
        let output = to_directory(command, &from, "from/no-such/", &dir.path().join("out"));
        assert_ne!(output.status.code(), Some(0), "{command}: {}", said(&output));
        assert!(said(&output).contains("no object at prefix `no-such/`"), "{command}: {}", said(&output));
    }
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

/// `ListObjectVersions` of a bucket in which the key `m` has versions without an end, ten in each answer.
fn endless_versions(query: &str) -> String {
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap_or_default();
    let version = |key: &str, id: usize| {
        format!(
            "<Version><Key>{key}</Key><VersionId>v{id:07}</VersionId><IsLatest>false</IsLatest>\
             <LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;{MD5_OF_1}&quot;</ETag>\
             <Size>1</Size></Version>"
        )
    };
    let (prefix, key, id) = (value("prefix="), value("key-marker="), value("version-id-marker="));
    let begun = id.trim_start_matches('v').parse::<usize>().unwrap_or(0);
    let (first, more) = match (key, id) {
        _ if prefix == "z" => (version("z", 1), false),
        _ if prefix == "m" => (String::new(), true),
        ("m", "") => (version("z", 1), false),
        ("", _) => (version("a", 1), true),
        ("a" | "m", _) => (String::new(), true),
        _ => (String::new(), false),
    };
    let last = begun + 10;
    let of_m: String = (begun + 1..=last).filter(|_| more).map(|i| version("m", i)).collect();
    let next =
        format!("<NextKeyMarker>m</NextKeyMarker><NextVersionIdMarker>v{last:07}</NextVersionIdMarker>");
    let next = if more { next } else { String::new() };
    format!("<ListVersionsResult><IsTruncated>{more}</IsTruncated>{next}{first}{of_m}</ListVersionsResult>")
}

/// Answers what is asked about versions; `listed`: the versions.
fn versioned(call: &Call<'_>, listed: impl Fn(&str) -> String) -> Step {
    let asks =
        |name: &str| call.key.is_empty() && call.query.split('&').any(|p| p.trim_end_matches('=') == name);
    if asks("versioning") {
        let xml = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        return Step::Answer(200, vec![], xml.into());
    }
    if asks("versions") {
        return Step::Answer(200, vec![], listed(call.query).into_bytes());
    }
    Step::Serve
}

#[test]
fn obj_16_key_with_too_many_versions_fails_only_that_key() {
    let from = scripted(|call| versioned(call, endless_versions));
    let from = filled(from, &[("a", "1"), ("m", "1"), ("z", "1")]);
    let none = "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>";
    let to = target(move |call| versioned(call, |_| none.to_owned()));
    let output = run(&from, &to, &["--all-versions"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("`m`") || said(&output).contains("failed m"), "{}", said(&output));
    assert_eq!(keys(&to, "to"), ["a", "z"], "{}", said(&output));
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

/// A link that leads nowhere has no content to copy, but its name is not missing at the source.
#[test]
fn obj_07_name_of_a_broken_link_is_not_deleted_at_the_target() {
    let (from, to, state) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["a", "b", "c"] {
        std::fs::write(from.path().join(name), name).unwrap();
        std::fs::write(to.path().join(name), name).unwrap();
    }
    std::fs::remove_file(from.path().join("b")).unwrap();
    std::os::unix::fs::symlink("nowhere", from.path().join("b")).unwrap();
    let mut command = whimbrel();
    command.arg("copy").args([from.path(), to.path()]).args(["--delete", "--yes", "--json", "--state-dir"]);
    let output = command.arg(state.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(to.path().join("b")).unwrap(), "b");
}

/// Runs `.ci/run` in a directory of programs that do nothing but `apt-get`, which notes its words; answers them.
fn gate_without(missing: &[&str]) -> String {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let noted = dir.path().join("noted");
    let program = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    };
    let all = [
        "cc",
        "make",
        "pgrep",
        "python3",
        "npm",
        "redis-server",
        "nutcracker",
        "curl",
        "openssl",
        "readelf",
        "ssh-keygen",
        "cargo",
    ];
    for name in all.iter().filter(|name| !missing.contains(name)) {
        program(name, "#!/bin/sh\nexit 0\n");
    }
    program("apt-get", &format!("#!/bin/sh\necho \"$@\" >> {}\n", noted.display()));
    std::os::unix::fs::symlink("/usr/bin/dirname", dir.path().join("dirname")).unwrap();
    let gate = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci/run");
    let output = Command::new("/bin/bash").arg(gate).env("PATH", dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    std::fs::read_to_string(noted).unwrap_or_default()
}

#[test]
fn c14_ci_script_installs_only_missing_tools() {
    assert_eq!(gate_without(&[]), "", "nothing is missing, so nothing is installed");
    let installed = gate_without(&["make"]);
    assert!(installed.lines().last().is_some_and(|line| line.ends_with(" make")), "{installed}");
    // An npm of another origin stays: Debian's conflicts with it.
    assert!(!installed.contains("npm") && !installed.contains("nodejs"), "{installed}");
}
