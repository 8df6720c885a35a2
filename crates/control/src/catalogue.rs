//! What `region` and `cloud_type` of a request mean (auth.md, appendix B): a store of the configuration, or an
//! endpoint written inline where the operator allows it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use config::{Config, Notify, Store};
use model::failure::{Failure, Kind, Result, Side};
use model::key::{Key, Order};
use model::selection::{ListFile, Selection};
use model::spec::{Place, SourceCdn, TaskSpec};
use pace::clock::SharedClock;
use runtime::{Opened, Places, Webhook};
use storage::cdn::{Auth, Fronted, Signer};
use storage::fs::Fs;
use storage::http::{AddressGuard, Client};
use storage::listed::{self, Form, Listed, Urls};
use storage::s3::{Addressing, S3, S3Config};
use storage::{ObjectStore, SharedStore};
use store::TaskRow;

use crate::secrets::{Keys, TaskSecrets};

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
    },
    /// A directory whose subdirectories are buckets.
    Directory(PathBuf),
}

/// The stores that may be named.
pub struct Catalogue {
    inner: RwLock<Arc<Inner>>,
    data_dir: PathBuf,
    clock: SharedClock,
}

struct Inner {
    stores: Vec<Store>,
    inline: Vec<String>,
    notify: Vec<Notify>,
}

