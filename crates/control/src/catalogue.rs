//! What `region` and `cloud_type` of a request mean (auth.md, appendix B): a store of the configuration, or an
//! endpoint written inline where the operator allows it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use config::{Config, Notify, Store};
use flow_control::clock::SharedClock;
use model::error::{Error, Kind, Result, Side};
use model::key::{Key, Order};
use model::migration::Own;
use model::spec::Location;
use redis_migration::Node;
use redis_migration::connection::node::TlsFiles;
use runtime::migrations::{Hook, Instance, OpenedBackup};
use seal::{Keyring, Secret};
use storage::egress::{Egress, host_of};
use storage::fs::Fs;
use storage::s3::Addressing;
use storage::s3::vendor::{VENDORS, Vendor};

use crate::secrets::StoreCredentials;

/// A failure to open a directory as a project reads it: the bucket's name stands where the operator's path stood.
pub(crate) fn without_path(failure: Error, path: &Path, bucket: &str) -> Error {
    tracing::info!(path = %path.display(), "a directory could not be opened: {failure}");
    let message = failure.message.replace(&path.display().to_string(), bucket);
    Error { message, ..failure }
}

/// A store of the configuration, as it is shown.
#[derive(Clone, Debug)]
pub struct StoreView {
    /// What clients write.
    pub region: String,
    /// Vendors that it stands for as a source; empty: any.
    pub vendors: Vec<String>,
    /// Its endpoint; empty: a directory.
    pub endpoint: String,
    /// The directory; empty: an endpoint.
    pub path: String,
    /// Tasks may read from it.
    pub is_source: bool,
    /// Tasks may write to it.
    pub is_target: bool,
    /// It is meant by calls without a region.
    pub is_default: bool,
}

/// Where a place really is.
#[derive(Clone, Debug)]
pub enum StoreLocation {
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
        /// Where the endpoint may lead.
        egress: Egress,
        /// Whose dialect is spoken.
        vendor: &'static Vendor,
    },
    /// Azure Blob Storage.
    Azure {
        /// The endpoint; none: the account's usual host, or where its connection string says.
        endpoint: Option<String>,
        /// Where the endpoint may lead.
        egress: Egress,
    },
    /// Google Cloud Storage; for HMAC keys the S3 dialect is spoken there.
    Google {
        /// The endpoint.
        endpoint: String,
        /// Where the endpoint may lead.
        egress: Egress,
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
    pub(crate) keys: StoreCredentials,
    /// Ids of the projects that may use it.
    pub(crate) projects: Vec<String>,
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
    pub(crate) redis: Vec<String>,
    pub(crate) notify: Vec<Notify>,
}

impl Catalogue {
    /// The stores of a configuration.
    pub fn new(config: &Config, clock: SharedClock) -> Self {
        let inner =
            RwLock::new(Arc::new(Inner { stores: vec![], inline: vec![], redis: vec![], notify: vec![] }));
        let catalogue =
            Self { inner, registry: RwLock::default(), data_dir: config.data_dir.clone().into(), clock };
        catalogue.reload(config);
        catalogue
    }

    /// Takes over a changed configuration; what is open stays open.
    pub fn reload(&self, config: &Config) {
        let mut stores = config.stores.clone();
        for store in &mut stores {
            store.projects = config.owners(&store.projects);
        }
        let inner = Inner {
            stores,
            inline: config.limits.allowed_endpoints.clone(),
            redis: [&config.limits.allowed_endpoints[..], &config.limits.allowed_redis_endpoints].concat(),
            notify: config.notify.clone(),
        };
        *self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(inner);
    }

