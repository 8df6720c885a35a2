//! What stands around every connector: the adaptive limit, retries by error kind, and counts.
//!
//! Order, from outside: count → retry → limit → connector (which has its own timeouts). Requests
//! without a body are retried here; reads and writes of bytes, as whole transfers, by the copy engine. So is the
//! beginning of an upload: an answer lost there leaves an upload behind, which the engine ends before it begins
//! another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use flow_control::backoff::Backoff;
use flow_control::limit::Limit;
use model::error::{Policy, Result, Side};
use model::key::{Key, Order};

use crate::body::Body;
use crate::capability::{Capability, StartAfter, WriteCrc};
use crate::etag::Etag;
use crate::meta::Meta;
use crate::{
    Fact, ListRequest, ObjectStore, Page, Probe, ReadRequest, Reading, SharedStore, UploadedPart,
    VersionPage, Written,
};

/// What can be learned about a store by using it; all combinations are prepared, since a capability is lent.
const ORDERS: [Order; 3] = [Order::Bytes, Order::Segments, Order::Unknown];
const STARTS: [StartAfter; 4] =
    [StartAfter::Exact, StartAfter::Unproved, StartAfter::Proved, StartAfter::Broken];
const CRCS: [WriteCrc; 4] = [WriteCrc::Unproved, WriteCrc::None, WriteCrc::Header, WriteCrc::Trailer];
const BOTH: [bool; 2] = [false, true];

/// Requests made, by kind; also retries.
#[derive(Debug, Default)]
pub struct Requests {
    /// Listings.
    pub list: AtomicU64,
    /// Metadata requests, tags included.
    pub head: AtomicU64,
    /// Reads opened.
    pub get: AtomicU64,
    /// Writes: objects, parts, uploads begun and completed, copies.
    pub put: AtomicU64,
    /// Removals.
    pub delete: AtomicU64,
    /// Attempts after the first.
    pub retries: AtomicU64,
}

/// A connector with limit, retries and counts.
#[derive(Debug)]
pub struct RetryingStore {
    inner: SharedStore,
    side: Side,
    limit: Arc<Limit>,
    backoff: Backoff,
    requests: Arc<Requests>,
    known: Arc<KnownCapability>,
}

/// The capability as it is known now.
#[derive(Debug)]
struct KnownCapability {
    variants: Vec<Capability>,
    current: AtomicUsize,
}

impl KnownCapability {
    fn new(base: Capability) -> Self {
        let with_orders = |c: Capability| ORDERS.map(|list_order| Capability { list_order, ..c });
        let with_starts = |c: Capability| STARTS.map(|list_start_after| Capability { list_start_after, ..c });
        let with_crcs = |c: Capability| CRCS.map(|write_crc| Capability { write_crc, ..c });
        let with_demand = |c: Capability| BOTH.map(|write_checksum| Capability { write_checksum, ..c });
        let with_list = |c: Capability| BOTH.map(|list_allowed| Capability { list_allowed, ..c });
        let orders = with_orders(base).into_iter().flat_map(with_starts).flat_map(with_crcs);
        let all: Vec<Capability> = orders.flat_map(with_demand).flat_map(with_list).collect();
        let now = all.iter().position(|c| *c == base).unwrap_or(0);
        Self { variants: all, current: AtomicUsize::new(now) }
    }

    fn get(&self) -> &Capability {
        &self.variants[self.current.load(Ordering::Relaxed)]
    }

    fn learn(&self, fact: Fact) {
        let learned = |mut capability: Capability| {
            match fact {
                Fact::ListOrder(order) => capability.list_order = order,
                Fact::StartAfter(start) => capability.list_start_after = start,
                Fact::WriteChecksum => capability.write_checksum = true,
                Fact::WriteCrc(crc) => capability.write_crc = crc,
                Fact::ListRefused => capability.list_allowed = false,
            }
            self.variants.iter().position(|c| *c == capability)
        };
        let _ = self
            .current
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| learned(self.variants[now]));
    }
}

impl RetryingStore {
    /// Wraps `inner`; failures will say `side`.
    pub fn new(inner: SharedStore, side: Side, limit: Arc<Limit>, backoff: Backoff) -> Self {
        let known = Arc::new(KnownCapability::new(*inner.capability()));
        Self { inner, side, limit, backoff, requests: Arc::default(), known }
    }

