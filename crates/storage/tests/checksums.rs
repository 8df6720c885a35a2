//! Checksums that are sent with uploads: how it is found out which a store verifies, and what each store then gets.

#![allow(clippy::disallowed_methods, reason = "a test connects to the server that it starts")]

use bytes::Bytes;
use model::error::Kind;
use model::key::Key;
use storage::{Body, Meta, ReadRequest, SharedStore, WriteCrc};
use testkit::faults::{Faults, InjectedFault};
use testkit::{Checksums, Options, S3Server};

use crate::s3;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn server(checksums: Checksums) -> S3Server {
    let faults = Faults::new(0, &[InjectedFault::Flip], 1);
    S3Server::start(Options { checksums, faults, ..Options::default() })
}

/// A body that is not in memory as one piece, as those that come from a connection.
fn streamed(bytes: &Bytes) -> Body {
    let piece = |at: usize| Body::bytes(bytes.slice(at..(at + 10_000).min(bytes.len())));
    Body::chain((0..bytes.len()).step_by(10_000).map(piece).collect::<Vec<_>>())
}

fn content(len: usize) -> Bytes {
    (0..len).map(|i| (i / 3 % 251) as u8).collect::<Vec<u8>>().into()
}

async fn proved(store: &SharedStore) -> WriteCrc {
    let key = Key::from("proof");
    let meta = Meta { part_crc: true, ..Meta::default() };
    let upload = store.begin_upload(&key, &meta).await.unwrap();
    let found = store.prove_write_crc(&key, &upload).await.unwrap();
    store.abort_upload(&key, &upload).await.unwrap();
    found
}

async fn read(store: &SharedStore, key: &Key) -> Bytes {
    let reading = store.read(key, &ReadRequest::default()).await.unwrap();
    reading.body.collect(1 << 30).await.unwrap()
}

/// Writes whole objects of several sizes and an upload, streamed, and reads them back.
async fn all_writes_arrive(store: &SharedStore, crc: WriteCrc) {
    for len in [1, 100 * KIB, 600 * KIB, 3 * MIB + 1] {
        let (key, bytes) = (Key::from(format!("whole-{len}")), content(len));
        let body = || streamed(&bytes).with_write_crc(crc);
        let mut written = store.write(&key, &Meta::default(), body()).await;
        if written.as_ref().is_err_and(|f| f.kind == Kind::Mismatch) {
            // A store that keeps `aws-chunked` is found out with the first object in frames.
            written = store.write(&key, &Meta::default(), body()).await;
        }
        written.unwrap();
        assert!(read(store, &key).await == bytes, "{len} bytes with {crc:?}");
    }
    let (key, bytes) = (Key::from("parts"), content(6 * MIB));
    let meta = Meta { part_crc: crc == WriteCrc::Trailer, ..Meta::default() };
    let upload = store.begin_upload(&key, &meta).await.unwrap();
    let mut parts = Vec::new();
    for (number, range) in [(2, 5 * MIB..6 * MIB), (1, 0..5 * MIB)] {
        let body = streamed(&bytes.slice(range.clone()));
        parts.push(store.write_part(&key, &upload, number, range.start as u64, body).await.unwrap());
    }
    parts.reverse();
    assert_eq!(store.list_parts(&key, &upload).await.unwrap().len(), 2, "{crc:?}");
    store.complete_upload(&key, &upload, &parts).await.unwrap();
    assert!(read(store, &key).await == bytes, "parts with {crc:?}");
}

#[tokio::test]
async fn store_that_verifies_trailers_receives_them_with_objects_and_parts() {
    let server = server(Checksums::Verified);
    let store = s3(&server.endpoint(), "b").await;
    assert_eq!(proved(&store).await, WriteCrc::Trailer);
    assert!(server.bucket("b").is_empty() && server.open_uploads() == 0, "the proof leaves nothing");
    let before = server.crc_verified();
    all_writes_arrive(&store, WriteCrc::Trailer).await;
    assert_eq!(server.crc_verified() - before, 6, "four objects and two parts carry it");
}

#[tokio::test]
async fn store_that_keeps_chunk_framing_or_repeats_headers_receives_no_checksum() {
    for checksums in [Checksums::Unknown, Checksums::Repeated] {
        let server = server(checksums);
        let store = s3(&server.endpoint(), "b").await;
        assert_eq!(proved(&store).await, WriteCrc::None, "{checksums:?}");
        assert!(server.bucket("b").is_empty() && server.open_uploads() == 0, "{checksums:?}");
        all_writes_arrive(&store, WriteCrc::None).await;
    }
}

#[tokio::test]
async fn store_that_verifies_only_headers_receives_them_with_small_objects() {
    let server = server(Checksums::Headers);
    let store = s3(&server.endpoint(), "b").await;
    assert_eq!(proved(&store).await, WriteCrc::Header);
    let before = server.crc_verified();
    all_writes_arrive(&store, WriteCrc::Header).await;
    assert_eq!(server.crc_verified() - before, 2, "1 byte and 100 KiB carry it");
}

#[tokio::test]
async fn store_without_the_algorithm_begins_no_upload_with_it() {
    let server = server(Checksums::Refused);
    let store = s3(&server.endpoint(), "b").await;
    let meta = Meta { part_crc: true, ..Meta::default() };
    let refused = store.begin_upload(&Key::from("proof"), &meta).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unsupported, "{refused}");
    all_writes_arrive(&store, WriteCrc::None).await;
}

