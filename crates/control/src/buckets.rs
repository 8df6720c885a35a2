//! Looking at buckets for somebody who is about to create a task (oms.md §2.6).

use model::error::{Error, Kind, Policy, Side};
use model::key::Key;
use model::spec::{Location, TaskSpec};
use storage::key_list::{self, ListForm};
use storage::{ListRequest, Position, SharedStore};

use crate::outgoing::{OutgoingCall, in_time};
use crate::secrets::{StoreCredentials, TaskSecrets};
use crate::task_error::{TaskError, TaskResult};

/// Pages without a key that are followed before a prefix counts as empty.
const EMPTY_PAGES_MAX: usize = 1000;
/// Pages that one page of a folder level may take: names come in the order of the store, and some may be skipped.
const LEVEL_PAGES_MAX: usize = 1000;

/// Whose buckets, by vendor and credentials.
#[derive(Debug)]
pub struct StoreAccount {
    /// Vendor; `HEC` means this service's own destinations.
    pub cloud_type: String,
    /// Tencent application id.
    pub app_id: String,
    /// Credentials.
    pub keys: StoreCredentials,
}

/// One page of one level of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderLevel {
    /// Full keys with their size; folders have none and end in `/`.
    pub names: Vec<(String, Option<u64>)>,
    /// More follow.
    pub more: bool,
}

impl StoreAccount {
    fn side(&self) -> Side {
        if self.cloud_type == "HEC" { Side::Target } else { Side::Source }
    }

    fn location(&self, region: &str, bucket: &str) -> Location {
        let cloud_type = if self.side() == Side::Target { String::new() } else { self.cloud_type.clone() };
        Location { cloud_type, region: region.into(), bucket: bucket.into(), app_id: self.app_id.clone() }
    }
}

impl OutgoingCall {
    /// All buckets that the credentials see, at every store of the vendor.
    ///
    /// # Errors
    /// [`TaskError::Buckets`] when no store answers with a list.
    pub async fn buckets(&self, account: &StoreAccount) -> TaskResult<Vec<String>> {
        in_time("buckets", self.all_buckets(account)).await.map_err(TaskError::Buckets)?
    }

