//! A source seen with its history: keys whose newest version is a deletion are listed too, and each key counts the
//! bytes of all its versions.

use async_trait::async_trait;
use model::error::{Error, Kind, Result};
use model::key::Key;

use crate::capability::Capability;
use crate::etag::Etag;
use crate::meta::Meta;
use crate::{
    Entry, ListRequest, ObjectStore, Page, Probe, ReadRequest, Reading, SharedStore, Version, VersionPage,
};

/// The view of one store.
#[derive(Debug)]
pub struct VersionedStore {
    inner: SharedStore,
}

impl VersionedStore {
    /// The view of `inner`.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] when it keeps no versions.
    pub fn new(inner: SharedStore) -> Result<Self> {
        if inner.capability().versions {
            return Ok(Self { inner });
        }
        let m = format!("versioning is not enabled for {}", inner.location());
        Err(Error::new(Kind::Unsupported, "open", m))
    }
}

/// A key as one entry: what its newest data is, and the bytes of all.
fn entry(key: Key, versions: &[Version]) -> Entry {
    let size = versions.iter().filter_map(|v| v.entry.as_ref()).map(|e| e.size).sum();
    let modified_ms = versions.last().map_or(0, |v| v.at_ms);
    let newest = versions.iter().rev().find_map(|v| v.entry.clone());
    let empty = Entry { key, size, modified_ms, written_ms: modified_ms, etag: Etag::None, class: None };
    newest.map_or(empty, |e| Entry { size, modified_ms, written_ms: modified_ms, ..e })
}

#[async_trait]
impl ObjectStore for VersionedStore {
    fn capability(&self) -> &Capability {
        self.inner.capability()
    }
    fn bucket(&self) -> &str {
        self.inner.bucket()
    }
    fn location(&self) -> String {
        self.inner.location()
    }
    async fn probe(&self, prefix: &str) -> Result<Probe> {
        self.inner.probe(prefix).await
    }
    async fn list(&self, request: &ListRequest) -> Result<Page> {
        let page = self.inner.list_versions(request).await?;
        // A key whose versions cannot be had is listed too: it fails by name when its turn comes.
        let entries =
            page.keys.into_iter().map(|(key, versions)| entry(key, &versions.unwrap_or_default())).collect();
        Ok(Page { entries, folders: Vec::new(), next: page.next })
    }
    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        self.inner.head(key, part).await
    }
    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        self.inner.read(key, request).await
    }
    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        self.inner.tags(key).await
    }
    async fn acl(&self, key: &Key) -> Result<Option<&'static str>> {
        self.inner.acl(key).await
    }
    async fn list_versions(&self, request: &ListRequest) -> Result<VersionPage> {
        self.inner.list_versions(request).await
    }
    fn at_version(&self, version: &str) -> Option<SharedStore> {
        self.inner.at_version(version)
    }
    async fn restore(&self, key: &Key, days: u32) -> Result<()> {
        self.inner.restore(key, days).await
    }
    async fn buckets(&self) -> Result<Vec<String>> {
        self.inner.buckets().await
    }
}
