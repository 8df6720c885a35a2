//! Objects that are missing or deleted at the source.

use super::*;

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
