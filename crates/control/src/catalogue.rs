//! What `region` and `cloud_type` of a request mean (auth.md, appendix B): a store of the configuration, or an
//! endpoint written inline where the operator allows it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use config::{Config, Store};
use model::failure::{Failure, Kind, Result, Side};
use model::key::Order;
use model::spec::Place;
use pace::clock::SharedClock;
use runtime::{Opened, Places};
use storage::SharedStore;
use storage::fs::Fs;
use storage::http::{AddressGuard, Client};
use storage::s3::{Addressing, S3, S3Config};
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
    clock: SharedClock,
}

struct Inner {
    stores: Vec<Store>,
    inline: Vec<String>,
}

impl Catalogue {
    /// The stores of a configuration.
    pub fn new(config: &Config, clock: SharedClock) -> Self {
        let catalogue =
            Self { inner: RwLock::new(Arc::new(Inner { stores: vec![], inline: vec![] })), clock };
        catalogue.reload(config);
        catalogue
    }

    /// Takes over a changed configuration; what is open stays open.
    pub fn reload(&self, config: &Config) {
        let inner = Inner { stores: config.store.clone(), inline: config.limits.inline_endpoints.clone() };
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
        let location = self.find(place, side).ok_or_else(|| {
            Failure::new(Kind::Invalid, "open", format!("no store is named `{}`", place.region)).at(side)
        })?;
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
            Location::S3 { endpoint, signing_region, addressing, order, inline } => {
                let guard = inline.then(|| self.guard());
                let mut bucket = place.bucket.clone();
                let suffix = format!("-{}", place.app_id);
                if place.cloud_type.eq_ignore_ascii_case("Tencent")
                    && !place.app_id.is_empty()
                    && !bucket.ends_with(&suffix)
                {
                    bucket.push_str(&suffix);
                }
                let config = S3Config {
                    client: Client::new(&endpoint, guard).map_err(|f| f.at(side))?,
                    bucket,
                    addressing,
                    region: signing_region,
                    credentials: keys.credentials(),
                    order,
                    requester_pays,
                };
                let (s3, probe) = S3::open(config, self.clock.clone()).await.map_err(|f| f.at(side))?;
                Ok(Opened { store: Arc::new(s3), probe, limit_key: endpoint })
            }
        }
    }
}

#[async_trait]
impl Places for Catalogue {
    async fn open(&self, task: &TaskRow, secrets: &str, side: Side) -> Result<Opened> {
        let secrets = TaskSecrets::from_json(secrets);
        let spec = &task.spec;
        match side {
            Side::Source => {
                Catalogue::open(self, &spec.source, &secrets.source, side, spec.requester_pays).await
            }
            _ => Catalogue::open(self, &spec.target, &secrets.target, side, false).await,
        }
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
