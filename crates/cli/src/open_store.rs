//! URLs of the command line (contract §1.1), and how their stores are opened.

mod url;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use control::Catalogue;
use control::secrets::StoreCredentials;
use flow_control::clock::SharedClock;
use model::error::{Error, Kind, Result, Side};
use model::key::Key;
use model::spec::Location;
use runtime::{OpenedStore, StoreResolver};
use seal::Secret;
use storage::SharedStore;
use storage::azure::connection::Connection;
use storage::azure::{Azure, AzureConfig};
use storage::egress::Egress;
use storage::fs::Fs;
use storage::google::token::ServiceAccount;
use storage::google::{Google, GoogleConfig};
use storage::http::Client;
use storage::key_list::{self, KeyListStore, Sorted, UrlListStore};
use storage::prefixed::PrefixedStore;
use storage::s3::vendor::Vendor;
use storage::s3::{S3, S3Config};
use storage::single_object::SingleObjectStore;
use storage::versioned::VersionedStore;
use store::TaskRow;

use crate::args::Ends;
pub(crate) use url::CliUrl;

fn usage(message: String) -> Error {
    Error::new(Kind::Invalid, "url", message)
}

fn env(names: &[String]) -> Option<String> {
    names.iter().find_map(|n| std::env::var(n).ok()).filter(|v| !v.is_empty())
}

fn side_name(side: Side) -> &'static str {
    if side == Side::Source { "SOURCE" } else { "TARGET" }
}

/// What tells accounts of Azure apart in the name of a ledger, where no endpoint was given.
fn azure_account(endpoint: Option<&str>) -> Option<String> {
    let account = || env(&["AZURE_STORAGE_ACCOUNT".into()]);
    let string = || env(&["AZURE_STORAGE_CONNECTION_STRING".into()]);
    let named = || Some(Connection::parse(&string()?).ok()?.endpoint);
    endpoint.map(str::to_owned).or_else(account).or_else(named)
}

/// Credentials of one end: WHIMBREL_SOURCE_… or WHIMBREL_TARGET_…, else the vendor's own variables, else none.
pub(crate) fn keys(side: Side) -> StoreCredentials {
    let word = side_name(side);
    let own = |name: &str| env(&[format!("WHIMBREL_{word}_{name}")]);
    let or = |name: &str, usual: &str| own(name).or_else(|| env(&[usual.to_owned()]));
    StoreCredentials {
        ak: or("ACCESS_KEY", "AWS_ACCESS_KEY_ID").unwrap_or_default(),
        sk: Secret::new(or("SECRET_KEY", "AWS_SECRET_ACCESS_KEY").unwrap_or_default()),
        token: or("SESSION_TOKEN", "AWS_SESSION_TOKEN").map(Secret::new),
        ..StoreCredentials::default()
    }
}

/// An account of Azure: a connection string, or an account and its key or SAS token.
fn azure(side: Side, endpoint: Option<&str>) -> Result<Connection> {
    let word = side_name(side);
    let or = |own: &str, usual: &str| env(&[format!("WHIMBREL_{word}_{own}"), usual.to_owned()]);
    if let Some(text) = or("CONNECTION_STRING", "AZURE_STORAGE_CONNECTION_STRING") {
        return Connection::parse(&text);
    }
    let account = or("ACCESS_KEY", "AZURE_STORAGE_ACCOUNT").ok_or_else(|| {
        usage(format!(
            "no storage account for az://; hint: set WHIMBREL_{word}_CONNECTION_STRING, or \
             WHIMBREL_{word}_ACCESS_KEY to the account name"
        ))
    })?;
    let key = or("SECRET_KEY", "AZURE_STORAGE_KEY").unwrap_or_default();
    match endpoint {
        Some(endpoint) => Connection::new(endpoint, &account, &key),
        None => Connection::new(&format!("https://{account}.blob.core.windows.net"), &account, &key),
    }
}

/// A service account of Google, where one is named.
fn service_account(side: Side) -> Result<Option<Arc<ServiceAccount>>> {
    let own = format!("WHIMBREL_{}_GOOGLE_KEY_FILE", side_name(side));
    let Some(path) = env(&[own, "GOOGLE_APPLICATION_CREDENTIALS".into()]) else { return Ok(None) };
    let text = std::fs::read_to_string(&path).map_err(|e| usage(format!("{path}: {e}")))?;
    Ok(Some(Arc::new(ServiceAccount::parse(&text)?)))
}

