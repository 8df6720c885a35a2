//! What the metadata of a copy is to be.

use model::error::Result;
use model::key::Key;
use model::policy::{MetadataRule, StoragePolicy};
use storage::{Meta, ObjectStore};

use super::ObjectCopier;

/// The rules of a task for metadata, as far as its target can keep it.
#[derive(Clone, Copy, Debug)]
pub(super) struct MetaRules {
    metadata: MetadataRule,
    storage: StoragePolicy,
    keeps_class: bool,
    kms: bool,
    copies_tags: bool,
}

impl MetaRules {
    /// Pure: the metadata of the copy of an object, with the tags that came with its metadata.
    pub(super) fn target_meta(&self, source: &Meta) -> Meta {
        let mut meta = Meta { size: source.size, modified_ms: source.modified_ms, ..Meta::default() };
        match self.metadata {
            MetadataRule::All => {
                meta.headers = source.headers.clone();
                meta.modes.clone_from(&source.modes);
                if self.copies_tags {
                    meta.tags.clone_from(&source.tags);
                }
            }
            MetadataRule::ContentType => {
                let basic = |n: &http::HeaderName| {
                    n == http::header::CONTENT_TYPE || n == http::header::CONTENT_ENCODING
                };
                meta.headers = source.headers.iter().filter(|(n, _)| basic(n)).cloned().collect();
            }
        }
        if self.keeps_class {
            meta.class = target_class(self.storage, source.class.as_deref()).map(str::to_owned);
        }
        if self.kms {
            meta.encryption = Some("aws:kms".into());
        }
        meta
    }
}

impl ObjectCopier {
    pub(super) fn meta_rules(&self) -> MetaRules {
        let (source, target) = (self.source.capability(), self.target.capability());
        MetaRules {
            metadata: self.spec.metadata,
            storage: self.spec.storage,
            keeps_class: target.storage_class,
            kms: self.spec.kms,
            copies_tags: source.tags && target.tags,
        }
    }

    /// The metadata of a copy, with what the source tells only when it is asked for it.
    pub(crate) async fn target_meta(&self, key: &Key, source: &Meta) -> Result<Meta> {
        let rules = self.meta_rules();
        let mut meta = rules.target_meta(source);
        if rules.metadata == MetadataRule::All && rules.copies_tags && source.tag_count > 0 {
            meta.tags = self.source.tags(key).await?;
        }
        if self.spec.extensions.acl && self.target.capability().acl && self.source.capability().acl {
            meta.acl = self.source.acl(key).await?;
        }
        Ok(meta)
    }
}

/// The target's storage class (OMS §4.9), in S3's words.
fn target_class(policy: StoragePolicy, source: Option<&str>) -> Option<&'static str> {
    match policy {
        StoragePolicy::Standard => None,
        StoragePolicy::Ia => Some("STANDARD_IA"),
        StoragePolicy::Archive => Some("GLACIER"),
        StoragePolicy::DeepArchive => Some("DEEP_ARCHIVE"),
        StoragePolicy::SrcStorageMapping => match source.unwrap_or_default().to_ascii_uppercase().as_str() {
            "STANDARD_IA" | "ONEZONE_IA" | "IA" | "WARM" | "NEARLINE" | "COOL" => Some("STANDARD_IA"),
            "GLACIER" | "GLACIER_IR" | "ARCHIVE" | "COLD" | "COLDLINE" => Some("GLACIER"),
            "DEEP_ARCHIVE" | "COLD_ARCHIVE" | "DEEPCOLDARCHIVE" => Some("DEEP_ARCHIVE"),
            _ => None,
        },
    }
}
