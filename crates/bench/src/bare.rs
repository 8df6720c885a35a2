//! `bench bare`: what the same work costs on the S3 dialect with nothing around it: no ledger, no comparison,
//! no proof, no limit. The floor that the engine is measured against.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use flow_control::io_threads::IoThreads;
use model::key::Key;
use storage::http::Client;
use storage::s3::sign::Credentials;
use storage::s3::{Addressing, S3, S3Config};
use storage::{ListRequest, Meta, ObjectStore, Position, ReadRequest, UploadedPart};

const PART: u64 = 16 << 20;

fn open(endpoint: &str, bucket: &str) -> Arc<S3> {
    let credentials =
        Credentials { access_key: "bench".into(), secret_key: "bench-secret".into(), session_token: None };
    let config = S3Config {
        client: Client::new(endpoint, storage::egress::Egress::anywhere()).expect("an endpoint"),
        bucket: bucket.into(),
        addressing: Addressing::Path,
        region: "us-east-1".into(),
        credentials: Some(credentials),
        order: None,
        requester_pays: false,
        vendor: &storage::s3::vendor::GENERIC,
    };
    Arc::new(S3::new(config, flow_control::clock::system()).expect("a bucket"))
}

/// `bare copy ENDPOINT BUCKET LANES` or `bare list ENDPOINT BUCKET`.
pub(crate) fn run(args: &[String]) {
    let (endpoint, bucket) = (args[1].clone(), args[2].clone());
    let io_threads = Arc::new(IoThreads::start(2).expect("threads"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let n = args.get(3).and_then(|n| n.parse().ok()).unwrap_or(64);
    let done = runtime.block_on(async {
        match args[0].as_str() {
            "list" => list(open(&endpoint, &bucket), &io_threads).await,
            _ => copy(open(&endpoint, &bucket), open(&endpoint, "target"), &io_threads, n).await,
        }
    });
    println!("{done}");
}

async fn list(store: Arc<S3>, io_threads: &IoThreads) -> u64 {
    let work = async move {
        let (mut after, mut n) = (Key::default(), 0);
        loop {
            let request =
                ListRequest { from: Position::after(after.clone()), max: 1000, ..ListRequest::default() };
            let page = store.list(&request).await.expect("a page");
            n += page.entries.len() as u64;
            match page.entries.last() {
                Some(last) if page.more() => after = last.key.clone(),
                _ => return n,
            }
        }
    };
    io_threads.run(work).await.expect("a listing")
}

/// One read and one write: an object, or a part of one.
struct Piece {
    key: Key,
    size: u64,
    part: Option<PartOf>,
}

struct PartOf {
    upload: Arc<String>,
    number: u32,
    offset: u64,
}

/// What the workers share.
struct Copy {
    source: Arc<S3>,
    target: Arc<S3>,
    pieces: Vec<Piece>,
    next: AtomicU64,
    parts: Mutex<Vec<(Key, UploadedPart)>>,
}

impl Copy {
    /// Takes pieces until none is left; answers the bytes that it moved.
    async fn work(&self) -> u64 {
        let mut moved = 0u64;
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(Piece { key, size, part }) = self.pieces.get(i) else { return moved };
            let range = part.as_ref().map(|p| p.offset..(p.offset + PART).min(*size));
            let request = ReadRequest { range, ..ReadRequest::default() };
            let reading = self.source.read(key, &request).await.expect("a read");
            moved += reading.body.len();
            match part {
                None => {
                    self.target.write(key, &reading.meta, reading.body).await.expect("a write");
                }
                Some(PartOf { upload, number, offset }) => {
                    let part = self.target.write_part(key, upload, *number, *offset, reading.body).await;
                    self.parts.lock().expect("no panic").push((key.clone(), part.expect("a part")));
                }
            }
        }
    }

    async fn complete(&self, key: &Key, upload: &str) {
        let mut mine: Vec<UploadedPart> = self
            .parts
            .lock()
            .expect("no panic")
            .iter()
            .filter(|(k, _)| k == key)
            .map(|(_, p)| p.clone())
            .collect();
        mine.sort_by_key(|p| p.number);
        self.target.complete_upload(key, upload, &mine).await.expect("a completion");
    }
}

async fn list_all(source: &S3) -> Vec<(Key, u64)> {
    let mut keys = Vec::new();
    let mut after = Key::default();
    loop {
        let request =
            ListRequest { from: Position::after(after.clone()), max: 1000, ..ListRequest::default() };
        let page = source.list(&request).await.expect("a page");
        let more = page.more();
        keys.extend(page.entries.into_iter().map(|e| (e.key, e.size)));
        match keys.last() {
            Some((last, _)) if more => after = last.clone(),
            _ => return keys,
        }
    }
}

async fn copy(source: Arc<S3>, target: Arc<S3>, io_threads: &IoThreads, n: usize) -> u64 {
    let mut pieces = Vec::new();
    let mut uploads = Vec::new();
    for (key, size) in list_all(&source).await {
        if size <= PART {
            pieces.push(Piece { key, size, part: None });
            continue;
        }
        let upload = Arc::new(target.begin_upload(&key, &Meta::default()).await.expect("an upload"));
        let count = u32::try_from(size.div_ceil(PART)).expect("a few parts");
        for number in 1..=count {
            let part = PartOf { upload: upload.clone(), number, offset: u64::from(number - 1) * PART };
            pieces.push(Piece { key: key.clone(), size, part: Some(part) });
        }
        uploads.push((key, upload));
    }
    let copy = Copy { source, target, pieces, next: AtomicU64::new(0), parts: Mutex::default() };
    let copy = Arc::new(copy);
    let workers: Vec<_> = (0..n)
        .map(|_| {
            let copy = copy.clone();
            io_threads.handle().spawn(async move { copy.work().await })
        })
        .collect();
    let mut moved = 0;
    for worker in workers {
        moved += worker.await.expect("an I/O thread");
    }
    for (key, upload) in uploads {
        copy.complete(&key, &upload).await;
    }
    moved
}