/// As [`keys`]; half a pair is a mistake.
fn checked_keys(side: Side) -> Result<StoreCredentials> {
    let keys = keys(side);
    if keys.ak.is_empty() == keys.sk.expose().is_empty() {
        return Ok(keys);
    }
    let word = side_name(side);
    let missing = if keys.ak.is_empty() { "ACCESS_KEY" } else { "SECRET_KEY" };
    Err(usage(format!(
        "WHIMBREL_{word}_{missing} is not set, but access key and secret key must be set together"
    )))
}

/// Both ends of a command.
pub(crate) struct EndPair {
    source: CliUrl,
    target: CliUrl,
    catalogue: Option<Arc<Catalogue>>,
    /// Only these keys of the source.
    only: OnceLock<Arc<Sorted>>,
    /// The URLs of a source that is a list of them.
    urls: OnceLock<Arc<Sorted>>,
    /// Reads have all versions of a key.
    versions: bool,
    /// The source was found to name one object.
    single: OnceLock<()>,
    clock: SharedClock,
}

/// One endpoint may be written in several ways: in capitals, with the usual port, with a slash at its end.
fn same_endpoint(a: &str, b: &str) -> bool {
    let parts = |url: &str| {
        let uri: http::Uri = url.trim_end_matches('/').parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
        let path = uri.path().trim_end_matches('/').to_owned();
        Some((uri.host()?.to_ascii_lowercase(), port, path, scheme))
    };
    a == b || parts(a).is_some_and(|a| parts(b).is_some_and(|b| a == b))
}

impl EndPair {
    /// Reads both URLs; a configuration is needed only for `STORE:…`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a URL or configuration that cannot be read.
    pub(crate) fn new(source: &str, target: &str, ends: &Ends, clock: SharedClock) -> Result<Self> {
        let source = CliUrl::parse(source, ends, Side::Source)?;
        let target = CliUrl::parse(target, ends, Side::Target)?;
        let needs = |p: &CliUrl| matches!(p, CliUrl::Store { .. });
        let mut catalogue = None;
        if needs(&source) || needs(&target) {
            let path = ends.config.clone().unwrap_or_else(|| "whimbrel.toml".into());
            let config = config::load(&path, &std::env::vars().collect())?;
            catalogue = Some(Arc::new(Catalogue::new(&config, clock.clone())));
        }
        Ok(Self {
            source,
            target,
            catalogue,
            only: OnceLock::new(),
            urls: OnceLock::new(),
            versions: false,
            single: OnceLock::new(),
            clock,
        })
    }

    /// One end.
    pub(crate) fn url(&self, side: Side) -> &CliUrl {
        if side == Side::Source { &self.source } else { &self.target }
    }

    /// Rejects a copy of a location into itself, which would copy its own output.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when one end holds the other.
    pub(crate) fn check_apart(&self) -> Result<()> {
        let inside = |a: &str, b: &str| a == b || a.starts_with(&format!("{}/", b.trim_end_matches('/')));
        let within = |a: &str, b: &str| b.is_empty() || inside(a, b);
        let overlap = match (&self.source, &self.target) {
            (CliUrl::Directory(a), CliUrl::Directory(b)) => {
                let real = |p: &PathBuf| {
                    // The part of the path that exists is resolved, the rest is taken as written.
                    let path = std::path::absolute(p).unwrap_or_else(|_| p.clone());
                    path.ancestors()
                        .find_map(|a| Some(a.canonicalize().ok()?.join(path.strip_prefix(a).ok()?)))
                        .unwrap_or(path.clone())
                };
                let (a, b) = (real(a), real(b));
                a.starts_with(&b) || b.starts_with(&a)
            }
            (
                CliUrl::S3 { endpoint: e, bucket: b, prefix: p, .. },
                CliUrl::S3 { endpoint: f, bucket: c, prefix: q, .. },
            ) => same_endpoint(e, f) && b == c && (within(p, q) || within(q, p)),
            (
                CliUrl::Azure { endpoint: e, bucket: b, prefix: p },
                CliUrl::Azure { endpoint: f, bucket: c, prefix: q },
            ) => {
                let own = |word: &str| env(&[format!("WHIMBREL_{word}_ACCESS_KEY")]);
                let string = |word: &str| env(&[format!("WHIMBREL_{word}_CONNECTION_STRING")]);
                let same = own("SOURCE") == own("TARGET") && string("SOURCE") == string("TARGET");
                same && e == f && b == c && (within(p, q) || within(q, p))
            }
            (
                CliUrl::Google { endpoint: e, bucket: b, prefix: p },
                CliUrl::Google { endpoint: f, bucket: c, prefix: q },
            ) => e == f && b == c && (within(p, q) || within(q, p)),
            (
                CliUrl::Store { region: e, bucket: b, prefix: p },
                CliUrl::Store { region: f, bucket: c, prefix: q },
            ) => e == f && b == c && (within(p, q) || within(q, p)),
            _ => false,
        };
        if overlap {
            return Err(usage(
                "source and target overlap; hint: choose a target outside of the source".to_owned(),
            ));
        }
        Ok(())
    }

