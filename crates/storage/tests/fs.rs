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
    let keys: Vec<String> = page.entries.iter().map(|e| e.key.to_text().into_owned()).collect();
    assert_eq!(keys, ["inside", "near"]);
    assert!(!outside.path().join("new").exists());
}

/// A listing does not follow such a link: what is written through it would be an object under two keys.
#[tokio::test]
async fn directory_links_inside_the_root_are_not_written_through() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("c")).unwrap();
    std::os::unix::fs::symlink("c", dir.path().join("a")).unwrap();
    let fs = Fs::open(dir.path(), false).unwrap();
    refused(&fs, "a/x").await;
    refused(&fs, "a/deep/x").await;
    fs.write(&Key::from("c/x"), &Meta::default(), Body::bytes("x")).await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("c")).unwrap().count(), 1);
}

#[tokio::test]
async fn file_changed_with_its_time_set_back_has_another_etag() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k");
    std::fs::write(&path, "before").unwrap();
    let fs = Fs::open(dir.path(), false).unwrap();
    let read = async |etag| {
        let request = ReadRequest { if_match: etag, ..ReadRequest::default() };
        fs.read(&Key::from("k"), &request).await.map(|reading| reading.meta.etag)
    };
    let etag = read(None).await.unwrap();
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, "after!").unwrap();
    std::fs::File::open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(read(Some(etag)).await.unwrap_err().kind, Kind::Changed);
}

/// A program rewrites the file in place all the while: a read gives one content or an error.
#[test]
fn small_file_that_changes_is_not_read_half_and_half() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k");
    let len = 1000 << 10;
    std::fs::write(&path, vec![b'a'; len]).unwrap();
    let fs = Fs::open(dir.path(), false).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let read = std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::os::unix::fs::FileExt;
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            for byte in [b'b', b'c'].into_iter().cycle() {
                // Long pauses let some reads succeed, short ones let others meet a write.
                file.write_all_at(&vec![byte; len], 0).unwrap();
                std::thread::park_timeout(std::time::Duration::from_millis(fastrand::u64(1..60)));
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let one = || {
            runtime.block_on(async {
                let reading = fs.read(&Key::from("k"), &ReadRequest::default()).await?;
                reading.body.collect(1 << 20).await
            })
        };
        let read: Vec<_> = std::iter::repeat_with(one).take(60).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        read
    });
    let mut whole = 0;
    for read in read {
        match read {
            Ok(bytes) => {
                assert!(bytes.iter().all(|b| *b == bytes[0]), "two contents in one read");
                whole += 1;
            }
            Err(failure) => assert_eq!(failure.kind, Kind::Changed),
        }
    }
    assert!(whole > 0);
}

#[tokio::test]
async fn unfinished_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    // As an earlier version left it.
    std::fs::create_dir_all(dir.path().join(".whimbrel/uploads")).unwrap();
    let fs = Fs::open(dir.path(), true).unwrap();
    fs.begin_upload(&Key::from("secret"), &Meta::default()).await.unwrap();
    let mode = std::fs::metadata(dir.path().join(".whimbrel/uploads")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn directory_with_content_is_not_reported_as_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let fs = Fs::open(dir.path(), true).unwrap();
    fs.write(&Key::from("d/x"), &Meta::default(), Body::bytes("x")).await.unwrap();
    assert_eq!(fs.delete(&Key::from("d/")).await.unwrap_err().kind, Kind::Conflict);
    fs.delete(&Key::from("d/x")).await.unwrap();
    fs.delete(&Key::from("d/")).await.unwrap();
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
    let keys: Vec<String> = page.entries.iter().map(|e| e.key.to_text().into_owned()).collect();
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

/// Found on a full disk: transfers that were dropped together with the failing one were published short.
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
