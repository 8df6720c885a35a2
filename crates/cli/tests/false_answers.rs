//! Servers whose answers are not true, or not what the protocol says: whatever they say, a copy is right, or it is named as
//! failed. The behaviours were seen behind proxies and in partial implementations of S3; no available server has them.

use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use testkit::{Call, Options, S3Server, Script, Step};

use crate::support::{copy, json, whimbrel};

const MIB: u64 = 1 << 20;
/// The MD5 of `1`, and of `2`.
const MD5_OF_1: &str = "c4ca4238a0b923820dcc509a6f75849b";
const MD5_OF_2: &str = "c81e728d9d4c2f636f067f89cc14862c";

fn scripted(bucket: &str, decide: impl Fn(&Call<'_>) -> Step + Send + Sync + 'static) -> S3Server {
    let server = S3Server::start(Options { script: Some(Script::new(decide)), ..Options::default() });
    server.bucket(bucket);
    server
}

fn plain(bucket: &str, objects: &[(&str, &str)]) -> S3Server {
    let server = S3Server::start(Options::default());
    let contents = server.bucket(bucket);
    for (key, text) in objects {
        contents.put(key, (*text).to_owned());
    }
    server
}

/// `whimbrel copy s3://from s3://to`, with a ledger of its own.
fn run(from: &S3Server, to: &S3Server, more: &[&str]) -> Output {
    let state = tempfile::tempdir().unwrap();
    copy((&from.endpoint(), "from"), (&to.endpoint(), "to"), state.path()).args(more).output().unwrap()
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

fn page(keys: std::ops::Range<usize>, tail: &str) -> Step {
    let entry = |i: usize| {
        format!(
            "<Contents><Key>k{i:04}</Key><LastModified>2024-01-01T00:00:00Z</LastModified>\
             <ETag>\"{MD5_OF_1}\"</ETag><Size>1</Size></Contents>"
        )
    };
    let entries: String = keys.map(entry).collect();
    Step::Answer(200, vec![], format!("<ListBucketResult>{entries}{tail}</ListBucketResult>").into_bytes())
}

/// 15 keys in two pages; the first page ends as `tail` says.
fn two_pages(tail: &'static str) -> S3Server {
    let server = scripted("from", move |call| match (call.method, call.key) {
        ("GET", "") if call.query.contains("max-keys=1000") && !call.query.contains("delimiter") => {
            let second = ["continuation-token=more", "start-after=k0009", "marker=k0009"];
            match second.iter().any(|s| call.query.contains(s)) {
                true => page(10..15, "<IsTruncated>false</IsTruncated>"),
                false => page(0..10, tail),
            }
        }
        _ => Step::Serve,
    });
    for i in 0..15 {
        server.bucket("from").put(&format!("k{i:04}"), "1".to_owned());
    }
    server
}

#[test]
fn listing_goes_on_however_the_server_says_that_it_is_truncated() {
    for tail in [
        "<IsTruncated>True</IsTruncated><NextContinuationToken>more</NextContinuationToken>",
        "<IsTruncated>1</IsTruncated><NextContinuationToken>more</NextContinuationToken>",
        "<NextContinuationToken>more</NextContinuationToken>",
        // The first version, whose marker is not the last key that was shown.
        "<IsTruncated>true</IsTruncated><NextMarker>k%30009</NextMarker>",
    ] {
        let (from, to) = (two_pages(tail), plain("to", &[]));
        let output = run(&from, &to, &[]);
        assert_eq!(output.status.code(), Some(0), "{tail}: {}", said(&output));
        assert_eq!(count(&json(&output), "copied"), 15, "{tail}");
    }
}

#[test]
fn completion_without_effect_is_not_a_copy() {
    for body in ["", "<html>ok</html>", "{}", "<CompleteMultipartUploadResult/>"] {
        let from = plain("from", &[]);
        from.bucket("from").put("large", "x".repeat(40 << 20));
        let to = scripted("to", move |call| match (call.method, call.query.contains("uploadId=")) {
            ("POST", true) => Step::Answer(200, vec![], body.as_bytes().to_vec()),
            _ => Step::Serve,
        });
        let output = run(&from, &to, &[]);
        assert_eq!(output.status.code(), Some(1), "{body}: {}", said(&output));
        assert_eq!(keys(&to, "to"), Vec::<String>::new(), "{body}");
    }
}

#[test]
fn object_whose_own_length_contradicts_the_listing_is_not_cut() {
    let from = scripted("from", |call| match (call.method, call.key) {
        ("HEAD", "large") => {
            let headers = vec![
                ("content-length", (20 * MIB).to_string()),
                ("etag", format!("\"{MD5_OF_1}\"")),
                ("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT".to_owned()),
            ];
            Step::Answer(200, headers, vec![])
        }
        ("GET", "") if call.query.contains("list-type=2") => {
            let entry = format!(
                "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>large</Key>\
                 <LastModified>2024-01-01T00:00:00Z</LastModified><ETag>\"{MD5_OF_1}\"</ETag>\
                 <Size>{}</Size></Contents></ListBucketResult>",
                40 * MIB
            );
            Step::Answer(200, vec![], entry.into_bytes())
        }
        _ => Step::Serve,
    });
    let to = plain("to", &[]);
    let output = run(&from, &to, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(keys(&to, "to"), Vec::<String>::new());
}

#[test]
fn body_without_etag_is_held_to_the_listed_one() {
    let from = scripted("from", |call| match (call.method, call.key) {
        // Another byte than the listed MD5 is of.
        ("GET", "k") => Step::Answer(200, vec![("content-length", "1".to_owned())], b"2".to_vec()),
        _ => Step::Serve,
    });
    from.bucket("from").put("k", "1".to_owned());
    let dir = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let mut command = whimbrel();
    command.args(["copy", "s3://from"]).arg(dir.path().join("to"));
    command.args(["--json", "--source-endpoint", &from.endpoint(), "--state-dir"]).arg(state.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!dir.path().join("to/k").exists());
}

#[test]
fn wrong_object_at_the_target_is_deleted_and_copied_again() {
    let honest = std::sync::Arc::new(AtomicBool::new(false));
    let from = plain("from", &[("k", "1")]);
    let tells_truth = honest.clone();
    let to = scripted("to", move |call| match (call.method, call.key, tells_truth.load(Ordering::SeqCst)) {
        // It keeps other bytes, and its ETag says so.
        ("PUT", "k", false) => Step::Answer(200, vec![("etag", format!("\"{MD5_OF_2}\""))], vec![]),
        ("HEAD", "k", false) => {
            let headers = vec![("content-length", "1".to_owned()), ("etag", format!("\"{MD5_OF_2}\""))];
            Step::Answer(200, headers, vec![])
        }
        _ => Step::Serve,
    });
    let output = run(&from, &to, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(to.log().iter().any(|l| l.method == "DELETE" && l.key == "k"), "the wrong object stays");
    honest.store(true, Ordering::SeqCst);
    let output = run(&from, &to, &[]);
    assert_eq!((output.status.code(), count(&json(&output), "copied")), (Some(0), 1));
}

#[test]
fn refused_write_deletes_nothing() {
    let from = plain("from", &[("k", "1")]);
    let to = scripted("to", |call| match (call.method, call.key) {
        ("PUT", "k") => Step::Refuse(400, "BadDigest"),
        _ => Step::Serve,
    });
    to.bucket("to").put("k", "older".to_owned());
    let output = run(&from, &to, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(keys(&to, "to"), ["k"]);
    assert!(!to.log().iter().any(|l| l.method == "DELETE"));
}

#[test]
fn delete_keeps_what_the_same_run_has_listed() {
    let objects: Vec<(String, &str)> = (0..20).map(|i| (format!("k{i:02}"), "1")).collect();
    let objects: Vec<(&str, &str)> = objects.iter().map(|(k, t)| (k.as_str(), *t)).collect();
    // After the first listing the source shows no more than twelve of twenty.
    let listings = AtomicUsize::new(0);
    let from = scripted("from", move |call| match (call.method, call.key) {
        ("GET", "") if call.query.ends_with("prefix=") && !call.query.contains("delimiter") => match listings
            .fetch_add(1, Ordering::SeqCst)
        {
            0 => Step::Serve,
            _ => {
                let entries: String = (0..12)
                    .map(|i| {
                        format!(
                            "<Contents><Key>k{i:02}</Key><LastModified>2024-01-01T00:00:00Z</LastModified>\
                                 <ETag>\"{MD5_OF_1}\"</ETag><Size>1</Size></Contents>"
                        )
                    })
                    .collect();
                let xml =
                    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>");
                Step::Answer(200, vec![], xml.into_bytes())
            }
        },
        ("GET", "")
            if call.query.contains("prefix=k1")
                && !call.query.ends_with("k10")
                && !call.query.ends_with("k11") =>
        {
            let none = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
            Step::Answer(200, vec![], none.as_bytes().to_vec())
        }
        ("HEAD", key) if key >= "k12" => Step::Answer(404, vec![], vec![]),
        _ => Step::Serve,
    });
    for (key, text) in &objects {
        from.bucket("from").put(key, (*text).to_owned());
    }
    let to = plain("to", &[("extra", "1")]);
    let output = run(&from, &to, &["--delete", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let left = keys(&to, "to");
    assert_eq!(left.len(), 20, "{left:?}");
    assert!(!left.contains(&"extra".to_owned()));
}

#[test]
fn folder_with_a_marker_or_an_empty_first_page_is_a_folder() {
    let from = plain("from", &[("2024", "file"), ("2024/", ""), ("2024/a", "1"), ("2024/b", "1")]);
    let to = plain("to", &[]);
    let state = tempfile::tempdir().unwrap();
    let output =
        copy((&from.endpoint(), "from/2024"), (&to.endpoint(), "to"), state.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(keys(&to, "to"), ["a", "b"]);
}

#[test]
fn key_that_is_not_utf8_is_refused_by_name() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "1").unwrap();
    std::fs::write(dir.path().join("plain"), "1").unwrap();
    let to = plain("to", &[]);
    let state = tempfile::tempdir().unwrap();
    let mut command = whimbrel();
    command.arg("copy").arg(dir.path()).args(["s3://to", "--json", "--target-endpoint", &to.endpoint()]);
    let output = command.arg("--state-dir").arg(state.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let summary = json(&output);
    assert_eq!((count(&summary, "copied"), count(&summary, "failed")), (1, 1), "{summary}");
    assert_eq!(keys(&to, "to"), ["plain"]);
}