    /// Opens one end.
    ///
    /// # Errors
    /// An error of the probe.
    pub(crate) async fn open(&self, side: Side) -> Result<OpenedStore> {
        self.open_end(side, side == Side::Target).await
    }

    /// Opens one end without making its directory, for commands that only look.
    ///
    /// # Errors
    /// An error of the probe.
    pub(crate) async fn probe(&self, side: Side) -> Result<OpenedStore> {
        self.open_end(side, false).await
    }

    async fn open_end(&self, side: Side, make: bool) -> Result<OpenedStore> {
        let opened = self.open_url(side, make).await.map_err(|f| f.at(side))?;
        let prefix = self.url(side).prefix();
        let store = match (side, self.url(side).file()) {
            (Side::Source, Some(name)) => {
                let _ = self.single.set(());
                Arc::new(SingleObjectStore::new(opened.store, Key::from(name)))
            }
            (Side::Source, None) => self.source_below(opened.store, prefix).await.map_err(|f| f.at(side))?,
            _ => PrefixedStore::wrap(opened.store, prefix),
        };
        let store = match self.versions && side == Side::Source {
            true => Arc::new(VersionedStore::new(store)?),
            false => store,
        };
        let store = match self.only.get().filter(|_| side == Side::Source) {
            Some(list) => Arc::new(KeyListStore::new(store, list.clone())),
            None => store,
        };
        Ok(OpenedStore { store, ..opened })
    }

    /// What a URL names: the folder of that name, or the object if there is no such folder.
    async fn source_below(&self, bucket: SharedStore, prefix: &str) -> Result<SharedStore> {
        let folder = PrefixedStore::wrap(bucket.clone(), prefix);
        if prefix.is_empty() || prefix.ends_with('/') {
            return Ok(folder);
        }
        let is_folder = match object_migration::verify::lists_any(folder.clone(), "", Side::Source).await {
            Ok(found) => found,
            // Keys for one object may not list.
            Err(f) if f.kind == Kind::Forbidden => false,
            Err(f) => return Err(f),
        };
        if is_folder {
            return Ok(folder);
        }
        match bucket.head(&Key::from(prefix), None).await {
            Ok(_) => {
                let (parent, name) = prefix.rsplit_once('/').unwrap_or(("", prefix));
                let _ = self.single.set(());
                Ok(Arc::new(SingleObjectStore::new(PrefixedStore::wrap(bucket, parent), Key::from(name))))
            }
            Err(f) if matches!(f.kind, Kind::NotFound | Kind::Forbidden | Kind::InvalidKey) => Ok(folder),
            Err(f) => Err(f),
        }
    }

    /// True when the source names one object.
    pub(crate) fn names_one(&self) -> bool {
        self.single.get().is_some()
    }

    /// Fails when the source's prefix names nothing, which is more often a typing error than meant.
    ///
    /// # Errors
    /// [`Kind::NotFound`], or an error of the listing.
    pub(crate) async fn check_selects(&self) -> Result<()> {
        let prefix = self.source.prefix();
        if prefix.is_empty() || self.names_one() || self.only.get().is_some() {
            return Ok(());
        }
        let opened = self.probe(Side::Source).await?;
        let any = object_migration::verify::lists_any(opened.store.clone(), "", Side::Source).await;
        if any.map_err(|f| f.at(Side::Source))? {
            return Ok(());
        }
        let m = format!("no object at prefix `{prefix}` of {}", opened.store.location());
        Err(Error::new(Kind::NotFound, "select", m).at(Side::Source))
    }

    /// From now on the source shows only the keys of a list.
    pub(crate) fn only(&self, list: Arc<Sorted>) {
        let _ = self.only.set(list);
    }

    /// From now on the source shows all versions of its keys.
    pub(crate) fn with_versions(self) -> Self {
        Self { versions: true, ..self }
    }

    /// Reads and sorts the list of a source that is one, and keeps it at `path`.
    ///
    /// # Errors
    /// When the list cannot be had, or a line is none.
    pub(crate) async fn read_urls(&self, path: &std::path::Path) -> Result<()> {
        let CliUrl::Urls(url) = &self.source else { return Ok(()) };
        let sorted = key_list::sorted_from_url(url, path).await.map_err(|f| f.at(Side::Source))?;
        let _ = self.urls.set(sorted);
        Ok(())
    }

