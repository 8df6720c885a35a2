//! Looking at buckets for somebody who is about to create a task (oms.md §2.6).

use model::failure::{Failure, Kind, Side};
use model::key::Key;
use model::spec::Place;
use storage::ListRequest;

use crate::Control;
use crate::refusal::{Answer, Refusal};
use crate::secrets::Keys;

/// Whose buckets, by vendor and credentials.
#[derive(Debug)]
pub struct Account {
    /// Vendor; `HEC` means this service's own destinations.
    pub cloud_type: String,
    /// Tencent application id.
    pub app_id: String,
    /// Credentials.
    pub keys: Keys,
}

/// One page of one level of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Full keys with their size; folders have none and end in `/`.
    pub names: Vec<(String, Option<u64>)>,
    /// More follow.
    pub more: bool,
}

impl Account {
    fn side(&self) -> Side {
        if self.cloud_type == "HEC" { Side::Target } else { Side::Source }
    }

    fn place(&self, region: &str, bucket: &str) -> Place {
        let cloud_type = if self.side() == Side::Target { String::new() } else { self.cloud_type.clone() };
        Place { cloud_type, region: region.into(), bucket: bucket.into(), app_id: self.app_id.clone() }
    }
}

impl Control {
    /// All buckets that the credentials see, at every store of the vendor.
    ///
    /// # Errors
    /// [`Refusal::Buckets`] when no store answers with a list.
    pub async fn buckets(&self, account: &Account) -> Answer<Vec<String>> {
        let mut all = Vec::new();
        let mut refused: Option<Failure> = None;
        let mut answered = false;
        for region in self.catalogue.regions_of(&account.cloud_type, account.side()) {
            let place = account.place(&region, "");
            match self.catalogue.buckets(&place, &account.keys, account.side()).await {
                Ok(buckets) => {
                    answered = true;
                    all.extend(buckets);
                }
                Err(failure) => refused = Some(failure),
            }
        }
        if !answered {
            let none = || Failure::new(Kind::NotFound, "buckets", "no store of this vendor is configured");
            return Err(Refusal::Buckets(refused.unwrap_or_else(none)));
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// The region that serves a bucket.
    ///
    /// # Errors
    /// [`Refusal::BucketRegion`] when no store of the vendor has it.
    pub async fn bucket_region(&self, account: &Account, bucket: &str) -> Answer<String> {
        let mut refused: Option<Failure> = None;
        for region in self.catalogue.regions_of(&account.cloud_type, account.side()) {
            let place = account.place(&region, bucket);
            match self.catalogue.open(&place, &account.keys, account.side(), false).await {
                Ok(_) => return Ok(region),
                // Wrong keys tell more than a bucket that is not there.
                Err(failure) if failure.kind == Kind::NoBucket && refused.is_some() => {}
                Err(failure) => refused = Some(failure),
            }
        }
        let none = || Failure::new(Kind::NotFound, "buckets", "no store of this vendor is configured");
        Err(Refusal::BucketRegion(refused.unwrap_or_else(none)))
    }

    async fn page(
        &self,
        account: &Account,
        region: &str,
        bucket: &str,
        request: &ListRequest,
    ) -> Answer<storage::Page> {
        let side = account.side();
        let place = account.place(region, bucket);
        if self.catalogue.find(&place, side).is_none() {
            return Err(Refusal::SourceRegion(region.to_owned()));
        }
        let listed = async {
            let opened = self.catalogue.open(&place, &account.keys, side, false).await?;
            opened.store.list(request).await
        };
        listed.await.map_err(|f| Refusal::Buckets(f.at(side)))
    }

    /// True when at least one key begins with `prefix`.
    ///
    /// # Errors
    /// [`Refusal::Buckets`] when the bucket cannot be listed.
    pub async fn prefix_exists(
        &self,
        account: &Account,
        region: &str,
        bucket: &str,
        prefix: &str,
    ) -> Answer<bool> {
        let request = ListRequest { prefix: prefix.into(), after: Key::default(), max: 1, delimiter: None };
        Ok(!self.page(account, region, bucket, &request).await?.entries.is_empty())
    }

    /// One page of the level below a folder.
    ///
    /// # Errors
    /// [`Refusal::Buckets`] when the bucket cannot be listed.
    pub async fn level(
        &self,
        account: &Account,
        region: &str,
        bucket: &str,
        folder: &str,
        after: &str,
        max: u32,
    ) -> Answer<Level> {
        // What stands in a folder that was shown already does not show it again.
        let behind = if after.ends_with('/') { format!("{after}{}", char::MAX) } else { after.to_owned() };
        let request = ListRequest {
            prefix: folder.into(),
            after: Key::from(behind),
            // The folder's own marker takes a place and is not shown.
            max: max + 1,
            delimiter: Some('/'),
        };
        let page = self.page(account, region, bucket, &request).await?;
        let folders = page.folders.into_iter().map(|f| (f, None));
        let files = page.entries.into_iter().map(|e| (e.key.to_string(), Some(e.size)));
        let mut names: Vec<(String, Option<u64>)> =
            folders.chain(files).filter(|(n, _)| n != folder).collect();
        names.sort();
        let more = page.more || names.len() > max as usize;
        names.truncate(max as usize);
        Ok(Level { names, more })
    }
}
