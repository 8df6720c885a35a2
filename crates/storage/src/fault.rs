//! A store that fails on purpose, for tests: rejects, breaks after the write landed, holds, or cuts bodies.
//!
//! Which call fails is decided by a seed, so that a failing run can be repeated.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use model::error::{Error, Kind, Result};
use model::key::Key;

use crate::body::Body;
use crate::capability::{Capability, WriteCrc};
use crate::etag::Etag;
use crate::meta::Meta;
use crate::{
    ListRequest, ObjectStore, Page, Probe, ReadRequest, Reading, SharedStore, UploadedPart, Written,
};

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer with this kind before anything happens.
    Reject(Kind),
    /// Let it happen, then lose the answer.
    LoseAnswer,
}

/// Fails a share of all calls.
#[derive(Debug)]
pub struct FaultyStore {
    inner: SharedStore,
    per_mille: u32,
    actions: Vec<Action>,
    random: Mutex<fastrand::Rng>,
    /// Faults injected so far.
    pub injected: AtomicU64,
}

impl FaultyStore {
    /// Fails `per_mille` of 1000 calls with one of `actions`, chosen by `seed`.
    pub fn new(inner: SharedStore, per_mille: u32, actions: Vec<Action>, seed: u64) -> Self {
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        Self { inner, per_mille, actions, random, injected: AtomicU64::new(0) }
    }

    fn draw(&self) -> Option<Action> {
        let mut random = self.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if random.u32(0..1000) >= self.per_mille || self.actions.is_empty() {
            return None;
        }
        self.injected.fetch_add(1, Ordering::Relaxed);
        let i = random.usize(0..self.actions.len());
        Some(self.actions[i])
    }

    async fn call<T>(&self, op: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        match self.draw() {
            None => call.await,
            Some(Action::Reject(kind)) => Err(Error::new(kind, op, "injected")),
            Some(Action::LoseAnswer) => {
                call.await?;
                Err(Error::new(Kind::Connect, op, "injected: the answer was lost"))
            }
        }
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    fn capability(&self) -> &Capability {
        self.inner.capability()
    }
    fn location(&self) -> String {
        self.inner.location()
    }
    async fn probe(&self, prefix: &str) -> Result<Probe> {
        self.inner.probe(prefix).await
    }
    async fn list(&self, request: &ListRequest) -> Result<Page> {
        self.call("list", self.inner.list(request)).await
    }
    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        self.call("head", self.inner.head(key, part)).await
    }
    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        self.call("read", self.inner.read(key, request)).await
    }
    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        self.call("write", self.inner.write(key, meta, body)).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.call("delete", self.inner.delete(key)).await
    }
    async fn begin_upload(&self, key: &Key, meta: &Meta) -> Result<String> {
        self.call("begin_upload", self.inner.begin_upload(key, meta)).await
    }
    async fn write_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        offset: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        self.call("write_part", self.inner.write_part(key, upload, number, offset, body)).await
    }
    async fn prove_write_crc(&self, key: &Key, upload: &str) -> Result<WriteCrc> {
        self.inner.prove_write_crc(key, upload).await
    }
    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        self.call("complete_upload", self.inner.complete_upload(key, upload, parts)).await
    }
    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
        self.inner.abort_upload(key, upload).await
    }
    async fn list_parts(&self, key: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
        self.call("list_parts", self.inner.list_parts(key, upload)).await
    }
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        self.inner.list_uploads(prefix).await
    }
    async fn copy_from(&self, bucket: &str, from: &Key, to: &Key, if_match: &Etag) -> Result<Written> {
        self.call("copy", self.inner.copy_from(bucket, from, to, if_match)).await
    }
    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        self.call("tags", self.inner.tags(key)).await
    }
    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }
    async fn buckets(&self) -> Result<Vec<String>> {
        self.inner.buckets().await
    }
}