    async fn open_url(&self, side: Side, make: bool) -> Result<OpenedStore> {
        // Keys may be allowed below the prefix only, and with the `/` that a folder's keys have.
        let below = match self.url(side).prefix() {
            prefix if prefix.is_empty() || prefix.ends_with('/') => prefix.to_owned(),
            prefix => format!("{prefix}/"),
        };
        match self.url(side) {
            CliUrl::Directory(path) => self.open_directory(side, path, make).await,
            CliUrl::S3 { endpoint, region, addressing, bucket, .. } => {
                let config = S3Config {
                    client: Client::with_base(endpoint, Egress::anywhere())?,
                    bucket: bucket.clone(),
                    addressing: *addressing,
                    region: region.clone(),
                    credentials: checked_keys(side)?.credentials(),
                    order: None,
                    requester_pays: false,
                    vendor: &storage::s3::vendor::GENERIC,
                };
                let (s3, probe) = S3::open(config, &below, self.clock.clone()).await?;
                Ok(OpenedStore { store: Arc::new(s3), probe, limit_key: endpoint.clone() })
            }
            CliUrl::Azure { endpoint, bucket, .. } => {
                let connection = azure(side, endpoint.as_deref())?;
                let config = AzureConfig::new(connection, bucket, Egress::anywhere())?;
                let store: SharedStore = Arc::new(Azure::new(config, self.clock.clone()));
                let probe = store.probe(&below).await?;
                Ok(OpenedStore { limit_key: store.location(), store, probe })
            }
            CliUrl::Google { endpoint, bucket, .. } => self.open_google(side, endpoint, bucket, &below).await,
            CliUrl::Urls(url) => self.open_urls(url).await,
            CliUrl::Store { region, bucket, .. } => {
                let location =
                    Location { region: region.clone(), bucket: bucket.clone(), ..Location::default() };
                match &self.catalogue {
                    Some(catalogue) => {
                        catalogue.open_below(&location, &below, &keys(side), side, false).await
                    }
                    None => Err(usage(format!(
                        "`{region}:` requires a configuration with a [[store]]; hint: use \
                         --config"
                    ))),
                }
            }
        }
    }

    /// Opens a directory, or that of a file: a file is one object of its directory.
    async fn open_directory(&self, side: Side, path: &std::path::Path, make: bool) -> Result<OpenedStore> {
        let file = self.url(side).file().is_some() && side == Side::Source;
        let root = path.parent().filter(|_| file).map_or(path, |parent| {
            if parent.as_os_str().is_empty() { std::path::Path::new(".") } else { parent }
        });
        let store: SharedStore = Arc::new(Fs::open(root, make)?);
        let probe = store.probe("").await?;
        Ok(OpenedStore { limit_key: store.location(), store, probe })
    }

    /// Opens a bucket of Google; with HMAC keys and without an account over its S3 API.
    async fn open_google(
        &self,
        side: Side,
        endpoint: &str,
        bucket: &str,
        below: &str,
    ) -> Result<OpenedStore> {
        let account = service_account(side)?;
        let keys = env(&[format!("WHIMBREL_{}_ACCESS_KEY", side_name(side))]);
        if account.is_none() && keys.is_some() {
            let vendor = Vendor::named("Google");
            let config = S3Config {
                client: Client::new(endpoint, Egress::anywhere())?,
                bucket: bucket.to_owned(),
                addressing: vendor.addressing,
                region: "auto".into(),
                credentials: checked_keys(side)?.credentials(),
                order: None,
                requester_pays: false,
                vendor,
            };
            let (s3, probe) = S3::open(config, below, self.clock.clone()).await?;
            return Ok(OpenedStore { store: Arc::new(s3), probe, limit_key: endpoint.to_owned() });
        }
        let config = GoogleConfig {
            client: Client::new(endpoint, Egress::anywhere())?,
            account,
            bucket: bucket.to_owned(),
            requester_pays: false,
            egress: Egress::anywhere(),
        };
        let store: SharedStore = Arc::new(Google::new(config, self.clock.clone()));
        let probe = store.probe(below).await?;
        Ok(OpenedStore { limit_key: store.location(), store, probe })
    }

    async fn open_urls(&self, url: &str) -> Result<OpenedStore> {
        let list = self.urls.get().ok_or_else(|| {
            usage(format!("`{url}` is a list of URLs, which only `whimbrel copy` supports"))
        })?;
        let spool = std::env::temp_dir();
        let store: SharedStore = Arc::new(UrlListStore::new(list.clone(), Egress::anywhere(), spool));
        let probe = store.probe("").await?;
        Ok(OpenedStore { limit_key: "urls".into(), store, probe })
    }
}

#[async_trait]
impl StoreResolver for EndPair {
    async fn open(&self, _task: &TaskRow, _secrets: &str, side: Side) -> Result<OpenedStore> {
        EndPair::open(self, side).await
    }
}

#[cfg(test)]
mod tests;