#[tokio::test]
async fn store_that_keeps_aws_chunked_encoding_is_detected_with_one_object() {
    let server = server(Checksums::EncodingKept);
    let store = s3(&server.endpoint(), "b").await;
    assert_eq!(proved(&store).await, WriteCrc::Trailer);
    all_writes_arrive(&store, WriteCrc::Trailer).await;
    let encoded = |o: &testkit::keys::Object| o.headers.iter().any(|(n, _)| n == "content-encoding");
    let kept: Vec<String> =
        server.bucket("b").objects().into_iter().filter(|(_, o)| encoded(o)).map(|(key, _)| key).collect();
    assert!(kept.is_empty(), "{kept:?}");
}

#[tokio::test]
async fn body_corrupted_on_the_wire_is_rejected_by_the_store() {
    let server = server(Checksums::Verified);
    let store = s3(&server.endpoint(), "b").await;
    let (key, meta) = (Key::from("k"), Meta { part_crc: true, ..Meta::default() });
    let upload = store.begin_upload(&key, &meta).await.unwrap();
    server.faults().set_per_mille(1000);
    for len in [100 * KIB, 2 * MIB] {
        let body = streamed(&content(len)).with_write_crc(WriteCrc::Trailer);
        let refused = store.write(&key, &Meta::default(), body).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Mismatch, "{len} bytes: {refused}");
    }
    let refused = store.write_part(&key, &upload, 1, 0, streamed(&content(5 * MIB))).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Mismatch, "{refused}");
    server.faults().set_per_mille(0);
    assert!(server.bucket("b").is_empty());
    assert!(store.list_parts(&key, &upload).await.unwrap().is_empty());
}

#[tokio::test]
async fn obj_02_bucket_that_requires_a_checksum_accepts_streams_with_a_trailer() {
    let options = Options { checksums: Checksums::Verified, checksum_demanded: true, ..Options::default() };
    let server = S3Server::start(options);
    let store = s3(&server.endpoint(), "locked").await;
    assert_eq!(proved(&store).await, WriteCrc::Trailer);
    all_writes_arrive(&store, WriteCrc::Trailer).await;
    let refused = store.write(&Key::from("k"), &Meta::default(), streamed(&content(10))).await.unwrap_err();
    assert_eq!(refused.kind, Kind::ChecksumRequired, "{refused}");
}

#[tokio::test]
async fn seaweedfs_verifies_trailers_and_does_not_store_them() {
    let endpoint = testkit::servers::endpoint("WHIMBREL_TEST_WEED_A");
    let store = s3(&endpoint, &format!("checksums-{}", fastrand::u32(..))).await;
    assert_eq!(proved(&store).await, WriteCrc::Trailer);
    all_writes_arrive(&store, WriteCrc::Trailer).await;
    let encoding = (http::header::CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
    let meta = Meta { headers: vec![encoding], ..Meta::default() };
    let (key, bytes) = (Key::from("encoded"), content(MIB));
    store.write(&key, &meta, streamed(&bytes).with_write_crc(WriteCrc::Trailer)).await.unwrap();
    let back = store.head(&key, None).await.unwrap();
    assert_eq!(back.header("content-encoding").map(|v| v.as_bytes()), Some(&b"gzip"[..]));
}

/// moto takes any checksum.
#[tokio::test]
async fn moto_without_verification_receives_no_checksum() {
    let endpoint = testkit::servers::endpoint("WHIMBREL_TEST_MOTO");
    let store = s3(&endpoint, &format!("checksums-{}", fastrand::u32(..))).await;
    assert_eq!(proved(&store).await, WriteCrc::None);
    all_writes_arrive(&store, WriteCrc::None).await;
}

/// A request without a signature, which moto takes.
fn raw_put(endpoint: &str, path: &str, headers: &str, body: &str) -> String {
    use std::io::{Read, Write};
    let authority = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = std::net::TcpStream::connect(authority).unwrap();
    let len = body.len();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {len}\r\n");
    stream.write_all(format!("{head}Connection: close\r\n{headers}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn obj_02_moto_object_lock_requires_a_checksum_and_accepts_md5() {
    let endpoint = testkit::servers::endpoint("WHIMBREL_TEST_MOTO");
    let bucket = format!("locked-{}", fastrand::u32(..));
    let made = raw_put(&endpoint, &format!("/{bucket}"), "x-amz-bucket-object-lock-enabled: true\r\n", "");
    assert!(made.contains(" 200 "), "{made}");
    let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                <Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    let locked = raw_put(&endpoint, &format!("/{bucket}?object-lock"), "", lock);
    assert!(locked.contains(" 200 "), "{locked}");
    let config = crate::config(&endpoint, &bucket);
    let store: SharedStore = std::sync::Arc::new(
        storage::s3::S3::open(config, "", flow_control::clock::system()).await.unwrap().0,
    );
    assert_eq!(proved(&store).await, WriteCrc::None);
    let (key, bytes) = (Key::from("k"), content(1000));
    let refused = store.write(&key, &Meta::default(), streamed(&bytes)).await.unwrap_err();
    assert_eq!(refused.kind, Kind::ChecksumRequired, "{refused}");
    let body = Body::bytes(bytes.clone());
    let md5 = body.md5_in_memory().unwrap();
    store.write(&key, &Meta::default(), body.with_md5(md5)).await.unwrap();
    assert!(read(&store, &key).await == bytes);
}
