//! Checksums that are sent with uploads, end to end.

use testkit::content::Content;
use testkit::faults::{Faults, InjectedFault};
use testkit::{Checksums, Options, S3Server};

use crate::support::{copy, json, whimbrel};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn server(checksums: Checksums, checksum_demanded: bool) -> S3Server {
    let faults = Faults::new(0, &[InjectedFault::Flip], 1);
    S3Server::start(Options { checksums, checksum_demanded, faults, ..Options::default() })
}

/// Copies files of several sizes to a server and compares; answers how many bodies it verified.
fn copied_to(server: &S3Server) -> u64 {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = [("empty", 0), ("small", 10), ("middle", 300 * KIB), ("whole", 9 * MIB), ("parts", 40 * MIB)];
    for (name, len) in files {
        let bytes: Vec<u8> = (0..len).map(|i| (i / 5 % 251) as u8).collect();
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    server.bucket("to");
    let mut command = whimbrel();
    command.arg("copy").arg(dir.path()).args(["s3://to", "--json", "--target-endpoint", &server.endpoint()]);
    let output = command.arg("--state-dir").arg(state.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(json(&output)["objects"]["copied"], files.len());
    let objects = server.bucket("to").objects();
    assert_eq!(objects.len(), files.len());
    for (key, object) in objects {
        let kept = object.content.bytes(0..object.content.len());
        assert!(kept == std::fs::read(dir.path().join(&key)).unwrap(), "{key}");
        assert!(object.headers.iter().all(|(n, _)| n != "content-encoding"), "{key}: {:?}", object.headers);
    }
    assert_eq!(server.open_uploads(), 0);
    server.crc_verified()
}

#[test]
fn store_with_trailer_support_receives_a_checksum_with_every_body() {
    // The proof, three whole objects that are not empty, three parts.
    assert_eq!(copied_to(&server(Checksums::Verified, false)), 1 + 3 + 3);
}

#[test]
fn stores_with_less_verification_receive_the_same_bytes() {
    for checksums in [
        Checksums::Unknown,
        Checksums::Refused,
        Checksums::Repeated,
        Checksums::Headers,
        Checksums::EncodingKept,
    ] {
        copied_to(&server(checksums, false));
    }
}

#[test]
fn obj_02_bucket_that_requires_a_checksum_is_a_valid_target() {
    for checksums in [Checksums::Unknown, Checksums::Headers] {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("small"), "small").unwrap();
        std::fs::write(dir.path().join("parts"), vec![3; 40 * MIB]).unwrap();
        let server = server(checksums, true);
        server.bucket("to");
        let mut command = whimbrel();
        command.arg("copy").arg(dir.path()).args(["s3://to", "--json"]);
        command.args(["--target-endpoint", &server.endpoint()]).arg("--state-dir").arg(state.path());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(server.bucket("to").len(), 2, "{checksums:?}");
    }
}

/// Every body that arrives is changed: each object and each part is sent once more, and not twelve times.
#[test]
fn body_corrupted_on_the_wire_is_sent_twice_and_then_fails() {
    let (source, target) = (S3Server::start(Options::default()), server(Checksums::Verified, false));
    source.bucket("from").put("k", vec![7; 100 * KIB]);
    target.bucket("to");
    target.faults().set_per_mille(1000);
    let state = tempfile::tempdir().unwrap();
    let (from, to) = (source.endpoint(), target.endpoint());
    let output = copy((&from, "from"), (&to, "to"), state.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(json(&output)["objects"]["failed"], 1);
    assert!(target.bucket("to").is_empty());
    let sent = target.log().iter().filter(|l| l.method == "PUT" && l.key == "k").count();
    assert_eq!(sent, 2, "{:?}", target.log());
}

/// The same for bodies with a trailer: those of whole objects and of parts.
#[test]
fn stream_corrupted_on_the_wire_is_sent_twice_and_then_fails() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("parts"), vec![3; 40 * MIB]).unwrap();
    std::fs::write(dir.path().join("whole"), vec![3; 600 * KIB]).unwrap();
    let server = server(Checksums::Verified, false);
    server.bucket("to");
    // The bodies of the proof are too short to be changed.
    server.faults().set_per_mille(1000);
    let mut command = whimbrel();
    command.arg("copy").arg(dir.path()).args(["s3://to", "--json", "--target-endpoint", &server.endpoint()]);
    let output = command.arg("--state-dir").arg(state.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(json(&output)["objects"]["failed"], 2);
    assert!(server.bucket("to").is_empty() && server.open_uploads() == 0);
    let log = server.log();
    let sent = |key: &str, part: &str| {
        let is = |l: &&testkit::s3::Logged| l.method == "PUT" && l.key == key && l.query.starts_with(part);
        log.iter().filter(is).count()
    };
    assert_eq!(sent("whole", "") - sent("whole", "partNumber"), 2, "{log:?}");
    let parts: Vec<usize> = (1..=3).map(|n| sent("parts", &format!("partNumber={n}&"))).collect();
    assert!(parts.iter().all(|n| *n <= 2) && parts.contains(&2), "{parts:?}: {log:?}");
}

/// The MD5 of a whole source is not compared where it is read in parts: the parts are, and the record says no more.
#[test]
fn large_object_without_md5_comparison_is_not_reported_as_verified_by_digest() {
    let server = S3Server::start(Options::default());
    server.bucket("from").put_with("plain", Content::Pattern(40 * MIB as u64), None, &[]);
    server.bucket("to");
    let state = tempfile::tempdir().unwrap();
    let at = server.endpoint();
    let mut command = copy((&at, "from"), (&at, "to"), state.path());
    let output = command.env("WHIMBREL_TARGET_ACCESS_KEY", "OTHER").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = json(&output);
    assert_eq!((&summary["proof"]["digest"], &summary["proof"]["size"]), (&0.into(), &1.into()), "{summary}");
}

/// Where the source keeps the CRC-64 of the whole, those of the parts are put together and compared with it.
#[test]
fn large_object_is_verified_by_the_crc_of_its_source() {
    for (right, code) in [(true, 0), (false, 1)] {
        let server = S3Server::start(Options::default());
        let content = Content::Pattern(40 * MIB as u64);
        let crc = storage::checksum::crc64_of(&content.bytes(0..content.len()));
        let crc = if right { crc } else { !crc };
        let text = testkit::s3::base64_of(&crc.to_be_bytes());
        let headers = [("x-amz-checksum-crc64nvme", text.as_bytes())];
        server.bucket("from").put_with("plain", content, None, &headers);
        server.bucket("to");
        let state = tempfile::tempdir().unwrap();
        let at = server.endpoint();
        let mut command = copy((&at, "from"), (&at, "to"), state.path());
        let output = command.env("WHIMBREL_TARGET_ACCESS_KEY", "OTHER").output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        let summary = json(&output);
        assert_eq!(summary["proof"]["digest"], u64::from(right), "{summary}");
        assert_eq!(server.open_uploads(), 0);
        assert_eq!(server.bucket("to").len(), usize::from(right));
    }
}
