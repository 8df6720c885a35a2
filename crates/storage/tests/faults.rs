//! What the guard does about a server that misbehaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::failure::{Kind, Side};
use model::key::Key;
use pace::backoff::Backoff;
use pace::limit::{Limit, LimitBounds};
use storage::guard::Guarded;
use storage::{ListRequest, ObjectStore, ReadRequest};
use testkit::faults::{Fault, Faults};
use testkit::{Options, S3Server};

use crate::s3;

const QUICK: Backoff = Backoff {
    base: Duration::from_millis(1),
    cap: Duration::from_millis(5),
    attempts: 12,
    patience: Duration::from_secs(20),
};

async fn guarded(server: &S3Server) -> Guarded {
    let inner = s3(&server.endpoint(), "faulty").await;
    Guarded::new(inner, Side::Source, Arc::new(Limit::new(LimitBounds::ADAPTIVE)), QUICK)
}

#[tokio::test]
async fn a_storm_of_every_fault_is_outlasted_by_listings_and_heads() {
    let kinds = [Fault::SlowDown, Fault::InternalError, Fault::Reset, Fault::LoseAnswer, Fault::Truncate];
    let server = S3Server::start(Options { faults: Faults::new(0, &kinds, 3), ..Options::default() });
    for i in 0..50 {
        server.bucket("faulty").put(&format!("k{i:02}"), "x");
    }
    let store = guarded(&server).await;
    server.faults().set_per_mille(400);
    for i in 0..50 {
        assert_eq!(store.head(&Key::from(format!("k{i:02}")), None).await.unwrap().size, 1);
        let page = store.list(&ListRequest { max: 1000, ..ListRequest::default() }).await.unwrap();
        assert_eq!(page.entries.len(), 50);
    }
    assert!(server.faults().injected.load(Ordering::SeqCst) > 20);
    assert!(store.requests().retries.load(Ordering::SeqCst) > 20);
}

#[tokio::test]
async fn complaints_lower_the_limit() {
    let server =
        S3Server::start(Options { faults: Faults::new(0, &[Fault::SlowDown], 1), ..Options::default() });
    let store = guarded(&server).await;
    let before = store.limit().current();
    server.faults().set_per_mille(1000);
    let failure = store.list(&ListRequest { max: 1, ..ListRequest::default() }).await.unwrap_err();
    assert_eq!((failure.kind, failure.side), (Kind::Throttled, Side::Source));
    assert!(store.limit().current() < before);
}

#[tokio::test]
async fn a_cut_body_is_an_error_never_a_short_object() {
    let server =
        S3Server::start(Options { faults: Faults::new(0, &[Fault::Truncate], 1), ..Options::default() });
    server.bucket("faulty").put("k", vec![7; 100_000]);
    let store = guarded(&server).await;
    server.faults().set_per_mille(1000);
    for _ in 0..20 {
        let whole = async {
            let reading = store.read(&Key::from("k"), &ReadRequest::default()).await?;
            reading.body.collect(1 << 20).await
        };
        assert!(whole.await.unwrap_err().is_temporary());
    }
}
