//! `whimbrel copy` and `whimbrel verify`.

use std::collections::BTreeMap;

use testkit::content::Content;
use testkit::faults::{Faults, InjectedFault};
use testkit::s3::Bucket;
use testkit::{Options, S3Server};

use crate::support::{copy, json, whimbrel};

const MIB: u64 = 1 << 20;

/// Keys and contents of a bucket.
fn contents(server: &S3Server, bucket: &str) -> BTreeMap<String, Vec<u8>> {
    let objects = server.bucket(bucket).objects();
    objects.into_iter().map(|(k, o)| (k, o.content.bytes(0..o.content.len()))).collect()
}

#[test]
fn directory_copied_twice_skips_all_the_second_time() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir_all(from.join("sub/deep")).unwrap();
    std::fs::write(from.join("sub/deep/file"), "deep").unwrap();
    std::fs::write(from.join("top"), vec![1; 40 << 20]).unwrap();
    let run = || {
        let mut command = whimbrel();
        command.arg("copy").arg(&from).arg(&to).arg("--json").arg("--state-dir").arg(state.path());
        command.output().unwrap()
    };
    let first = run();
    assert_eq!(first.status.code(), Some(0), "{}", String::from_utf8_lossy(&first.stderr));
    let summary = json(&first);
    assert_eq!(
        (summary["state"].as_str(), summary["objects"]["copied"].as_u64()),
        (Some("succeeded"), Some(2))
    );
    assert_eq!(summary["proof"]["digest"], 2);
    assert_eq!(std::fs::read(to.join("sub/deep/file")).unwrap(), b"deep");
    let again = json(&run());
    assert_eq!(
        (again["objects"]["copied"].as_u64(), again["objects"]["skipped"].as_u64()),
        (Some(0), Some(2))
    );
    let verified = whimbrel().arg("verify").arg(&from).arg(&to).output().unwrap();
    assert_eq!(verified.status.code(), Some(0));
    std::fs::write(to.join("sub/deep/file"), "DEEP").unwrap();
    let differs = whimbrel().arg("verify").arg(&from).arg(&to).output().unwrap();
    assert_eq!(differs.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&differs.stdout).contains("differs sub/deep/file"));
}

/// Runs `whimbrel copy` between directories; answers its exit code, summary and stderr.
fn copy_dirs(
    from: &std::path::Path,
    to: &std::path::Path,
    more: &[&str],
) -> (i32, serde_json::Value, String) {
    let state = tempfile::tempdir().unwrap();
    let mut command = whimbrel();
    command.arg("copy").arg(from).arg(to).arg("--json").arg("--state-dir").arg(state.path()).args(more);
    let output = command.output().unwrap();
    (output.status.code().unwrap(), json(&output), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn file_permissions_are_kept_and_never_widened() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let mode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    std::fs::create_dir_all(from.join("private/in")).unwrap();
    for (name, content, bits) in [("private/in/key", 1, 0o600), ("run", 1, 0o755), ("large", 40 << 20, 0o640)]
    {
        std::fs::write(from.join(name), vec![7; content]).unwrap();
        std::fs::set_permissions(from.join(name), PermissionsExt::from_mode(bits)).unwrap();
    }
    std::fs::set_permissions(from.join("private"), PermissionsExt::from_mode(0o700)).unwrap();
    let (code, _, stderr) = copy_dirs(&from, &to, &[]);
    assert_eq!(code, 0, "{stderr}");
    for (name, bits) in [("private", 0o700), ("private/in/key", 0o600), ("run", 0o755), ("large", 0o640)] {
        assert_eq!(mode(to.join(name)), bits, "{name}");
    }
}

#[test]
fn obj_21_incomparable_objects_are_written_again_and_exclusions_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir_all(from.join(".whimbrel")).unwrap();
    std::fs::write(from.join(".whimbrel/notes"), "mine").unwrap();
    std::fs::write(from.join("a"), "hello").unwrap();
    std::os::unix::fs::symlink("nowhere", from.join("dangling")).unwrap();
    std::os::unix::fs::symlink("/etc", from.join("away")).unwrap();
    let (code, _, stderr) = copy_dirs(&from, &to, &[]);
    assert_eq!(code, 0, "{stderr}");
    for name in ["`.whimbrel`", "`dangling` (broken symbolic link)", "`away` (symbolic link out of the root)"]
    {
        assert!(stderr.contains(name), "{name} is missing in {stderr}");
    }
    std::fs::write(to.join("a"), "jello").unwrap();
    let (_, again, _) = copy_dirs(&from, &to, &["--overwrite", "checksum"]);
    assert_eq!(again["objects"]["copied"], 1);
    assert_eq!(std::fs::read(to.join("a")).unwrap(), b"hello");
}

