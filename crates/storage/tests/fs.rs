//! What only a directory can do wrong.

use model::error::Kind;
use model::key::Key;
use storage::fs::Fs;
use storage::{Body, ListRequest, Meta, ObjectStore, ReadRequest};

async fn refused(fs: &Fs, key: &str) {
    let failure = fs.write(&Key::from(key), &Meta::default(), Body::bytes("x")).await.unwrap_err();
    assert_eq!(failure.kind, Kind::InvalidKey, "{key}: {failure}");
}

#[tokio::test]
async fn keys_that_are_no_file_names_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let fs = Fs::open(dir.path(), true).unwrap();
    let long = "n".repeat(256);
    for key in ["", "/lead", "a//b", "a/../b", "..", "./a", "nul\0", ".whimbrel/tmp/x", &long] {
        refused(&fs, key).await;
    }
    fs.write(&Key::from("file"), &Meta::default(), Body::bytes("x")).await.unwrap();
    refused(&fs, "file/below").await;
}

#[tokio::test]
async fn symlinks_out_of_the_root_are_not_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret"), "s").unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("link")).unwrap();
    std::fs::write(dir.path().join("inside"), "i").unwrap();
    std::os::unix::fs::symlink("inside", dir.path().join("near")).unwrap();
    let fs = Fs::open(dir.path(), false).unwrap();
    for key in ["out/secret", "link"] {
        assert!(fs.read(&Key::from(key), &ReadRequest::default()).await.is_err(), "{key}");
        assert!(fs.write(&Key::from("out/new"), &Meta::default(), Body::bytes("x")).await.is_err());
    }
    let page = fs.list(&ListRequest { max: 10, ..ListRequest::default() }).await.unwrap();
    let keys: Vec<String> = page.entries.iter().map(|e| e.key.to_string()).collect();
    assert_eq!(keys, ["inside", "near"]);
    assert!(!outside.path().join("new").exists());
}

#[tokio::test]
async fn folder_markers_and_empty_directories_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let fs = Fs::open(dir.path(), true).unwrap();
    std::fs::create_dir_all(dir.path().join("empty")).unwrap();
    fs.write(&Key::from("marked/"), &Meta::default(), Body::bytes("")).await.unwrap();
    fs.write(&Key::from("marked/x"), &Meta::default(), Body::bytes("x")).await.unwrap();
    fs.write(&Key::from("plain/x"), &Meta::default(), Body::bytes("x")).await.unwrap();
    let page = fs.list(&ListRequest { max: 10, ..ListRequest::default() }).await.unwrap();
    let keys: Vec<String> = page.entries.iter().map(|e| e.key.to_string()).collect();
    assert_eq!(keys, ["empty/", "marked/", "marked/x", "plain/x"]);
    let failure = fs.write(&Key::from("full/"), &Meta::default(), Body::bytes("x")).await.unwrap_err();
    assert_eq!(failure.kind, Kind::InvalidKey);
}

#[tokio::test]
async fn failed_write_leaves_no_partial_file() {
    let dir = tempfile::tempdir().unwrap();
    let fs = Fs::open(dir.path(), true).unwrap();
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    tx.send(Ok(bytes::Bytes::from(vec![0; 2 << 20]))).await.unwrap();
    drop(tx);
    let cut = Body::channel(rx, 4 << 20);
    assert_eq!(fs.write(&Key::from("k"), &Meta::default(), cut).await.unwrap_err().kind, Kind::Corrupt);
    drop(fs);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no file, and our own directory is gone");
}

/// Found on a full disk: transfers that were dropped beside the failing one were published short.
#[tokio::test]
async fn dropped_write_creates_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let fs = Fs::open(dir.path(), true).unwrap();
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    tx.send(Ok(bytes::Bytes::from(vec![0; 2 << 20]))).await.unwrap();
    let key = Key::from("k");
    let meta = Meta::default();
    let mut writing = Box::pin(fs.write(&key, &meta, Body::channel(rx, 4 << 20)));
    // The writer has taken the first chunk once the channel has room again.
    tokio::select! {
        _ = &mut writing => panic!("two of four mebibytes are not an object"),
        permit = tx.reserve() => drop(permit),
    }
    drop(writing);
    drop(tx);
    // The blocking thread sees its feed end, and removes what it had; the last of the store takes the directory away.
    drop(fs);
    while dir.path().join(".whimbrel").exists() {
        tokio::task::yield_now().await;
    }
    assert!(!dir.path().join("k").exists());
}

#[tokio::test]
async fn temporary_files_of_a_killed_process_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join(".whimbrel/tmp/00000000deadbeef");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("half"), "half a file").unwrap();
    let alive = dir.path().join(".whimbrel/tmp/0000000000000001");
    std::fs::create_dir_all(&alive).unwrap();
    std::fs::write(alive.join("half"), "somebody writes this").unwrap();
    let lock = std::fs::File::open(&alive).unwrap();
    lock.lock().unwrap();
    let fs = Fs::open(dir.path(), false).unwrap();
    fs.write(&Key::from("a"), &Meta::default(), Body::bytes("a")).await.unwrap();
    assert!(!left.exists() && alive.join("half").exists());
}
