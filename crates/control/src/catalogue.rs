//! What `region` and `cloud_type` of a request mean (auth.md, appendix B): a store of the configuration, or an
//! endpoint written inline where the operator allows it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use config::{Config, Notify, Store};
use model::failure::{Failure, Kind, Result, Side};
use model::key::{Key, Order};
use model::spec::Place;
use pace::clock::SharedClock;
use replica::Node;
use runtime::migrations::{Hook, Instance, OpenedBackup};
use seal::{Keyring, Secret};
use storage::fs::Fs;
use storage::s3::Addressing;
use storage::s3::vendor::{VENDORS, Vendor};

use crate::addresses::lists;
use crate::secrets::Keys;

/// Where a place really is.
#[derive(Clone, Debug)]
pub enum Location {
    /// An S3 endpoint.
    S3 {
        /// The endpoint.
        endpoint: String,
        /// Region to sign for.
        signing_region: String,
        /// How buckets are named.
        addressing: Addressing,
        /// Listing order, when the operator fixed it.
        order: Option<Order>,
        /// The address must be checked against the list of inline endpoints.
        inline: bool,
        /// Whose dialect is spoken.
        vendor: &'static Vendor,
    },
    /// Azure Blob Storage; none: at the account's usual host, or where its connection string says.
    Azure(Option<String>),
    /// Google Cloud Storage; for HMAC keys the S3 dialect is spoken there.
    Google {
        /// The endpoint.
        endpoint: String,
        /// The address must be checked against the list of inline endpoints.
        inline: bool,
    },
    /// A directory whose subdirectories are buckets.
    Directory(PathBuf),
}

/// The stores that may be named.
pub struct Catalogue {
    inner: RwLock<Arc<Inner>>,
    registry: RwLock<Arc<Registry>>,
    pub(crate) data_dir: PathBuf,
    pub(crate) clock: SharedClock,
}

/// A bucket of backups.
#[derive(Clone, Debug)]
pub(crate) struct BackupBucket {
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) keys: Keys,
}

/// What the Redis side of the configuration says, with its secrets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    pub(crate) instances: Vec<Instance>,
    pub(crate) buckets: Vec<BackupBucket>,
    pub(crate) hook: Option<Hook>,
}

pub(crate) struct Inner {
    pub(crate) stores: Vec<Store>,
    pub(crate) inline: Vec<String>,
    pub(crate) notify: Vec<Notify>,
}

impl Catalogue {
    /// The stores of a configuration.
    pub fn new(config: &Config, clock: SharedClock) -> Self {
        let inner = RwLock::new(Arc::new(Inner { stores: vec![], inline: vec![], notify: vec![] }));
        let catalogue =
            Self { inner, registry: RwLock::default(), data_dir: config.data_dir.clone().into(), clock };
        catalogue.reload(config);
        catalogue
    }

    /// Takes over a changed configuration; what is open stays open.
    pub fn reload(&self, config: &Config) {
        let inner = Inner {
            stores: config.store.clone(),
            inline: config.limits.inline_endpoints.clone(),
            notify: config.notify.clone(),
        };
        *self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(inner);
    }