#[test]
fn obj_22_unreadable_directory_fails_alone_with_its_reason() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    std::fs::create_dir_all(from.join("no")).unwrap();
    for name in ["no/secret", "a", "z"] {
        std::fs::write(from.join(name), name).unwrap();
    }
    // Nobody, and not root, for whom everything is readable.
    std::fs::set_permissions(from.join("no"), PermissionsExt::from_mode(0o000)).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups"]).arg(whimbrel().get_program()).arg("copy").arg(&from);
    command.arg(dir.path().join("to")).arg("--json").arg("--state-dir").arg(dir.path().join("state"));
    let output = command.output().expect("setpriv of util-linux");
    let (summary, stderr) = (json(&output), String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(
        (&summary["objects"]["copied"], &summary["objects"]["failed"]),
        (&2.into(), &1.into()),
        "{stderr}"
    );
    assert!(stderr.contains("failed no/:") && stderr.contains("Permission denied"), "{stderr}");
    assert_eq!(summary["failures"][0]["key"], "no/");
    // Nor can anything be written into a target of another user: one error for the whole run, not one per file.
    std::fs::create_dir(dir.path().join("theirs")).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups"]).arg(whimbrel().get_program()).arg("copy").arg(&from);
    command.arg(dir.path().join("theirs")).arg("--json").arg("--state-dir").arg(dir.path().join("state"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(json(&output)["error"]["code"], "read_only");
}

#[test]
fn read_only_commands_create_no_files_and_errors_are_json() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir_all(from.join("sub")).unwrap();
    std::fs::write(from.join("a"), "a").unwrap();
    let (code, found, _) = copy_dirs(&from, &to, &["--dry-run"]);
    assert_eq!((code, &found["missing"], to.exists()), (0, &2.into(), false));
    let verified = whimbrel().arg("verify").arg(&from).arg(&to).arg("--json").output().unwrap();
    assert_eq!((verified.status.code(), to.exists()), (Some(3), false));
    assert_eq!(json(&verified)["error"]["code"], "no_bucket");
    for wrong in [["--memory", "1KiB"], ["--concurrency", "0"], ["--part-size", "1"], ["--since", "x"]] {
        let (code, summary, _) = copy_dirs(&from, &to, &wrong);
        assert_eq!((code, &summary["error"]["code"]), (2, &"invalid".into()), "{wrong:?}");
    }
    for inside in [from.clone(), from.join("sub/deeper"), dir.path().to_path_buf()] {
        let (code, summary, stderr) = copy_dirs(&from, &inside, &[]);
        assert_eq!((code, &summary["error"]["code"]), (2, &"invalid".into()), "{stderr}");
    }
}

#[test]
fn list_file_selects_objects_and_optional_deletions() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to, list) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("keys"));
    std::fs::create_dir_all(from.join("sub")).unwrap();
    for name in ["a b", "sub/c", "excluded file"] {
        std::fs::write(from.join(name), name).unwrap();
    }
    std::fs::write(&list, "sub%2Fc\na%20b\nmissing\n").unwrap();
    let (code, summary, stderr) = copy_dirs(&from, &to, &["--list-file", list.to_str().unwrap()]);
    assert_eq!(
        (code, &summary["objects"]["copied"], &summary["objects"]["failed"]),
        (1, &2.into(), &1.into()),
        "{stderr}"
    );
    assert!(to.join("a b").exists() && to.join("sub/c").exists() && !to.join("excluded file").exists());

    std::fs::write(to.join("superfluous"), "old").unwrap();
    let (code, summary, _) = copy_dirs(&from, &to, &["--delete"]);
    assert_eq!((code, &summary["objects"]["deleted"], to.join("superfluous").exists()), (0, &0.into(), true));
    let mut dry = whimbrel();
    let dry = dry.arg("copy").args([&from, &to]).args(["--delete", "--dry-run"]).output().unwrap();
    let said = String::from_utf8_lossy(&dry.stdout);
    assert!(said.lines().any(|l| l == "delete superfluous") && to.join("superfluous").exists(), "{said}");
    let nothing = dir.path().join("nothing");
    std::fs::create_dir(&nothing).unwrap();
    let (code, summary, stderr) = copy_dirs(&nothing, &to, &["--delete", "--yes"]);
    assert_eq!(
        (code, &summary["objects"]["deleted"]),
        (0, &0.into()),
        "an empty source is a mistake: {stderr}"
    );
    let (code, summary, stderr) = copy_dirs(&from, &to, &["--delete", "--yes"]);
    assert_eq!(
        (code, &summary["objects"]["deleted"], to.join("superfluous").exists()),
        (0, &1.into(), false),
        "{stderr}"
    );
    assert!(to.join("excluded file").exists());
}

