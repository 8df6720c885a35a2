//! A store seen as if it held one object: what a place names that is no folder.

use async_trait::async_trait;
use model::error::{Kind, Result};
use model::key::Key;

use crate::capability::Capability;
use crate::meta::Meta;
use crate::{
    Entry, Fact, ListRequest, ObjectStore, Page, Probe, ReadRequest, Reading, SharedStore, VersionPage,
};

/// The view of one object.
#[derive(Debug)]
pub struct SingleObjectStore {
    inner: SharedStore,
    key: Key,
}

impl SingleObjectStore {
    /// The object `key` of `inner`.
    pub fn new(inner: SharedStore, key: Key) -> Self {
        Self { inner, key }
    }

    fn shows(&self, request: &ListRequest) -> bool {
        self.key.as_bytes().starts_with(request.prefix.as_bytes()) && request.from.after_key() < self.key
    }
}

#[async_trait]
impl ObjectStore for SingleObjectStore {
    fn capability(&self) -> &Capability {
        self.inner.capability()
    }
    fn service(&self) -> Option<String> {
        self.inner.service()
    }
    fn bucket(&self) -> &str {
        self.inner.bucket()
    }
    fn location(&self) -> String {
        format!("{} {}", self.inner.location(), self.key)
    }
    fn learn(&self, fact: Fact) {
        self.inner.learn(fact);
    }
    async fn probe(&self, prefix: &str) -> Result<Probe> {
        self.inner.probe(prefix).await
    }
    async fn list(&self, request: &ListRequest) -> Result<Page> {
        if !self.shows(request) {
            return Ok(Page::default());
        }
        match self.inner.head(&self.key, None).await {
            Ok(meta) => {
                let modified_ms = meta.modified_ms.unwrap_or(0);
                let written_ms = if meta.written_ms > 0 { meta.written_ms } else { modified_ms };
                let entry = Entry {
                    key: self.key.clone(),
                    size: meta.size,
                    modified_ms,
                    written_ms,
                    etag: meta.etag,
                    class: meta.class.map(Into::into),
                };
                Ok(Page { entries: vec![entry], ..Page::default() })
            }
            Err(f) if f.kind == Kind::NotFound => Ok(Page::default()),
            Err(f) => Err(f),
        }
    }
    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        self.inner.head(key, part).await
    }
    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        self.inner.read(key, request).await
    }
    async fn restore(&self, key: &Key, days: u32) -> Result<()> {
        self.inner.restore(key, days).await
    }
    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        self.inner.tags(key).await
    }
    async fn acl(&self, key: &Key) -> Result<Option<&'static str>> {
        self.inner.acl(key).await
    }
    async fn list_versions(&self, request: &ListRequest) -> Result<VersionPage> {
        if !self.shows(request) {
            return Ok(VersionPage::default());
        }
        let named = self.key.as_str().unwrap_or_default().to_owned();
        let page = self.inner.list_versions(&ListRequest { prefix: named, ..request.clone() }).await?;
        let keys = page.keys.into_iter().filter(|(key, _)| *key == self.key).collect();
        Ok(VersionPage { keys, next: None })
    }
    fn at_version(&self, version: &str) -> Option<SharedStore> {
        self.inner.at_version(version)
    }
    fn ignored_entries(&self) -> Vec<String> {
        self.inner.ignored_entries()
    }
    async fn buckets(&self) -> Result<Vec<String>> {
        self.inner.buckets().await
    }
}