impl Catalogue {
    /// The stores of a configuration.
    pub fn new(config: &Config, clock: SharedClock) -> Self {
        let inner = RwLock::new(Arc::new(Inner { stores: vec![], inline: vec![], notify: vec![] }));
        let catalogue = Self { inner, data_dir: config.data_dir.clone().into(), clock };
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

    fn inner(&self) -> Arc<Inner> {
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// All stores that can be a source, as (vendor, region, description).
    pub fn source_regions(&self) -> Vec<(String, String, String)> {
        let mut out = Vec::new();
        for s in self.inner().stores.iter().filter(|s| s.uses.iter().any(|u| u == "source")) {
            let vendors = if s.cloud_type.is_empty() { vec!["AWS".to_owned()] } else { s.cloud_type.clone() };
            let at = if s.path.is_empty() { &s.endpoint } else { &s.path };
            out.extend(vendors.into_iter().map(|v| (v, s.region.clone(), at.clone())));
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
            if !s.path.is_empty() {
                return Some(Location::Directory(s.path.clone().into()));
            }
            let addressing = if s.addressing == "virtual" { Addressing::Virtual } else { Addressing::Path };
            return Some(Location::S3 {
                endpoint: s.endpoint.clone(),
                signing_region: s.signing_region.clone(),
                addressing,
                order: s.order,
                inline: false,
            });
        }
        inline(&place.region, &inner.inline)
    }

    /// Regions of the stores that a vendor's buckets may be in, the default first.
    pub fn regions_of(&self, cloud_type: &str, side: Side) -> Vec<String> {
        let inner = self.inner();
        let word = if side == Side::Source { "source" } else { "destination" };
        let mut stores: Vec<&Store> = inner
            .stores
            .iter()
            .filter(|s| s.uses.iter().any(|u| u == word))
            .filter(|s| {
                let named = s.cloud_type.iter().any(|c| c.eq_ignore_ascii_case(cloud_type));
                side != Side::Source || s.cloud_type.is_empty() || named
            })
            .collect();
        stores.sort_by_key(|s| !s.default);
        stores.into_iter().map(|s| s.region.clone()).collect()
    }

    /// The buckets that credentials see at one store.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an unknown region; else what the store answers.
    pub async fn buckets(&self, place: &Place, keys: &Keys, side: Side) -> Result<Vec<String>> {
        let location = self.find(place, side).ok_or_else(|| self.unknown(place, side))?;
        match location {
            Location::Directory(root) => {
                let failed = |e: std::io::Error| {
                    Failure::new(Kind::Forbidden, "buckets", format!("directory `{}`: {e}", root.display()))
                        .at(side)
                };
                let mut names = Vec::new();
                for entry in std::fs::read_dir(&root).map_err(failed)? {
                    let entry = entry.map_err(failed)?;
                    let name = entry.file_name().to_string_lossy().into_owned();
                    if entry.file_type().is_ok_and(|t| t.is_dir()) && !name.starts_with('.') {
                        names.push(name);
                    }
                }
                Ok(names)
            }
            location => {
                let config = self.s3(location, place, keys, false).map_err(|f| f.at(side))?;
                S3::new(config, self.clock.clone())?.buckets().await.map_err(|f| f.at(side))
            }
        }
    }

    fn unknown(&self, place: &Place, side: Side) -> Failure {
        Failure::new(Kind::Invalid, "open", format!("no store is named `{}`", place.region)).at(side)
    }

    /// How an S3 location is spoken to.
    fn s3(&self, location: Location, place: &Place, keys: &Keys, requester_pays: bool) -> Result<S3Config> {
        let Location::S3 { endpoint, signing_region, addressing, order, inline } = location else {
            return Err(Failure::new(Kind::Unsupported, "open", "a directory is no S3 endpoint"));
        };
        let mut bucket = place.bucket.clone();
        let suffix = format!("-{}", place.app_id);
        let tencent = place.cloud_type.eq_ignore_ascii_case("Tencent") && !place.app_id.is_empty();
        if tencent && !bucket.is_empty() && !bucket.ends_with(&suffix) {
            bucket.push_str(&suffix);
        }
        Ok(S3Config {
            client: Client::new(&endpoint, inline.then(|| self.guard()))?,
            bucket,
            addressing,
            region: signing_region,
            credentials: keys.credentials(),
            order,
            requester_pays,
        })
    }

    fn guard(&self) -> AddressGuard {
        let allowed = self.inner().inline.clone();
        Arc::new(move |ip| {
            // A host that the operator named stands for whatever it resolves to.
            allowed.iter().any(|a| match network(a) {
                Some((net, bits)) => contains(net, bits, ip),
                None => true,
            })
        })
    }

    /// Opens a bucket.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an unknown region; else what the probe meets.
    pub async fn open(&self, place: &Place, keys: &Keys, side: Side, requester_pays: bool) -> Result<Opened> {
        let location = self.find(place, side).ok_or_else(|| self.unknown(place, side))?;
        match location {
            Location::Directory(root) => {
                if place.bucket.is_empty() || place.bucket.contains('/') || place.bucket.starts_with('.') {
                    let m = format!("`{}` cannot be a bucket of a directory store", place.bucket);
                    return Err(Failure::new(Kind::NoBucket, "open", m).at(side));
                }
                let path = root.join(&place.bucket);
                // A link could lead anywhere on this machine.
                if path.symlink_metadata().is_ok_and(|m| m.is_symlink()) {
                    let m = format!(
                        "bucket `{}` is a link, and no link is followed out of the store",
                        place.bucket
                    );
                    return Err(Failure::new(Kind::Forbidden, "open", m).at(side));
                }
                let store: SharedStore = Arc::new(Fs::open(&path, false).map_err(|f| f.at(side))?);
                let probe = store.probe().await.map_err(|f| f.at(side))?;
                Ok(Opened { store, probe, limit_key: root.display().to_string() })
            }
            location => {
                let config = self.s3(location, place, keys, requester_pays).map_err(|f| f.at(side))?;
                let limit_key = config.client.authority().to_owned();
                let (s3, probe) = S3::open(config, self.clock.clone()).await.map_err(|f| f.at(side))?;
                Ok(Opened { store: Arc::new(s3), probe, limit_key })
            }
        }
    }
}

impl Catalogue {
    /// The source of a task: a bucket, or what a list file names.
    async fn open_source(&self, task: &TaskRow, secrets: &TaskSecrets) -> Result<Opened> {
        let (spec, _side) = (&task.spec, Side::Source);
        if let Selection::Keys(keys) = &spec.selection {
            let bucket = self.open_bucket(spec, secrets).await?;
            let list = listed::sorted_keys(keys, &listed::path_in(&self.data_dir, task.id))?;
            return Ok(Opened { store: Arc::new(Listed::new(bucket.store, list)), ..bucket });
        }
        let Some(file) = spec.selection.list_file() else {
            return self.open_bucket(spec, secrets).await;
        };
        let place = Place { bucket: file.bucket.clone(), ..spec.target.clone() };
        let files = self.open(&place, &secrets.target, Side::Target, false).await?.store;
        let (key, path) = (Key::from(file.key.as_str()), listed::path_in(&self.data_dir, task.id));
        if let Selection::UrlList(_) = spec.selection {
            let list = listed::sorted(&files, &key, Form::Urls, &path).await.map_err(|f| f.at(Side::Here))?;
            let spool = self.data_dir.join("spool");
            let store: SharedStore = Arc::new(Urls::new(list, self.public_guard(), spool));
            let probe = store.probe().await?;
            return Ok(Opened { store, probe, limit_key: "urls".into() });
        }
        let bucket = self.open_bucket(spec, secrets).await?;
        let list = listed::sorted(&files, &key, Form::Keys, &path).await.map_err(|f| f.at(Side::Here))?;
        Ok(Opened { store: Arc::new(Listed::new(bucket.store, list)), ..bucket })
    }

    /// The source's bucket, and the domain in front of it.
    pub(crate) async fn open_bucket(&self, spec: &TaskSpec, secrets: &TaskSecrets) -> Result<Opened> {
        let opened = self.open(&spec.source, &secrets.source, Side::Source, spec.requester_pays).await?;
        match &spec.cdn {
            Some(cdn) => {
                let store =
                    Arc::new(self.fronted(opened.store, cdn, secrets).map_err(|f| f.at(Side::Source))?);
                Ok(Opened { store, limit_key: cdn.domain.clone(), ..opened })
            }
            None => Ok(opened),
        }
    }

    /// A bucket as its domain shows it.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the domain is none.
    pub(crate) fn fronted(
        &self,
        bucket: SharedStore,
        cdn: &SourceCdn,
        secrets: &TaskSecrets,
    ) -> Result<Fronted> {
        let client = Client::new(&format!("{}://{}", cdn.protocol, cdn.domain), Some(self.public_guard()))?;
        let signer = Signer {
            auth: Auth::named(&cdn.authentication_type).unwrap_or(Auth::None),
            key: secrets.cdn.expose().to_owned(),
            access_key: secrets.source.ak.clone(),
            secret_key: secrets.source.sk.expose().to_owned(),
        };
        Ok(Fronted::new(bucket, client, signer, self.clock.clone()))
    }

    /// Anybody's URLs lead to public addresses only, unless the operator lists more.
    fn public_guard(&self) -> AddressGuard {
        let allowed = self.inner().inline.clone();
        Arc::new(move |ip| {
            let listed = allowed.iter().filter_map(|a| network(a)).any(|(net, bits)| contains(net, bits, ip));
            listed || is_public(ip)
        })
    }
}

/// An address of the open internet.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            !(ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b)))
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            !(ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || first & 0xfe00 == 0xfc00
                || first & 0xffc0 == 0xfe80)
        }
    }
}