    async fn all_buckets(&self, account: &StoreAccount) -> TaskResult<Vec<String>> {
        let mut all = Vec::new();
        let mut refused: Option<Error> = None;
        let mut answered = false;
        for region in self.control.catalogue.regions_of(&account.cloud_type, account.side()) {
            let place = account.location(&region, "");
            match self.control.catalogue.buckets(&place, &account.keys, account.side()).await {
                Ok(buckets) => {
                    answered = true;
                    all.extend(buckets);
                }
                Err(failure) => refused = Some(failure),
            }
        }
        if !answered {
            let none = || Error::new(Kind::NotFound, "buckets", "no store of this cloud_type is configured");
            return Err(TaskError::Buckets(refused.unwrap_or_else(none)));
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// The region that serves a bucket.
    ///
    /// # Errors
    /// [`TaskError::BucketRegion`] when no store of the vendor has it.
    pub async fn bucket_region(&self, account: &StoreAccount, bucket: &str) -> TaskResult<String> {
        in_time("bucket_region", self.find_region(account, bucket)).await.map_err(TaskError::BucketRegion)?
    }

    async fn find_region(&self, account: &StoreAccount, bucket: &str) -> TaskResult<String> {
        let mut refused: Option<Error> = None;
        for region in self.control.catalogue.regions_of(&account.cloud_type, account.side()) {
            let place = account.location(&region, bucket);
            match self.control.catalogue.open(&place, &account.keys, account.side(), false).await {
                Ok(_) => return Ok(region),
                Err(failure) => {
                    // Wrong keys tell most; a store that does not have it more than one that does not answer.
                    let tells = |f: &Error| match f.kind {
                        Kind::BadCredentials | Kind::Forbidden => 2,
                        Kind::NoBucket | Kind::NotFound => 1,
                        _ => 0,
                    };
                    if refused.as_ref().is_none_or(|r| tells(&failure) > tells(r)) {
                        refused = Some(failure);
                    }
                }
            }
        }
        let none = || Error::new(Kind::NotFound, "buckets", "no store of this cloud_type is configured");
        Err(TaskError::BucketRegion(refused.unwrap_or_else(none)))
    }

    async fn opened(&self, account: &StoreAccount, region: &str, bucket: &str) -> TaskResult<SharedStore> {
        let side = account.side();
        let place = account.location(region, bucket);
        if self.control.catalogue.find(&place, side).is_none() {
            return Err(TaskError::SourceRegion(region.to_owned()));
        }
        let opened = self.control.catalogue.open(&place, &account.keys, side, false).await;
        Ok(opened.map_err(|f| TaskError::Buckets(f.at(side)))?.store)
    }

    /// True when at least one key begins with `prefix`.
    ///
    /// # Errors
    /// [`TaskError::Buckets`] when the bucket cannot be listed.
    pub async fn prefix_exists(
        &self,
        account: &StoreAccount,
        region: &str,
        bucket: &str,
        prefix: &str,
    ) -> TaskResult<bool> {
        in_time("prefix_exists", self.any_key(account, region, bucket, prefix))
            .await
            .map_err(TaskError::Buckets)?
    }

    async fn any_key(
        &self,
        account: &StoreAccount,
        region: &str,
        bucket: &str,
        prefix: &str,
    ) -> TaskResult<bool> {
        let store = self.opened(account, region, bucket).await?;
        let mut from = Position::Start;
        for _ in 0..EMPTY_PAGES_MAX {
            let request = ListRequest { prefix: prefix.into(), from, max: 1, delimiter: None };
            let page = store.list(&request).await.map_err(|f| TaskError::Buckets(f.at(account.side())))?;
            match page.next {
                Some(next) if page.entries.is_empty() => from = next,
                _ => return Ok(!page.entries.is_empty()),
            }
        }
        Ok(false)
    }

    /// One page of the level below a folder.
    ///
    /// # Errors
    /// [`TaskError::Buckets`] when the bucket cannot be listed.
    pub async fn level(
        &self,
        account: &StoreAccount,
        region: &str,
        bucket: &str,
        folder: &str,
        after: &str,
        max: u32,
    ) -> TaskResult<FolderLevel> {
        in_time("level", self.list_level(account, region, bucket, folder, after, max))
            .await
            .map_err(TaskError::Buckets)?
    }

    async fn list_level(
        &self,
        account: &StoreAccount,
        region: &str,
        bucket: &str,
        folder: &str,
        after: &str,
        max: u32,
    ) -> TaskResult<FolderLevel> {
        let store = self.opened(account, region, bucket).await?;
        let order = store.capability().list_order;
        let compare = |a: &str, b: &str| order.compare(a.as_bytes(), b.as_bytes());
        // What stands in a folder that was shown already does not show it again.
        let behind = if after.ends_with('/') { format!("{after}{}", char::MAX) } else { after.to_owned() };
        let (mut from, mut more) = (Some(Position::after(Key::from(behind))), false);
        let mut names: Vec<(String, Option<u64>)> = Vec::new();
        for _ in 0..LEVEL_PAGES_MAX {
            let Some(at) = from.take() else { break };
            // The folder's own marker takes a place and is not shown.
            let request =
                ListRequest { prefix: folder.into(), from: at.clone(), max: max + 1, delimiter: Some('/') };
            let page = store.list(&request).await.map_err(|f| TaskError::Buckets(f.at(account.side())))?;
            let folders = page.folders.into_iter().map(|f| (f, None));
            let files = page.entries.into_iter().map(|e| (e.key.to_text().into_owned(), Some(e.size)));
            // A server may answer again what it was asked to go on behind.
            names.extend(
                folders
                    .chain(files)
                    .filter(|(name, _)| name != folder && (after.is_empty() || compare(name, after).is_gt())),
            );
            more = page.next.is_some();
            if names.len() > max as usize {
                break;
            }
            from = page.next.filter(|next| *next != at);
        }
        names.sort_by(|(a, _), (b, _)| compare(a, b));
        names.dedup_by(|a, b| a.0 == b.0);
        more |= names.len() > max as usize;
        names.truncate(max as usize);
        Ok(FolderLevel { names, more })
    }

    /// Reads a URL list from beginning to end.
    ///
    /// # Errors
    /// [`TaskError::Target`] when it cannot be read; [`TaskError::Invalid`] naming the first bad line.
    pub async fn check_url_list(
        &self,
        keys: &StoreCredentials,
        region: &str,
        bucket: &str,
        key: &str,
    ) -> TaskResult<u64> {
        in_time("check_url_list", self.read_url_list(keys, region, bucket, key))
            .await
            .map_err(TaskError::Check)?
    }

    async fn read_url_list(
        &self,
        keys: &StoreCredentials,
        region: &str,
        bucket: &str,
        key: &str,
    ) -> TaskResult<u64> {
        let place = Location { region: region.into(), bucket: bucket.into(), ..Location::default() };
        if self.control.catalogue.find(&place, Side::Target).is_none() {
            return Err(TaskError::TargetRegion(region.to_owned()));
        }
        let files =
            self.control.catalogue.open(&place, keys, Side::Target, false).await.map_err(TaskError::Check)?;
        let read = key_list::lines(&files.store, &Key::from(key), ListForm::Urls, |_| Ok(())).await;
        read.map_err(|f| match f.kind.policy() {
            Policy::Retry { .. } => TaskError::Check(f.at(Side::Target)),
            _ => TaskError::Invalid("list_file_key".into(), f.to_string()),
        })
    }

    /// Compares what a bucket and the domain in front of it say of some keys; without keys, of its first five.
    ///
    /// # Errors
    /// [`TaskError::Check`] when the bucket cannot be asked, [`TaskError::CdnDomain`] when the domain cannot.
    pub async fn cdn_info(
        &self,
        spec: &TaskSpec,
        secrets: &TaskSecrets,
        keys: &[String],
    ) -> TaskResult<CdnInfo> {
        in_time("cdn_info", self.compare_cdn(spec, secrets, keys)).await.map_err(TaskError::Check)?
    }

    async fn compare_cdn(
        &self,
        spec: &TaskSpec,
        secrets: &TaskSecrets,
        keys: &[String],
    ) -> TaskResult<CdnInfo> {
        let Some(cdn) = &spec.cdn else { return Err(TaskError::Missing("source_cdn".into())) };
        self.control.check_places(spec)?;
        let opened = self.control.catalogue.open(&spec.source, &secrets.source, Side::Source, false).await;
        let bucket = opened.map_err(TaskError::Check)?.store;
        let keys: Vec<Key> = if keys.is_empty() {
            let request =
                ListRequest { prefix: String::new(), from: Position::Start, max: 5, delimiter: None };
            let page = bucket.list(&request).await.map_err(|f| TaskError::Check(f.at(Side::Source)))?;
            page.entries.into_iter().map(|e| e.key).collect()
        } else {
            keys.iter().map(|k| Key::from(k.as_str())).collect()
        };
        let wrong = |f: Error| TaskError::CdnDomain(format!("{}: {}", cdn.domain, f.message));
        let front = self.control.catalogue.fronted(bucket.clone(), cdn, secrets).map_err(wrong)?;
        front.reach().await.map_err(wrong)?;
        let mut info = CdnInfo { same_vendor: false, available: false, keys: Vec::new() };
        let mut refused = false;
        for key in keys {
            let there = bucket.head(&key, None).await;
            match front.request(&key).await {
                Ok(meta) => {
                    info.available = true;
                    info.same_vendor |= vendor_of(&meta).is_some_and(|v| v == spec.source.cloud_type);
                    let equal = there.as_ref().is_ok_and(|t| t.etag.proves(&meta.etag) == Some(true));
                    info.keys.push((key.to_text().into_owned(), equal, there.is_ok()));
                }
                Err(f) => {
                    refused |= f.kind == Kind::Forbidden;
                    info.keys.push((key.to_text().into_owned(), false, false));
                }
            }
        }
        info.available &= !refused;
        Ok(info)
    }
}

/// Result of a check of a CDN domain.
#[derive(Debug)]
pub struct CdnInfo {
    /// Its headers are those of the source's vendor.
    pub same_vendor: bool,
    /// At least one key came, and none was refused.
    pub available: bool,
    /// Key, equal ETags, there on both sides.
    pub keys: Vec<(String, bool, bool)>,
}

/// Whose server a domain leads to, by the request id it answers with.
fn vendor_of(meta: &storage::Meta) -> Option<&'static str> {
    let ids = [
        ("x-oss-request-id", "Aliyun"),
        ("x-cos-request-id", "Tencent"),
        ("x-obs-request-id", "HuaweiCloud"),
        ("x-amz-request-id", "AWS"),
    ];
    ids.iter().find(|(name, _)| meta.header(name).is_some()).map(|(_, vendor)| *vendor)
}