    /// Takes over the Redis instances and buckets of backups of a configuration, with their secrets.
    ///
    /// # Errors
    /// When a secret cannot be read, or an address is none.
    pub fn register(&self, config: &Config, env: &BTreeMap<String, String>, keys: &Keyring) -> Result<()> {
        let mut registry = Registry::default();
        for r in &config.redis {
            let what = format!("[[redis]] `{}`", r.name);
            let password = match &r.password {
                Some(secret) => config::reveal(&what, secret, env, keys)?.expose().to_owned(),
                None => String::new(),
            };
            let addrs = replica::node::addresses(&r.addrs)
                .map_err(|f| Failure { message: format!("{what}: {}", f.message), ..f })?;
            let node = Node { addrs, user: r.user.clone(), password, tls: r.tls, db: None };
            registry.instances.push(Instance { id: r.id.clone(), name: r.name.clone(), node });
        }
        for b in &config.bucket {
            let what = format!("[[bucket]] `{}`", b.name);
            let from = |names: [&str; 2]| names.iter().find_map(|n| env.get(*n)).cloned().unwrap_or_default();
            let keys = match (&b.ak, &b.sk) {
                (Some(ak), Some(sk)) => {
                    Keys { ak: ak.clone(), sk: config::reveal(&what, sk, env, keys)?, ..Keys::default() }
                }
                _ => Keys {
                    ak: from(["WHIMBREL_SOURCE_ACCESS_KEY", "AWS_ACCESS_KEY_ID"]),
                    sk: Secret::new(from(["WHIMBREL_SOURCE_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"])),
                    ..Keys::default()
                },
            };
            registry.buckets.push(BackupBucket { name: b.name.clone(), location: b.location.clone(), keys });
        }
        registry.hook = (!config.cutover.hook.is_empty()).then(|| Hook(config.cutover.hook.clone()));
        *self.registry.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(registry);
        Ok(())
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.registry.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// A file of a bucket of backups.
    ///
    /// # Errors
    /// [`model::failure::Kind::NoBucket`] for a bucket that is not configured; what its store answers.
    pub(crate) async fn open_backup(&self, bucket: &str, file: &str) -> Result<OpenedBackup> {
        let registry = self.registry();
        let unknown = || {
            Failure::new(Kind::NoBucket, "import", format!("no [[bucket]] is named `{bucket}`"))
                .at(Side::Source)
        };
        let found = registry.buckets.iter().find(|b| b.name == bucket).ok_or_else(unknown)?;
        let directory = found.location.strip_prefix("fs://").unwrap_or(&found.location);
        if directory.starts_with('/') {
            let store = Fs::open(Path::new(directory), false).map_err(|f| f.at(Side::Source))?;
            return Ok(OpenedBackup { store: Arc::new(store), key: Key::from(file) });
        }
        let (region, rest) = found.location.split_once(':').ok_or_else(unknown)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let place = Place { region: region.to_owned(), bucket: bucket.to_owned(), ..Place::default() };
        let opened = self.open(&place, &found.keys, Side::Source, false).await?;
        let prefix = prefix.trim_end_matches('/');
        let key = if prefix.is_empty() { file.to_owned() } else { format!("{prefix}/{file}") };
        Ok(OpenedBackup { store: opened.store, key: Key::from(key.as_str()) })
    }

    pub(crate) fn inner(&self) -> Arc<Inner> {
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// All that can be a source, as (vendor, region, description): the stores of the configuration first, then what
    /// vendors serve.
    pub fn source_regions(&self) -> Vec<(String, String, String)> {
        let mut out = Vec::new();
        for s in self.inner().stores.iter().filter(|s| s.uses.iter().any(|u| u == "source")) {
            let vendors = if s.cloud_type.is_empty() { vec!["AWS".to_owned()] } else { s.cloud_type.clone() };
            let at = if s.path.is_empty() { &s.endpoint } else { &s.path };
            out.extend(vendors.into_iter().map(|v| (v, s.region.clone(), at.clone())));
        }
        for vendor in &VENDORS {
            for region in vendor.regions {
                let at = vendor.serves(region).map(|s| s.0).unwrap_or_default();
                out.push((vendor.name.to_owned(), (*region).to_owned(), at));
            }
        }
        out
    }

    /// Finds what a place means on one side; none when nothing is served under its region.
    pub fn find(&self, place: &Place, side: Side) -> Option<Location> {
        let inner = self.inner();
        let used = |s: &&Store| {
            let word = if side == Side::Source { "source" } else { "destination" };
            s.uses.iter().any(|u| u == word)
        };
        let of_vendor = |s: &&Store| {
            side != Side::Source
                || s.cloud_type.is_empty()
                || place.cloud_type.is_empty()
                || s.cloud_type.iter().any(|c| c.eq_ignore_ascii_case(&place.cloud_type))
        };
        let named = |s: &&Store| if place.region.is_empty() { s.default } else { s.region == place.region };
        if let Some(s) = inner.stores.iter().filter(used).filter(of_vendor).find(named) {
            return Some(of_store(s, &place.cloud_type));
        }
        inline(place, &inner.inline).or_else(|| built_in(place, side))
    }

    /// Regions of the stores that a vendor's buckets may be in, the default first. A store that names no vendor may be
    /// any that speaks S3; a directory has buckets only for whom it names.
    pub fn regions_of(&self, cloud_type: &str, side: Side) -> Vec<String> {
        let inner = self.inner();
        let word = if side == Side::Source { "source" } else { "destination" };
        let mut stores: Vec<&Store> = inner
            .stores
            .iter()
            .filter(|s| s.uses.iter().any(|u| u == word))
            .filter(|s| {
                let named = s.cloud_type.iter().any(|c| c.eq_ignore_ascii_case(cloud_type));
                let speaks = !["Azure", "Google"].iter().any(|c| c.eq_ignore_ascii_case(cloud_type));
                side != Side::Source || named || (s.cloud_type.is_empty() && s.path.is_empty() && speaks)
            })
            .collect();
        stores.sort_by_key(|s| !s.default);
        if stores.is_empty() && side == Side::Source {
            // Any region of a vendor answers for the account.
            let built_in = Vendor::named(cloud_type).regions.first().map(|r| (*r).to_owned());
            return built_in.into_iter().chain((cloud_type == "Azure").then(String::new)).collect();
        }
        stores.into_iter().map(|s| s.region.clone()).collect()
    }
}

/// What a store of the configuration is, for a source of some vendor; for others its own vendor decides.
fn of_store(store: &Store, cloud_type: &str) -> Location {
    if !store.path.is_empty() {
        return Location::Directory(store.path.clone().into());
    }
    let own = match store.cloud_type.as_slice() {
        [one] => one.as_str(),
        _ => "",
    };
    let vendor = if cloud_type.is_empty() { own } else { cloud_type };
    if vendor.eq_ignore_ascii_case("Azure") {
        return Location::Azure(Some(store.endpoint.clone()));
    }
    if vendor.eq_ignore_ascii_case("Google") {
        return Location::Google { endpoint: store.endpoint.clone(), inline: false };
    }
    Location::S3 {
        endpoint: store.endpoint.clone(),
        signing_region: store.signing_region.clone(),
        addressing: if store.addressing == "virtual" { Addressing::Virtual } else { Addressing::Path },
        order: store.order,
        inline: false,
        vendor: Vendor::named(vendor),
    }
}

/// Where a vendor serves a region itself. A destination that names no store is the product's own, which is OBS.
fn built_in(place: &Place, side: Side) -> Option<Location> {
    let name =
        if place.cloud_type.is_empty() && side != Side::Source { "HuaweiCloud" } else { &place.cloud_type };
    if name.eq_ignore_ascii_case("Azure") {
        return Some(Location::Azure(None));
    }
    let vendor = Vendor::named(name);
    let (endpoint, signing_region) = vendor.serves(&place.region)?;
    if vendor.name == "Google" {
        return Some(Location::Google { endpoint, inline: false });
    }
    let addressing = vendor.addressing;
    Some(Location::S3 { endpoint, signing_region, addressing, order: None, inline: false, vendor })
}

/// `[signing-region@]http(s)://host[:port]`, when its host is on the list.
fn inline(place: &Place, allowed: &[String]) -> Option<Location> {
    let region = place.region.as_str();
    let (signing_region, endpoint) = match region.split_once('@') {
        Some((r, e)) if !r.contains("://") => (r, e),
        _ => ("us-east-1", region),
    };
    let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"))?;
    if rest.contains(['/', '?', '#', '@']) {
        return None;
    }
    let host = match rest.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => rest,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if !lists(allowed, host) {
        return None;
    }
    if place.cloud_type.eq_ignore_ascii_case("Azure") {
        return Some(Location::Azure(Some(endpoint.to_owned())));
    }
    if place.cloud_type.eq_ignore_ascii_case("Google") {
        return Some(Location::Google { endpoint: endpoint.to_owned(), inline: true });
    }
    Some(Location::S3 {
        endpoint: endpoint.to_owned(),
        signing_region: signing_region.to_owned(),
        addressing: Addressing::Path,
        order: None,
        inline: true,
        vendor: Vendor::named(&place.cloud_type),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(region: &str) -> Place {
        Place { region: region.into(), ..Place::default() }
    }

    #[test]
    fn inline_endpoints_need_to_be_listed() {
        let allowed = ["127.0.0.1".to_owned(), "10.1.0.0/16".to_owned(), "minio.lab".to_owned()];
        for (region, want) in [
            ("http://127.0.0.1:9000", true),
            ("eu-1@https://127.0.0.1", true),
            ("http://10.1.200.3:1", true),
            ("http://10.2.0.1:1", false),
            ("http://minio.lab:9000", true),
            ("http://127.0.0.1:9000/x", false),
            ("http://u@127.0.0.1", false),
            ("us-east-1", false),
        ] {
            assert_eq!(inline(&place(region), &allowed).is_some(), want, "{region}");
        }
        assert!(inline(&place("http://127.0.0.1"), &[]).is_none());
    }
}