    /// A store for commands that look at it in the foreground, with retries and a limit of its own.
    pub fn alone(inner: SharedStore, side: Side, backoff: Backoff) -> Arc<Self> {
        let limit = Arc::new(Limit::new(flow_control::limit::LimitBounds::ADAPTIVE));
        Arc::new(Self::new(inner, side, limit, backoff))
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The same end, whose reads are of one version; none where there are no versions.
    pub fn version(&self, id: &str) -> Option<RetryingStore> {
        Some(Self {
            inner: self.inner.at_version(id)?,
            side: self.side,
            limit: self.limit.clone(),
            backoff: self.backoff,
            requests: self.requests.clone(),
            known: self.known.clone(),
        })
    }

    /// The counts, shared.
    pub fn requests(&self) -> Arc<Requests> {
        self.requests.clone()
    }

    /// The adaptive limit of this endpoint.
    pub fn limit(&self) -> &Arc<Limit> {
        &self.limit
    }

    /// The body carries the checksum that the store verifies; one that is in memory, also the one that it demands.
    fn checked(&self, body: Body) -> Body {
        let body = body.with_write_crc(self.capability().write_crc);
        match self.capability().write_checksum && body.md5().is_none() {
            true => match body.md5_in_memory() {
                Some(md5) => body.with_md5(md5),
                None => body,
            },
            false => body,
        }
    }

    async fn once<T>(&self, count: &AtomicU64, call: impl Future<Output = Result<T>>) -> Result<T> {
        count.fetch_add(1, Ordering::Relaxed);
        match call.await {
            Ok(value) => Ok(value),
            Err(failure) => {
                if failure.kind.policy() == (Policy::Retry { throttle: true }) {
                    self.limit.throttled();
                }
                Err(failure.at(self.side))
            }
        }
    }

    async fn retried<T, F: Future<Output = Result<T>>>(
        &self,
        count: &AtomicU64,
        call: impl Fn() -> F,
    ) -> Result<T> {
        let began = Instant::now();
        let mut attempt = 1;
        loop {
            let failure = match self.once(count, call()).await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            // A changed object is new information for the engine, not something to ask again.
            let again = failure.is_temporary() && failure.kind != model::error::Kind::Changed;
            let delay = self.backoff.delay(attempt, began.elapsed(), fastrand::f64());
            match delay.filter(|_| again) {
                None => return Err(failure),
                Some(delay) => {
                    tracing::debug!(op = failure.op, kind = ?failure.kind, attempt, "retrying: {failure}");
                    self.requests.retries.fetch_add(1, Ordering::Relaxed);
                    attempt += 1;
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }
}

#[async_trait]
impl ObjectStore for RetryingStore {
    fn capability(&self) -> &Capability {
        self.known.get()
    }

    fn learn(&self, fact: Fact) {
        self.known.learn(fact);
    }

    fn service(&self) -> Option<String> {
        self.inner.service()
    }

    fn bucket(&self) -> &str {
        self.inner.bucket()
    }

    fn listed_store(&self) -> Option<SharedStore> {
        let inner = self.inner.listed_store()?;
        let known = Arc::new(KnownCapability::new(*inner.capability()));
        Some(Arc::new(Self {
            inner,
            side: self.side,
            limit: self.limit.clone(),
            backoff: self.backoff,
            requests: self.requests.clone(),
            known,
        }))
    }

    fn as_directory(&self) -> Option<&crate::fs::Fs> {
        self.inner.as_directory()
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    async fn probe(&self, prefix: &str) -> Result<Probe> {
        self.retried(&self.requests.head, || self.inner.probe(prefix)).await
    }

    async fn list(&self, request: &ListRequest) -> Result<Page> {
        self.retried(&self.requests.list, || self.inner.list(request)).await
    }

    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        self.retried(&self.requests.head, || self.inner.head(key, part)).await
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        self.once(&self.requests.get, self.inner.read(key, request)).await
    }

    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        self.once(&self.requests.put, self.inner.write(key, meta, self.checked(body))).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.retried(&self.requests.delete, || self.inner.delete(key)).await
    }

    async fn begin_upload(&self, key: &Key, meta: &Meta) -> Result<String> {
        self.once(&self.requests.put, self.inner.begin_upload(key, meta)).await
    }

    async fn write_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        offset: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        self.once(&self.requests.put, self.inner.write_part(key, upload, number, offset, body)).await
    }

    async fn prove_write_crc(&self, key: &Key, upload: &str) -> Result<WriteCrc> {
        self.once(&self.requests.put, self.inner.prove_write_crc(key, upload)).await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await.map_err(|f| f.at(self.side))
    }

    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        self.retried(&self.requests.put, || self.inner.complete_upload(key, upload, parts)).await
    }

    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
        self.retried(&self.requests.delete, || self.inner.abort_upload(key, upload)).await
    }

    async fn list_parts(&self, key: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
        self.retried(&self.requests.list, || self.inner.list_parts(key, upload)).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        self.retried(&self.requests.list, || self.inner.list_uploads(prefix)).await
    }

    async fn copy_from(&self, bucket: &str, from: &Key, to: &Key, if_match: &Etag) -> Result<Written> {
        self.retried(&self.requests.put, || self.inner.copy_from(bucket, from, to, if_match)).await
    }

    async fn restore(&self, key: &Key, days: u32) -> Result<()> {
        self.retried(&self.requests.head, || self.inner.restore(key, days)).await
    }

    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        self.retried(&self.requests.head, || self.inner.tags(key)).await
    }

    async fn acl(&self, key: &Key) -> Result<Option<&'static str>> {
        self.retried(&self.requests.head, || self.inner.acl(key)).await
    }

    async fn list_versions(&self, request: &ListRequest) -> Result<VersionPage> {
        self.retried(&self.requests.list, || self.inner.list_versions(request)).await
    }

    async fn keeps_versions(&self) -> Result<bool> {
        self.retried(&self.requests.head, || self.inner.keeps_versions()).await
    }

    fn at_version(&self, version: &str) -> Option<SharedStore> {
        self.inner.at_version(version)
    }

    fn ignored_entries(&self) -> Vec<String> {
        self.inner.ignored_entries()
    }

    async fn buckets(&self) -> Result<Vec<String>> {
        self.retried(&self.requests.list, || self.inner.buckets()).await
    }
}