    /// The catalogue as a project sees it: what the operator gave to others only is not there.
    #[must_use]
    pub fn for_project(&self, project: &str) -> Self {
        let (inner, registry) = (self.inner(), self.registry());
        let mine = |projects: &[String]| projects.iter().any(|p| p == project);
        let inner = Inner {
            stores: inner.stores.iter().filter(|s| mine(&s.projects)).cloned().collect(),
            inline: inner.inline.clone(),
            redis: inner.redis.clone(),
            notify: inner.notify.clone(),
        };
        let registry = Registry {
            instances: registry.instances.iter().filter(|i| mine(&i.projects)).cloned().collect(),
            buckets: registry.buckets.iter().filter(|b| mine(&b.projects)).cloned().collect(),
            hook: registry.hook.clone(),
        };
        Self {
            inner: RwLock::new(Arc::new(inner)),
            registry: RwLock::new(Arc::new(registry)),
            data_dir: self.data_dir.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Takes over the Redis instances and buckets of backups of a configuration, with their secrets.
    ///
    /// # Errors
    /// When a secret cannot be read, or an address is none.
    pub fn register(&self, config: &Config, env: &BTreeMap<String, String>, keys: &Keyring) -> Result<()> {
        let mut registry = Registry::default();
        for r in &config.redis_instances {
            let what = format!("[[redis]] `{}`", r.name);
            let password = match &r.password {
                Some(secret) => {
                    config::reveal(&format!("`password` of {what}"), secret, env, keys)?.expose().to_owned()
                }
                None => String::new(),
            };
            let addrs = redis_migration::connection::node::addresses(&r.addrs)
                .map_err(|f| Error { message: format!("{what}: {}", f.message), ..f })?;
            // What a cluster of the operator's announces is the operator's, but never a metadata service.
            let own = Egress::operators(&config.limits.allowed_redis_endpoints);
            let egress = addrs.iter().fold(own, |egress, (host, _)| egress.with_host(host));
            let user = r.user.clone();
            let tls_files = TlsFiles { ca: r.ca.clone(), cert: r.cert.clone(), key: r.key.clone() };
            let node = Node { addrs, user, password, tls: r.tls, tls_files, egress, ..Node::default() };
            let projects = config.owners(&r.projects);
            let own = Own {
                skip_commands: r.skip_commands.iter().map(|name| name.to_ascii_uppercase()).collect(),
                leave_out_commands: r.leave_out_commands,
                functions: r.functions,
            };
            let (id, name) = (r.id.clone(), r.name.clone());
            registry.instances.push(Instance { id, name, node, own, projects });
        }
        for b in &config.backup_sources {
            let what = format!("[[bucket]] `{}`", b.name);
            let from = |names: [&str; 2]| names.iter().find_map(|n| env.get(*n)).cloned().unwrap_or_default();
            let keys = match (&b.ak, &b.sk) {
                (Some(ak), Some(sk)) => StoreCredentials {
                    ak: ak.clone(),
                    sk: config::reveal(&format!("`sk` of {what}"), sk, env, keys)?,
                    ..StoreCredentials::default()
                },
                _ => StoreCredentials {
                    ak: from(["WHIMBREL_SOURCE_ACCESS_KEY", "AWS_ACCESS_KEY_ID"]),
                    sk: Secret::new(from(["WHIMBREL_SOURCE_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"])),
                    ..StoreCredentials::default()
                },
            };
            let projects = config.owners(&b.projects);
            let (name, location) = (b.name.clone(), b.location.clone());
            registry.buckets.push(BackupBucket { name, location, keys, projects });
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
    /// [`model::error::Kind::NoBucket`] for a bucket that is not configured; what its store answers.
    pub(crate) async fn open_backup(&self, bucket: &str, file: &str) -> Result<OpenedBackup> {
        let registry = self.registry();
        let unknown = || {
            Error::new(
                Kind::NoBucket,
                "import",
                format!("no [[bucket]] is configured with the name `{bucket}`"),
            )
            .at(Side::Source)
        };
        let found = registry.buckets.iter().find(|b| b.name == bucket).ok_or_else(unknown)?;
        let directory = found.location.strip_prefix("fs://").unwrap_or(&found.location);
        if directory.starts_with('/') {
            let path = Path::new(directory);
            let opened = Fs::open(path, false);
            let store = opened.map_err(|f| without_path(f, path, bucket).at(Side::Source))?;
            return Ok(OpenedBackup { store: Arc::new(store), key: Key::from(file) });
        }
        let (region, rest) = found.location.split_once(':').ok_or_else(unknown)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let place = Location { region: region.to_owned(), bucket: bucket.to_owned(), ..Location::default() };
        let opened = self.open(&place, &found.keys, Side::Source, false).await?;
        let prefix = prefix.trim_end_matches('/');
        let key = if prefix.is_empty() { file.to_owned() } else { format!("{prefix}/{file}") };
        Ok(OpenedBackup { store: opened.store, key: Key::from(key.as_str()) })
    }

    pub(crate) fn inner(&self) -> Arc<Inner> {
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The stores of the configuration, in its order.
    pub fn stores(&self) -> Vec<StoreView> {
        let uses = |s: &Store, word: &str| s.uses.iter().any(|u| u == word);
        let shown = |s: &Store| StoreView {
            region: s.region.clone(),
            vendors: s.cloud_type.clone(),
            endpoint: s.endpoint.clone(),
            path: s.path.clone(),
            is_source: uses(s, "source"),
            is_target: uses(s, "destination"),
            is_default: s.default,
        };
        self.inner().stores.iter().map(shown).collect()
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
    pub fn find(&self, place: &Location, side: Side) -> Option<StoreLocation> {
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
            return Some(of_store(s, &place.cloud_type, &inner.inline));
        }
        inline(place, &inner.inline).or_else(|| built_in(place, side, &inner.inline))
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
fn of_store(store: &Store, cloud_type: &str, allowed: &[String]) -> StoreLocation {
    if !store.path.is_empty() {
        return StoreLocation::Directory(store.path.clone().into());
    }
    let egress = Egress::operators(allowed).with_url(&store.endpoint);
    let own = match store.cloud_type.as_slice() {
        [one] => one.as_str(),
        _ => "",
    };
    let vendor = if cloud_type.is_empty() { own } else { cloud_type };
    if vendor.eq_ignore_ascii_case("Azure") {
        return StoreLocation::Azure { endpoint: Some(store.endpoint.clone()), egress };
    }
    if vendor.eq_ignore_ascii_case("Google") {
        return StoreLocation::Google { endpoint: store.endpoint.clone(), egress };
    }
    StoreLocation::S3 {
        endpoint: store.endpoint.clone(),
        signing_region: store.signing_region.clone(),
        addressing: if store.addressing == "virtual" { Addressing::Virtual } else { Addressing::Path },
        order: store.order,
        egress,
        vendor: Vendor::named(vendor),
    }
}

/// Where a vendor serves a region itself. A destination that names no store is the product's own, which is OBS.
fn built_in(place: &Location, side: Side, allowed: &[String]) -> Option<StoreLocation> {
    let egress = Egress::public(allowed);
    let name =
        if place.cloud_type.is_empty() && side != Side::Source { "HuaweiCloud" } else { &place.cloud_type };
    if name.eq_ignore_ascii_case("Azure") {
        return Some(StoreLocation::Azure { endpoint: None, egress });
    }
    let vendor = Vendor::named(name);
    let (endpoint, signing_region) = vendor.serves(&place.region)?;
    if vendor.name == "Google" {
        return Some(StoreLocation::Google { endpoint, egress });
    }
    let addressing = vendor.addressing;
    Some(StoreLocation::S3 { endpoint, signing_region, addressing, order: None, egress, vendor })
}

/// `[signing-region@]http(s)://host[:port]`, when its host is on the list.
fn inline(place: &Location, allowed: &[String]) -> Option<StoreLocation> {
    let region = place.region.as_str();
    let (signing_region, endpoint) = match region.split_once('@') {
        Some((r, e)) if !r.contains("://") => (r, e),
        _ => ("us-east-1", region),
    };
    let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"))?;
    if rest.contains(['/', '?', '#', '@']) {
        return None;
    }
    let egress = Egress::listed(allowed);
    if !egress.may_lead_to(&host_of(endpoint)?) {
        return None;
    }
    if place.cloud_type.eq_ignore_ascii_case("Azure") {
        return Some(StoreLocation::Azure { endpoint: Some(endpoint.to_owned()), egress });
    }
    if place.cloud_type.eq_ignore_ascii_case("Google") {
        return Some(StoreLocation::Google { endpoint: endpoint.to_owned(), egress });
    }
    Some(StoreLocation::S3 {
        endpoint: endpoint.to_owned(),
        signing_region: signing_region.to_owned(),
        addressing: Addressing::Path,
        order: None,
        egress,
        vendor: Vendor::named(&place.cloud_type),
    })
}

#[cfg(test)]
mod tests;