#[async_trait]
impl Places for Catalogue {
    async fn open(&self, task: &TaskRow, secrets: &str, side: Side) -> Result<Opened> {
        let secrets = TaskSecrets::from_json(secrets);
        let spec = &task.spec;
        match side {
            Side::Source => self.open_source(task, &secrets).await,
            _ => Catalogue::open(self, &spec.target, &secrets.target, side, false).await,
        }
    }

    fn webhook(&self, topic: &str) -> Option<Webhook> {
        let inner = self.inner();
        let found = inner.notify.iter().find(|n| n.topic == topic)?;
        Some(Webhook { url: found.webhook.clone(), secret: found.secret.clone() })
    }

    async fn lists(&self, spec: &TaskSpec, secrets: &str, folder: &ListFile) -> Result<Vec<String>> {
        let secrets = TaskSecrets::from_json(secrets);
        let place = Place { bucket: folder.bucket.clone(), ..spec.target.clone() };
        let files = self.open(&place, &secrets.target, Side::Target, false).await?.store;
        listed::in_folder(&files, &folder.key).await.map_err(|f| f.at(Side::Target))
    }
}

/// `[signing-region@]http(s)://host[:port]`, when its host is on the list.
fn inline(region: &str, allowed: &[String]) -> Option<Location> {
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
    let listed = allowed.iter().any(|a| {
        a.eq_ignore_ascii_case(host)
            || match (network(a), host.parse::<IpAddr>()) {
                (Some((net, bits)), Ok(ip)) => contains(net, bits, ip),
                // A name may resolve into the network: the guard decides.
                (Some(_), Err(_)) => true,
                _ => false,
            }
    });
    listed.then(|| Location::S3 {
        endpoint: endpoint.to_owned(),
        signing_region: signing_region.to_owned(),
        addressing: Addressing::Path,
        order: None,
        inline: true,
    })
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    match text.split_once('/') {
        Some((ip, bits)) => Some((ip.parse().ok()?, bits.parse().ok()?)),
        None => text.parse().ok().map(|ip: IpAddr| (ip, if ip.is_ipv4() { 32 } else { 128 })),
    }
}

fn contains(net: IpAddr, bits: u8, ip: IpAddr) -> bool {
    let prefix =
        |value: u128, width: u32| value.checked_shr(width.saturating_sub(u32::from(bits))).unwrap_or(0);
    match (net, ip.to_canonical()) {
        (IpAddr::V4(n), IpAddr::V4(i)) => {
            prefix(u128::from(u32::from(n)), 32) == prefix(u128::from(u32::from(i)), 32)
        }
        (IpAddr::V6(n), IpAddr::V6(i)) => prefix(u128::from(n), 128) == prefix(u128::from(i), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for (ip, public) in [
            ("8.8.8.8", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::ffff:10.0.0.1", false),
            ("2606:4700::1", true),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
        }
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
            assert_eq!(inline(region, &allowed).is_some(), want, "{region}");
        }
        assert!(inline("http://127.0.0.1", &[]).is_none());
    }
}
