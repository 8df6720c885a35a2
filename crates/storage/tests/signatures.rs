//! Signatures against a server that checks them, and what wrong ones are called.

use model::error::Kind;
use model::key::Key;
use storage::s3::S3;
use storage::s3::sign::Credentials;
use storage::{ListRequest, ObjectStore, ReadRequest};

use crate::{config, s3};

#[tokio::test]
async fn wrong_keys_and_missing_buckets_have_distinct_error_kinds() {
    let endpoint = testkit::servers::endpoint("WHIMBREL_TEST_WEED_A");
    s3(&endpoint, "signed").await;
    let open = async |ak: &str, sk: &str, bucket: &str| {
        let credentials = Credentials { access_key: ak.into(), secret_key: sk.into(), session_token: None };
        let mut config = config(&endpoint, bucket);
        config.credentials = Some(credentials);
        S3::open(config, "", flow_control::clock::system()).await.map(|_| ()).map_err(|f| f.kind)
    };
    let (ak, sk) = testkit::servers::KEYS;
    assert_eq!(open(ak, sk, "signed").await, Ok(()));
    assert_eq!(open(ak, "wrong", "signed").await, Err(Kind::BadCredentials));
    assert_eq!(open("NOBODY", sk, "signed").await, Err(Kind::BadCredentials));
    assert_eq!(open(ak, sk, "no-such-bucket").await, Err(Kind::NoBucket));
}

#[tokio::test]
async fn obj_01_metadata_with_repeated_spaces_is_signed() {
    let endpoint = testkit::servers::endpoint("WHIMBREL_TEST_WEED_A");
    let store = s3(&endpoint, &format!("blanks-{}", fastrand::u32(..))).await;
    for value in ["Annual  report", "a   b    c", "a\tb", " x  y ", "plain"] {
        let header = (
            http::HeaderName::from_static("x-amz-meta-title"),
            http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
        let meta = storage::Meta { headers: vec![header], ..storage::Meta::default() };
        let written = store.write(&Key::from("k"), &meta, storage::Body::bytes("x")).await;
        assert!(written.is_ok(), "{value:?}: {written:?}");
    }
}

#[tokio::test]
async fn clock_skew_is_reported() {
    let endpoint = testkit::servers::endpoint("WHIMBREL_TEST_WEED_A");
    s3(&endpoint, "skewed").await;
    let hour_ago = flow_control::clock::system().now_ms() - 3_600_000;
    let clock = std::sync::Arc::new(flow_control::clock::MockClock::new(hour_ago));
    let store = S3::new(config(&endpoint, "skewed"), clock).unwrap();
    let failure = store.list(&ListRequest { max: 1, ..ListRequest::default() }).await.unwrap_err();
    assert!(matches!(failure.kind, Kind::ClockSkew | Kind::BadCredentials | Kind::Forbidden), "{failure}");
}

#[tokio::test]
async fn unreachable_endpoint_is_a_connect_error() {
    let store = S3::new(config("http://127.0.0.1:9", "x"), flow_control::clock::system()).unwrap();
    let failure = store.read(&Key::from("k"), &ReadRequest::default()).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Connect);
    assert!(failure.to_string().contains("check the address"), "{failure}");
}