/// Everything odd at once: layouts, sizes, keys, metadata, tags; twice, with and without faults.
#[test]
fn obj_19_unusual_objects_are_copied_exactly_through_faults() {
    let kinds = [
        InjectedFault::SlowDown,
        InjectedFault::InternalError,
        InjectedFault::Reset,
        InjectedFault::LoseAnswer,
        InjectedFault::Truncate,
    ];
    for share in [0, 60] {
        let server = S3Server::start(Options { faults: Faults::new(0, &kinds, 9), ..Options::default() });
        let source = server.bucket("from");
        server.bucket("to");
        fill_with_unusual(&source);
        server.faults().set_per_mille(share);
        let state = tempfile::tempdir().unwrap();
        let at = server.endpoint();
        let mut command = copy((&at, "from"), (&at, "to"), state.path());
        // Another identity at the target, so that bytes are really transferred.
        let output = command.env("WHIMBREL_TARGET_ACCESS_KEY", "OTHER").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let summary = json(&output);
        server.faults().set_per_mille(0);
        assert!(contents(&server, "from") == contents(&server, "to"), "contents differ at {share} per mille");
        assert_eq!(server.open_uploads(), 0, "nothing half done is left");
        let (from, to) = (server.bucket("from").objects(), server.bucket("to").objects());
        for ((key, a), (_, b)) in from.iter().zip(&to) {
            assert_eq!(comparable_headers(a), comparable_headers(b), "{key}");
        }
        let n = from.len() as u64;
        assert_eq!(summary["objects"]["copied"], n);
        // Nothing compares bytes that are read in parts with the MD5 of the whole.
        assert_eq!(summary["proof"]["size"], 1, "all but `whole-40m` was proved: {summary}");
        for (key, object) in from.iter().filter(|(k, _)| k.contains("parts-")) {
            let copied = to.iter().find(|(k, _)| k == key).map(|(_, o)| &o.etag);
            assert_eq!(copied, Some(&object.etag), "{key} keeps its layout");
        }
    }
}

/// Layouts, sizes, keys, metadata and tags that are not usual.
fn fill_with_unusual(source: &Bucket<'_>) {
    let headers: [(&str, &[u8]); 4] = [
        ("content-type", b"text/odd"),
        ("cache-control", b"no-cache"),
        ("x-amz-meta-greeting", "grüße 日本".as_bytes()),
        ("x-amz-tagging", b"team=a%20b&x=1"),
    ];
    for (i, key) in hostile().into_iter().enumerate() {
        source.put_with(&key, Content::Given(format!("body {i}").into()), None, &headers);
    }
    source.put_with("sizes/empty", Content::Given("".into()), None, &[]);
    source.put_with("sizes/folder/", Content::Given("".into()), None, &[]);
    for (name, size, part) in [
        ("whole-17m", 17 * MIB, None),
        ("whole-40m", 40 * MIB, None),
        ("parts-5m", 23 * MIB + 7, Some(5 * MIB)),
        ("parts-8m", 40 * MIB, Some(8 * MIB)),
        ("one-part", 6 * MIB, Some(8 * MIB)),
        ("odd-parts", 30 * MIB + 1, Some(7 * MIB + 3)),
    ] {
        source.put_with(&format!("sizes/{name}"), Content::Pattern(size), part, &headers);
    }
    for i in 0..300 {
        source.put(&format!("many/{i:04}"), format!("{i}"));
    }
}

