//! A process that can be killed: from then on nothing of it reaches a store.

use async_trait::async_trait;
use model::error::{Error, Kind, Result};
use model::key::Key;
use std::sync::Arc;
use storage::{
    Body, Capability, ListRequest, Meta, ObjectStore, Page, Probe, ReadRequest, Reading, SharedStore,
    UploadedPart, Written,
};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Default)]
pub(crate) struct Process {
    /// Requests are not answered any more.
    pub(crate) killed: CancellationToken,
    /// Its lease has ended: what still runs of it may end too.
    pub(crate) buried: CancellationToken,
}

/// A store as one process sees it.
#[derive(Debug)]
pub(crate) struct Mortal {
    pub(crate) inner: SharedStore,
    pub(crate) process: Arc<Process>,
}

impl Mortal {
    async fn lives<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.process.killed.cancelled() => {
                self.process.buried.cancelled().await;
                Err(Error::new(Kind::Stopped, "process", "it was killed"))
            }
            done = call => done,
        }
    }
}

#[async_trait]
impl ObjectStore for Mortal {
    fn capability(&self) -> &Capability {
        self.inner.capability()
    }
    fn location(&self) -> String {
        self.inner.location()
    }
    async fn buckets(&self) -> Result<Vec<String>> {
        self.inner.buckets().await
    }
    async fn probe(&self, prefix: &str) -> Result<Probe> {
        self.lives(self.inner.probe(prefix)).await
    }
    async fn list(&self, request: &ListRequest) -> Result<Page> {
        self.lives(self.inner.list(request)).await
    }
    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        self.lives(self.inner.head(key, part)).await
    }
    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        self.lives(self.inner.read(key, request)).await
    }
    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        self.lives(self.inner.write(key, meta, body)).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.lives(self.inner.delete(key)).await
    }
    async fn begin_upload(&self, key: &Key, meta: &Meta) -> Result<String> {
        self.lives(self.inner.begin_upload(key, meta)).await
    }
    async fn write_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        offset: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        self.lives(self.inner.write_part(key, upload, number, offset, body)).await
    }
    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        self.lives(self.inner.complete_upload(key, upload, parts)).await
    }
    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
        self.lives(self.inner.abort_upload(key, upload)).await
    }
    async fn list_parts(&self, key: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
        self.lives(self.inner.list_parts(key, upload)).await
    }
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        self.lives(self.inner.list_uploads(prefix)).await
    }
    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        self.lives(self.inner.tags(key)).await
    }
}
