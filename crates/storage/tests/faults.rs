//! What the guard does about a server that misbehaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flow_control::backoff::Backoff;
use flow_control::limit::{Limit, LimitBounds};
use model::error::{Kind, Side};
use model::key::Key;
use storage::retrying::RetryingStore;
use storage::{ListRequest, ObjectStore, ReadRequest};
use testkit::faults::{Faults, InjectedFault};
use testkit::{Options, S3Server};

use crate::s3;

const QUICK: Backoff = Backoff {
    base: Duration::from_millis(1),
    cap: Duration::from_millis(5),
    attempts: 12,
    max_elapsed: Duration::from_secs(20),
};

async fn guarded(server: &S3Server) -> RetryingStore {
    let inner = s3(&server.endpoint(), "faulty").await;
    RetryingStore::new(inner, Side::Source, Arc::new(Limit::new(LimitBounds::ADAPTIVE)), QUICK)
}

#[tokio::test]
async fn list_and_head_retry_through_all_faults() {
    let kinds = [
        InjectedFault::SlowDown,
        InjectedFault::InternalError,
        InjectedFault::Reset,
        InjectedFault::LoseAnswer,
        InjectedFault::Truncate,
    ];
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
async fn throttling_lowers_the_concurrency_limit() {
    let server = S3Server::start(Options {
        faults: Faults::new(0, &[InjectedFault::SlowDown], 1),
        ..Options::default()
    });
    let store = guarded(&server).await;
    let before = store.limit().current();
    server.faults().set_per_mille(1000);
    let failure = store.list(&ListRequest { max: 1, ..ListRequest::default() }).await.unwrap_err();
    assert_eq!((failure.kind, failure.side), (Kind::Throttled, Side::Source));
    assert!(store.limit().current() < before);
}

#[tokio::test]
async fn truncated_body_never_becomes_a_short_object() {
    let server = S3Server::start(Options {
        faults: Faults::new(0, &[InjectedFault::Truncate], 1),
        ..Options::default()
    });
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

/// A domain that writes down what it is asked for and refuses everything.
#[tokio::test]
async fn c10_every_request_to_a_cdn_domain_is_signed() {
    use std::io::{Read, Write};
    use storage::cdn::{Auth, CdnStore, Signer};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let (tx, asked) = std::sync::mpsc::channel::<String>();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            let _ = tx.send(text.lines().next().unwrap_or_default().to_owned());
            let _ =
                stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let server = S3Server::start(Options::default());
    let inner = s3(&server.endpoint(), "fronted").await;
    server.bucket("fronted").put("k", "body");
    for (auth, mark) in [
        (Auth::AliyunA, "?auth_key="),
        (Auth::TencentA, "?sign="),
        (Auth::TencentD, "?sign="),
        (Auth::QiniuPrivate, "?e="),
        (Auth::KsyunPrivate, "?KSSAccessKeyId="),
        (Auth::AzureSas, "?secret"),
    ] {
        let signer = Signer { auth, key: "secret".into(), access_key: "AK".into(), secret_key: "SK".into() };
        let client = storage::http::Client::new(&at, storage::egress::Egress::anywhere()).unwrap();
        let front = CdnStore::new(inner.clone(), client, signer, flow_control::clock::system());
        front.reach().await.unwrap();
        let _ = front.request(&Key::from("k")).await;
        let _ = front.read(&Key::from("k"), &ReadRequest::default()).await;
        let lines: Vec<String> = (0..3).map(|_| asked.recv().unwrap()).collect();
        let other = lines.iter().find(|line| !line.contains(mark));
        assert!(other.is_none(), "{auth:?}: {lines:?}");
    }
}
