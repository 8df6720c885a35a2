//! A folder of a bucket seen as a store of its own: keys lose the prefix on the way out and gain it on the
//! way in.

use async_trait::async_trait;
use model::error::{Error, Kind, Result};
use model::key::Key;

use crate::body::Body;
use crate::capability::{Capability, WriteCrc};
use crate::etag::Etag;
use crate::meta::Meta;
use crate::{
    Fact, ListRequest, ObjectStore, Page, Position, Probe, ReadRequest, Reading, SharedStore, UploadedPart,
    VersionPage, Written,
};

/// The view of one folder.
#[derive(Debug)]
pub struct PrefixedStore {
    inner: SharedStore,
    prefix: String,
}

impl PrefixedStore {
    /// The folder `prefix` of a store; a `/` is added when it is missing. Without a prefix the store itself.
    pub fn wrap(inner: SharedStore, prefix: &str) -> SharedStore {
        if prefix.is_empty() {
            return inner;
        }
        let slash = if prefix.ends_with('/') { "" } else { "/" };
        std::sync::Arc::new(Self { inner, prefix: format!("{prefix}{slash}") })
    }

    fn full(&self, key: &Key) -> Key {
        key.under(&self.prefix)
    }

    fn below(&self, request: &ListRequest) -> ListRequest {
        let from = match &request.from {
            Position::After(key) => Position::After(self.full(key)),
            from => from.clone(),
        };
        ListRequest { prefix: format!("{}{}", self.prefix, request.prefix), from, ..request.clone() }
    }

    fn next(&self, next: Option<Position>) -> Option<Position> {
        next.map(|next| match next {
            Position::After(key) => Position::after(self.bare(&key)),
            next => next,
        })
    }

    /// The key within the folder. A server may list what it was not asked for.
    fn listed(&self, key: &Key) -> Result<Key> {
        match key.as_bytes().strip_prefix(self.prefix.as_bytes()) {
            Some(bare) => Ok(Key::new(bare)),
            None => {
                let m = format!("the listing contains `{key}`, which does not begin with `{}`", self.prefix);
                Err(Error::new(Kind::Corrupt, "list", m))
            }
        }
    }

    fn bare(&self, key: &Key) -> Key {
        Key::new(key.as_bytes().strip_prefix(self.prefix.as_bytes()).unwrap_or(key.as_bytes()))
    }
}

#[async_trait]
impl ObjectStore for PrefixedStore {
    fn capability(&self) -> &Capability {
        self.inner.capability()
    }
    fn location(&self) -> String {
        format!("{} {}", self.inner.location(), self.prefix)
    }
    fn learn(&self, fact: Fact) {
        self.inner.learn(fact);
    }
    async fn probe(&self, prefix: &str) -> Result<Probe> {
        self.inner.probe(&format!("{}{prefix}", self.prefix)).await
    }
    async fn list(&self, request: &ListRequest) -> Result<Page> {
        let mut page = self.inner.list(&self.below(request)).await?;
        for entry in &mut page.entries {
            entry.key = self.listed(&entry.key)?;
        }
        page.next = self.next(page.next);
        // The marker of the folder itself is no object of the folder.
        page.entries.retain(|e| !e.key.is_empty());
        Ok(page)
    }
    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        self.inner.head(&self.full(key), part).await
    }
    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        self.inner.read(&self.full(key), request).await
    }
    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        self.inner.write(&self.full(key), meta, body).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(&self.full(key)).await
    }
    async fn begin_upload(&self, key: &Key, meta: &Meta) -> Result<String> {
        self.inner.begin_upload(&self.full(key), meta).await
    }
    async fn write_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        offset: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        self.inner.write_part(&self.full(key), upload, number, offset, body).await
    }
    async fn prove_write_crc(&self, key: &Key, upload: &str) -> Result<WriteCrc> {
        self.inner.prove_write_crc(&self.full(key), upload).await
    }
    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        self.inner.complete_upload(&self.full(key), upload, parts).await
    }
    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
        self.inner.abort_upload(&self.full(key), upload).await
    }
    async fn list_parts(&self, key: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
        self.inner.list_parts(&self.full(key), upload).await
    }
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        let found = self.inner.list_uploads(&format!("{}{prefix}", self.prefix)).await?;
        Ok(found.into_iter().map(|(k, id)| (self.bare(&k), id)).collect())
    }
    async fn copy_from(&self, bucket: &str, from: &Key, to: &Key, if_match: &Etag) -> Result<Written> {
        self.inner.copy_from(bucket, from, &self.full(to), if_match).await
    }
    async fn restore(&self, key: &Key, days: u32) -> Result<()> {
        self.inner.restore(&self.full(key), days).await
    }
    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        self.inner.tags(&self.full(key)).await
    }
    async fn acl(&self, key: &Key) -> Result<Option<&'static str>> {
        self.inner.acl(&self.full(key)).await
    }
    async fn list_versions(&self, request: &ListRequest) -> Result<VersionPage> {
        let mut page = self.inner.list_versions(&self.below(request)).await?;
        for (key, _) in &mut page.keys {
            *key = self.listed(key)?;
        }
        page.next = self.next(page.next);
        page.keys.retain(|(k, _)| !k.is_empty());
        Ok(page)
    }
    async fn keeps_versions(&self) -> Result<bool> {
        self.inner.keeps_versions().await
    }
    fn at_version(&self, version: &str) -> Option<SharedStore> {
        let inner = self.inner.at_version(version)?;
        Some(std::sync::Arc::new(Self { inner, prefix: self.prefix.clone() }))
    }
    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }
    fn ignored_entries(&self) -> Vec<String> {
        self.inner.ignored_entries()
    }
    async fn buckets(&self) -> Result<Vec<String>> {
        self.inner.buckets().await
    }
}