/// The headers of an object; of its tags, which may be encoded in several ways, the length.
fn comparable_headers(object: &testkit::keys::Object) -> (Option<usize>, BTreeMap<String, Vec<u8>>) {
    let mut headers: BTreeMap<_, _> = object.headers.iter().cloned().collect();
    (headers.remove("x-amz-tagging").map(|tags| tags.len()), headers)
}

fn hostile() -> Vec<String> {
    let mut keys: Vec<String> = [
        "k/a b",
        "k/a+b",
        "k/lit%2Fslash",
        "k//double",
        "/lead",
        "k/trail/",
        "k/😀",
        "k/caf\u{e9}",
        "k/cafe\u{301}",
        "k/per%41cent",
        "k/x/../z",
        "k/Case",
        "k/case",
        "k/ends with space ",
        "k/quo'te\"<&>",
        "k/tab\there",
        "k/\u{1}",
        "k/back\\slash",
        "k/?q=1&r#f",
    ]
    .map(String::from)
    .into();
    keys.push("l".repeat(1024));
    keys
}

#[test]
fn filter_prefix_and_dry_run_limit_what_is_copied() {
    let server = S3Server::start(Options::default());
    let source = server.bucket("from");
    for key in ["logs/a.gz", "logs/b.txt", "logs/tmp/c.gz", "other/d.gz"] {
        source.put(key, key.to_owned());
    }
    server.bucket("to");
    let state = tempfile::tempdir().unwrap();
    let at = server.endpoint();
    let dry = copy((&at, "from/logs"), (&at, "to/backup"), state.path()).arg("--dry-run").output().unwrap();
    assert_eq!(dry.status.code(), Some(0));
    assert!(server.bucket("to").is_empty(), "a dry run writes nothing");
    let mut command = copy((&at, "from/logs"), (&at, "to/backup"), state.path());
    let output = command.args(["--include", "*.gz", "--exclude", "tmp/**"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let keys: Vec<String> = contents(&server, "to").into_keys().collect();
    assert_eq!(keys, ["backup/a.gz"]);
}

#[test]
fn source_with_folder_order_is_copied_completely() {
    let server = S3Server::start(Options { order: model::key::Order::Segments, ..Options::default() });
    let source = server.bucket("from");
    for i in 0..2500 {
        source.put(&format!("d{}/f{i}", i % 9), "x");
        source.put(&format!("d{}!/f{i}", i % 9), "y");
    }
    server.bucket("to");
    let state = tempfile::tempdir().unwrap();
    let at = server.endpoint();
    let output = copy((&at, "from"), (&at, "to"), state.path()).output().unwrap();
    // The server does not say that it walks folders: the engine notices, begins again, and says so.
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(contents(&server, "from") == contents(&server, "to"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in folder order"));
}

#[test]
fn one_failed_object_does_not_fail_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(Options::default());
    let source = server.bucket("from");
    source.put("good", "g");
    source.put("bad//key", "b");
    let state = tempfile::tempdir().unwrap();
    let mut command = whimbrel();
    command.args(["copy", "s3://from"]).arg(dir.path().join("to")).args([
        "--json",
        "--source-endpoint",
        &server.endpoint(),
    ]);
    let report = dir.path().join("report");
    let output = command.arg("--state-dir").arg(state.path()).arg("--report").arg(&report).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = json(&output);
    assert_eq!(
        (summary["objects"]["copied"].as_u64(), summary["objects"]["failed"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(std::fs::read(dir.path().join("to/good")).unwrap(), b"g");
    let lines = std::fs::read_to_string(report.join("outcomes.tsv")).unwrap();
    assert!(lines.contains("F\tbad//key\t1\t") && lines.contains("C\tgood\t1\t"), "{lines}");
}
