//! One conformance suite for every connector, chosen by capability: a directory, the in-process server, and the
//! real servers that `cargo x test` starts.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod checksums;
mod conformance;
mod faults;
mod fs;
mod signatures;

use std::sync::Arc;

use storage::azure::connection::Connection;
use storage::azure::{Azure, AzureConfig};
use storage::egress::Egress;
use storage::fs::Fs;
use storage::google::{Google, GoogleConfig};
use storage::http::Client;
use storage::s3::sign::Credentials;
use storage::s3::{Addressing, S3, S3Config};
use storage::{ObjectStore, SharedStore};

/// Opens a bucket of an S3 endpoint with the test keys, after making it.
async fn s3(endpoint: &str, bucket: &str) -> SharedStore {
    let config = config(endpoint, bucket);
    let clock = flow_control::clock::system();
    S3::new(config.clone(), clock.clone()).unwrap().create_bucket().await.unwrap();
    Arc::new(S3::open(config, "", clock).await.unwrap().0)
}

fn config(endpoint: &str, bucket: &str) -> S3Config {
    let (ak, sk) = testkit::servers::KEYS;
    S3Config {
        client: Client::new(endpoint, Egress::anywhere()).unwrap(),
        bucket: bucket.into(),
        addressing: Addressing::Path,
        region: "us-east-1".into(),
        credentials: Some(Credentials { access_key: ak.into(), secret_key: sk.into(), session_token: None }),
        order: None,
        requester_pays: false,
        vendor: &storage::s3::vendor::GENERIC,
    }
}

#[tokio::test]
async fn directory_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::all(Arc::new(Fs::open(dir.path(), true).unwrap()), "directory").await;
}

#[tokio::test]
async fn in_process_server_conforms() {
    let server = testkit::S3Server::start(testkit::Options::default());
    conformance::all(s3(&server.endpoint(), "conformance").await, "in-process").await;
}

#[tokio::test]
async fn seaweedfs_conforms() {
    let endpoint = testkit::servers::endpoint("WHIMBREL_TEST_WEED_A");
    let bucket = format!("conformance-{}", fastrand::u32(..));
    conformance::all(s3(&endpoint, &bucket).await, "SeaweedFS").await;
}

/// `a//b` and `a\b` would overwrite `a/b` there; names that it keeps for itself are written and never listed.
#[tokio::test]
async fn seaweedfs_keys_that_it_would_change_or_hide_are_rejected() {
    let endpoint = testkit::servers::endpoint("WHIMBREL_TEST_WEED_A");
    let store = s3(&endpoint, &format!("folds-{}", fastrand::u32(..))).await;
    for key in ["/lead", "a//b", "a//", "a\\b", ".uploads/x", "a/.versions/x", "a/k.versions", "x.versions/y"]
    {
        let key = model::key::Key::from(key);
        let body = storage::Body::bytes("x");
        let refused = store.write(&key, &storage::Meta::default(), body).await.unwrap_err();
        assert_eq!(refused.kind, model::error::Kind::InvalidKey, "{key}");
    }
}

#[tokio::test]
async fn moto_conforms() {
    let endpoint = testkit::servers::endpoint("WHIMBREL_TEST_MOTO");
    let bucket = format!("conformance-{}", fastrand::u32(..));
    conformance::all(s3(&endpoint, &bucket).await, "moto").await;
}

#[tokio::test]
async fn azurite_conforms() {
    let endpoint = testkit::servers::endpoint("WHIMBREL_TEST_AZURITE");
    let (account, key) = testkit::servers::AZURE;
    let connection = Connection::new(&format!("{endpoint}/{account}"), account, key).unwrap();
    let config =
        AzureConfig::new(connection, &format!("conformance-{}", fastrand::u32(..)), Egress::anywhere())
            .unwrap();
    let azure = Azure::new(config, flow_control::clock::system());
    assert_eq!(azure.probe("").await.unwrap_err().kind, model::error::Kind::NoBucket);
    azure.create_container().await.unwrap();
    conformance::all(Arc::new(azure), "Azurite").await;
}

#[tokio::test]
async fn fake_gcs_conforms() {
    let endpoint = testkit::servers::endpoint("WHIMBREL_TEST_GCS");
    let config = GoogleConfig {
        client: Client::new(&endpoint, Egress::anywhere()).unwrap(),
        account: None,
        bucket: format!("conformance-{}", fastrand::u32(..)),
        requester_pays: false,
        egress: Egress::anywhere(),
    };
    let google = Google::new(config, flow_control::clock::system());
    assert_eq!(google.probe("").await.unwrap_err().kind, model::error::Kind::NoBucket);
    google.create_bucket("lab").await.unwrap();
    conformance::all(Arc::new(google), "fake-gcs-server").await;
}

#[test]
fn sec_f08_bucket_name_in_a_host_must_be_valid() {
    let open = |bucket: &str, addressing: Addressing| {
        let config = S3Config { addressing, ..config("http://s3.lab:9000", bucket) };
        S3::new(config, flow_control::clock::system()).map(drop).map_err(|f| f.kind)
    };
    for bucket in
        ["127.0.0.1:1#", "a@b", "x/y", "Upper", "ab", "-abc", "abc.", "a..b", "a_b", &"a".repeat(64)]
    {
        assert_eq!(open(bucket, Addressing::Virtual), Err(model::error::Kind::Invalid), "{bucket}");
    }
    assert_eq!(open("my.bucket-1", Addressing::Virtual), Ok(()));
    assert_eq!(open("Upper_1", Addressing::Path), Ok(()));
    assert_eq!(open("..", Addressing::Path), Err(model::error::Kind::Invalid));
}
