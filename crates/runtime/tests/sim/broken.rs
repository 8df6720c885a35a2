//! Connectors with a fault that was planted, to show that the simulation finds such.

use std::sync::Arc;

use async_trait::async_trait;
use model::error::{Error, Kind, Result, Side};
use model::key::Key;
use storage::{
    Body, Capability, Etag, ListRequest, Meta, ObjectStore, Page, Probe, ReadRequest, Reading, SharedStore,
    UploadedPart, Written,
};

/// What is wrong with a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A page's token is taken for the end.
    TokenIgnored,
    /// A tag that is no digest is taken for the MD5 of the object.
    OpaqueTrusted,
    /// A body that is shorter than its object is said to be all of it.
    ShortAccepted,
    /// What is not found by a read is not found by a look either, and not listed.
    GoneBelieved,
    /// A write is said to be done before it is.
    WriteForgotten,
    /// A removal takes another key with it.
    RemovesMore,
    /// A key that the source does not list is removed without asking the source for it.
    LooksOnce,
    /// Bytes move faster than the limit (planted where the task is made, see `service.rs`).
    PassesLimit,
}

impl Planted {
    pub(crate) const ALL: [Planted; 8] = [
        Planted::TokenIgnored,
        Planted::OpaqueTrusted,
        Planted::ShortAccepted,
        Planted::GoneBelieved,
        Planted::WriteForgotten,
        Planted::RemovesMore,
        Planted::LooksOnce,
        Planted::PassesLimit,
    ];

    /// The same store behind the broken connector.
    pub(crate) fn around(self, inner: SharedStore, side: Side) -> SharedStore {
        let capability = *inner.capability();
        Arc::new(Broken {
            inner,
            side,
            planted: self,
            capability,
            n: Default::default(),
            missed: Default::default(),
        })
    }
}

#[derive(Debug)]
struct Broken {
    inner: SharedStore,
    side: Side,
    planted: Planted,
    capability: Capability,
    n: std::sync::atomic::AtomicU64,
    missed: std::sync::Mutex<Vec<Key>>,
}

impl Broken {
    fn nth(&self, every: u64) -> bool {
        self.n.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % every == every - 1
    }

    /// Whether the listing shows a key.
    async fn lists(&self, key: &Key) -> Result<bool> {
        let mut request =
            ListRequest { prefix: key.to_text().into_owned(), max: 1000, ..ListRequest::default() };
        loop {
            let page = self.inner.list(&request).await?;
            if page.entries.iter().any(|e| e.key == *key) {
                return Ok(true);
            }
            match page.next {
                Some(next) => request.from = next,
                None => return Ok(false),
            }
        }
    }

    /// The digest that a tag would be, if it were one.
    fn trusted(&self, etag: Etag) -> Etag {
        match etag {
            Etag::Other(text) if self.planted == Planted::OpaqueTrusted => Etag::parse(&text),
            other => other,
        }
    }
}

#[async_trait]
impl ObjectStore for Broken {
    fn capability(&self) -> &Capability {
        &self.capability
    }
    fn location(&self) -> String {
        self.inner.location()
    }
    async fn probe(&self, prefix: &str) -> Result<Probe> {
        self.inner.probe(prefix).await
    }
    async fn list(&self, request: &ListRequest) -> Result<Page> {
        let mut page = self.inner.list(request).await?;
        if self.planted == Planted::TokenIgnored && request.max > 1 {
            page.next = None;
        }
        let missed = self.missed.lock().unwrap().clone();
        page.entries.retain(|e| !missed.contains(&e.key));
        for entry in &mut page.entries {
            entry.etag = self.trusted(std::mem::take(&mut entry.etag));
        }
        Ok(page)
    }
    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        if self.planted == Planted::LooksOnce && self.side == Side::Source && !self.lists(key).await? {
            return Err(Error::new(Kind::NotFound, "head", "it is not listed"));
        }
        let mut meta = self.inner.head(key, part).await?;
        meta.etag = self.trusted(meta.etag);
        Ok(meta)
    }
    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        let read = self.inner.read(key, request).await;
        if let Err(failure) = &read
            && self.planted == Planted::GoneBelieved
            && failure.kind == Kind::NotFound
        {
            self.missed.lock().unwrap().push(key.clone());
        }
        let mut reading = read?;
        reading.meta.etag = self.trusted(reading.meta.etag);
        if self.planted == Planted::ShortAccepted && self.side == Side::Source {
            let said = request.expected_len().unwrap_or(reading.body.len());
            let mut bytes = reading.body.collect(u64::MAX).await?.to_vec();
            bytes.resize(usize::try_from(said).unwrap_or(0), 0);
            reading.body = Body::bytes(bytes);
        }
        Ok(reading)
    }
    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        if self.planted == Planted::WriteForgotten && self.nth(9) {
            let bytes = body.collect(u64::MAX).await?;
            let mut hasher = storage::checksum::Hasher::new(storage::checksum::DigestSet {
                md5: true,
                ..Default::default()
            });
            hasher.update(&bytes);
            let etag = hasher.finish().md5.map_or(Etag::None, Etag::Md5);
            return Ok(Written { etag, ..Written::default() });
        }
        self.inner.write(key, meta, body).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        if self.planted == Planted::RemovesMore {
            let page = self.inner.list(&ListRequest { max: 1, ..ListRequest::default() }).await?;
            if let Some(entry) = page.entries.first() {
                self.inner.delete(&entry.key).await?;
            }
        }
        self.inner.delete(key).await
    }
    async fn begin_upload(&self, key: &Key, meta: &Meta) -> Result<String> {
        self.inner.begin_upload(key, meta).await
    }
    async fn write_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        offset: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        self.inner.write_part(key, upload, number, offset, body).await
    }
    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        self.inner.complete_upload(key, upload, parts).await
    }
    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
        self.inner.abort_upload(key, upload).await
    }
    async fn list_parts(&self, key: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
        self.inner.list_parts(key, upload).await
    }
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        self.inner.list_uploads(prefix).await
    }
    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        self.inner.tags(key).await
    }
    async fn buckets(&self) -> Result<Vec<String>> {
        self.inner.buckets().await
    }
}
