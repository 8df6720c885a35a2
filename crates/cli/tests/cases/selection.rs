//! Which objects are copied, and with which rights.

use super::*;

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
