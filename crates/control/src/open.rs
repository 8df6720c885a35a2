//! Opening the ends of tasks: what a location and credentials make a store of.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use model::error::{Error, Kind, Reason, Result, Side};
use model::key::Key;
use model::selection::{ListFile, Selection};
use model::spec::{Location, SourceCdn, TaskSpec};
use runtime::migrations::{Hook, Instance, OpenedBackup};
use runtime::{OpenedStore, StoreResolver, Webhook};
use storage::azure::connection::Connection;
use storage::azure::{Azure, AzureConfig};
use storage::cdn::{Auth, CdnStore, Signer};
use storage::egress::{Egress, host_of};
use storage::fs::Fs;
use storage::google::token::ServiceAccount;
use storage::google::{Google, GoogleConfig};
use storage::http::Client;
use storage::key_list::{self, KeyListStore, ListForm, UrlListStore};
use storage::s3::vendor::Vendor;
use storage::s3::{S3, S3Config};
use storage::versioned::VersionedStore;
use storage::{ObjectStore, SharedStore};
use store::TaskRow;

use crate::catalogue::{Catalogue, StoreLocation, without_path};
use crate::secrets::{StoreCredentials, TaskSecrets};

impl Catalogue {
    /// The buckets that credentials see at one store.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an unknown region; else what the store answers.
    pub async fn buckets(
        &self,
        place: &Location,
        keys: &StoreCredentials,
        side: Side,
    ) -> Result<Vec<String>> {
        match self.find(place, side).ok_or_else(|| self.unknown(place, side))? {
            StoreLocation::Directory(root) => directories(&root).map_err(|f| f.at(side)),
            location => {
                let bucket = self.bucket(location, place, keys, false).map_err(|f| f.at(side))?;
                bucket.store().buckets().await.map_err(|f| f.at(side))
            }
        }
    }

    fn unknown(&self, place: &Location, side: Side) -> Error {
        Error::new(Kind::Invalid, "open", format!("no store is configured for region `{}`", place.region))
            .at(side)
    }

    /// A bucket that is not asked for anything yet.
    fn bucket(
        &self,
        location: StoreLocation,
        place: &Location,
        keys: &StoreCredentials,
        requester_pays: bool,
    ) -> Result<Bucket> {
        match location {
            StoreLocation::Directory(_) => {
                Err(Error::new(Kind::Unsupported, "open", "directories do not use account or keys"))
            }
            StoreLocation::Azure { endpoint, egress } => {
                let (connection, egress) = self.connection(endpoint.as_deref(), egress, keys)?;
                let config = AzureConfig::new(connection, &place.bucket, egress)?;
                Ok(Bucket::Azure(Azure::new(config, self.clock.clone())))
            }
            StoreLocation::Google { endpoint, egress } if keys.json_auth.is_some() || keys.ak.is_empty() => {
                self.google_bucket(Client::new(&endpoint, egress)?, place, keys, requester_pays)
            }
            StoreLocation::Google { endpoint, egress } => {
                let vendor = Vendor::named("Google");
                self.s3_bucket(S3Config {
                    client: Client::new(&endpoint, egress)?,
                    bucket: place.bucket.clone(),
                    addressing: vendor.addressing,
                    region: "auto".into(),
                    credentials: keys.credentials(),
                    order: None,
                    requester_pays,
                    vendor,
                })
            }
            StoreLocation::S3 { endpoint, signing_region, addressing, order, egress, vendor } => self
                .s3_bucket(S3Config {
                    client: Client::with_base(&endpoint, egress)?,
                    bucket: bucket_name(vendor, place),
                    addressing,
                    region: signing_region,
                    credentials: keys.credentials(),
                    order,
                    requester_pays,
                    vendor,
                }),
        }
    }

    fn s3_bucket(&self, config: S3Config) -> Result<Bucket> {
        Ok(Bucket::S3(Box::new(S3::new(config, self.clock.clone())?)))
    }

    /// A bucket of Google's own API; without a service account, requests are anonymous.
    fn google_bucket(
        &self,
        client: Client,
        place: &Location,
        keys: &StoreCredentials,
        requester_pays: bool,
    ) -> Result<Bucket> {
        let (account, egress) = match &keys.json_auth {
            Some(json) => {
                let (account, egress) = self.service_account(json.expose())?;
                (Some(Arc::new(account)), egress)
            }
            None => (None, Egress::default()),
        };
        let bucket = place.bucket.clone();
        let config = GoogleConfig { client, account, bucket, requester_pays, egress };
        Ok(Bucket::Google(Google::new(config, self.clock.clone())))
    }

    /// Where an Azure account is, and where that may lead. A connection string may name Microsoft's own hosts, the
    /// endpoint that was chosen (with the guard that it has), and what the operator lists; nothing else.
    fn connection(
        &self,
        endpoint: Option<&str>,
        egress: Egress,
        keys: &StoreCredentials,
    ) -> Result<(Connection, Egress)> {
        let Some(text) = &keys.connection_string else {
            let connection = match endpoint {
                None => Connection::of_account(&keys.ak, keys.sk.expose())?,
                Some(endpoint) => Connection::new(&on_host(endpoint, &keys.ak), &keys.ak, keys.sk.expose())?,
            };
            return Ok((connection, egress));
        };
        let connection = Connection::parse(text.expose())?;
        if endpoint == Some(connection.endpoint.as_str()) {
            return Ok((connection, egress));
        }
        if connection.is_microsofts() {
            return Ok((connection, self.public()));
        }
        let listed = Egress::listed(&self.inner().inline);
        if host_of(&connection.endpoint).is_some_and(|host| listed.may_lead_to(&host)) {
            return Ok((connection, listed));
        }
        let host = connection.endpoint.split("://").nth(1).unwrap_or_default();
        let m = format!(
            "the connection string names host `{host}`, which is neither an Azure host nor in limits.inline_endpoints"
        );
        Err(Error::new(Kind::Invalid, "connection_string", m))
    }

    /// A key file, and where its tokens are asked for: at Google, or at what the operator lists.
    fn service_account(&self, json: &str) -> Result<(ServiceAccount, Egress)> {
        let account = ServiceAccount::parse(json)?;
        let host = host_of(&account.exchange).unwrap_or_default();
        let googles = account.exchange.starts_with("https://")
            && (host.ends_with(".googleapis.com") || host == "accounts.google.com");
        if googles {
            return Ok((account, self.public()));
        }
        let listed = Egress::listed(&self.inner().inline);
        if !host.is_empty() && listed.may_lead_to(&host) {
            return Ok((account, listed));
        }
        let m = format!(
            "token_uri names host `{host}`, which is neither a Google host nor in limits.inline_endpoints"
        );
        Err(Error::new(Kind::Invalid, "json_auth_file", m))
    }

    /// Opens a bucket.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an unknown region; else an error of the probe.
    pub async fn open(
        &self,
        place: &Location,
        keys: &StoreCredentials,
        side: Side,
        requester_pays: bool,
    ) -> Result<OpenedStore> {
        self.open_listable(place, "", keys, side, requester_pays).await
    }

    /// As [`Self::open_below`]; keys that may not list there are refused.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_listable(
        &self,
        place: &Location,
        prefix: &str,
        keys: &StoreCredentials,
        side: Side,
        requester_pays: bool,
    ) -> Result<OpenedStore> {
        let mut opened = self.open_below(place, prefix, keys, side, requester_pays).await?;
        match opened.probe.list_refused.take() {
            Some(refused) => Err(refused.at(side)),
            None => Ok(opened),
        }
    }

    /// As [`Self::open`], for keys that may be allowed below a prefix only; whether they may list, the probe tells.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_below(
        &self,
        place: &Location,
        prefix: &str,
        keys: &StoreCredentials,
        side: Side,
        requester_pays: bool,
    ) -> Result<OpenedStore> {
        let location = self.find(place, side).ok_or_else(|| self.unknown(place, side))?;
        match location {
            StoreLocation::Directory(root) => {
                if place.bucket.is_empty() || place.bucket.contains('/') || place.bucket.starts_with('.') {
                    let m = format!("`{}` is not a valid bucket name of a directory store", place.bucket);
                    return Err(Error::new(Kind::NoBucket, "open", m).at(side));
                }
                let path = root.join(&place.bucket);
                // A link could lead anywhere on this machine.
                if path.symlink_metadata().is_ok_and(|m| m.is_symlink()) {
                    let m = format!(
                        "bucket `{}` is a symbolic link; links out of the store are not followed",
                        place.bucket
                    );
                    return Err(Error::new(Kind::Forbidden, "open", m).at(side));
                }
                let opened =
                    Fs::open(&path, false).map_err(|f| without_path(f, &path, &place.bucket).at(side));
                let store: SharedStore = Arc::new(opened?);
                let probe = store.probe(prefix).await.map_err(|f| f.at(side))?;
                Ok(OpenedStore { store, probe, limit_key: root.display().to_string() })
            }
            location => {
                let bucket = self.bucket(location, place, keys, requester_pays).map_err(|f| f.at(side))?;
                bucket.open(prefix).await.map_err(|f| f.at(side))
            }
        }
    }
}

/// A bucket before its first request.
enum Bucket {
    S3(Box<S3>),
    Azure(Azure),
    Google(Google),
}

impl Bucket {
    fn store(&self) -> &dyn ObjectStore {
        match self {
            Bucket::S3(s3) => &**s3,
            Bucket::Azure(azure) => azure,
            Bucket::Google(google) => google,
        }
    }

    async fn open(self, prefix: &str) -> Result<OpenedStore> {
        let limit_key = self.store().location();
        match self {
            Bucket::S3(s3) => {
                let limit_key = s3.authority().to_owned();
                let (s3, probe) = s3.probed(prefix).await?;
                Ok(OpenedStore { store: Arc::new(s3), probe, limit_key })
            }
            Bucket::Azure(azure) => {
                let probe = azure.probe(prefix).await?;
                Ok(OpenedStore { store: Arc::new(azure), probe, limit_key })
            }
            Bucket::Google(google) => {
                let probe = google.probe(prefix).await?;
                Ok(OpenedStore { store: Arc::new(google), probe, limit_key })
            }
        }
    }
}

/// The name of a bucket at its vendor: names of Tencent end with the id of the account's application.
fn bucket_name(vendor: &Vendor, place: &Location) -> String {
    let suffix = format!("-{}", place.app_id);
    let is_tencent = vendor.name == "Tencent" && !place.app_id.is_empty();
    match is_tencent && !place.bucket.is_empty() && !place.bucket.ends_with(&suffix) {
        true => format!("{}{suffix}", place.bucket),
        false => place.bucket.clone(),
    }
}

/// An endpoint whose host does not name the account has it in its path.
fn on_host(endpoint: &str, account: &str) -> String {
    let host = endpoint.split("://").nth(1).unwrap_or_default();
    let path = host.trim_end_matches('/').split_once('/').map(|(_, path)| path);
    match host.starts_with(&format!("{account}.")) || path == Some(account) {
        true => endpoint.to_owned(),
        false => format!("{}/{account}", endpoint.trim_end_matches('/')),
    }
}

/// The buckets of a directory store.
fn directories(root: &Path) -> Result<Vec<String>> {
    let failed = |e: std::io::Error| {
        Error::new(Kind::Forbidden, "buckets", format!("directory `{}`: {e}", root.display()))
            .because(Reason::LocalPath)
            .caused_by(e)
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|t| t.is_dir()) && !name.starts_with('.') {
            names.push(name);
        }
    }
    Ok(names)
}

impl Catalogue {
    /// The source of a task: a bucket, or what a list file names.
    async fn open_source(&self, task: &TaskRow, secrets: &TaskSecrets) -> Result<OpenedStore> {
        let (spec, _side) = (&task.spec, Side::Source);
        if let Selection::Keys(keys) = &spec.selection {
            let bucket = self.open_bucket(spec, secrets).await?;
            let list = key_list::sorted_keys(keys, &key_list::path_in(&self.data_dir, task.id))?;
            return Ok(OpenedStore { store: Arc::new(KeyListStore::new(bucket.store, list)), ..bucket });
        }
        let Some(file) = spec.selection.list_file() else {
            return self.open_bucket(spec, secrets).await;
        };
        let place = Location { bucket: file.bucket.clone(), ..spec.target.clone() };
        let files = self.open(&place, &secrets.target, Side::Target, false).await?.store;
        let (key, path) = (Key::from(file.key.as_str()), key_list::path_in(&self.data_dir, task.id));
        if let Selection::UrlList(_) = spec.selection {
            let list =
                key_list::sorted(&files, &key, ListForm::Urls, &path).await.map_err(|f| f.at(Side::Local))?;
            let spool = self.data_dir.join("spool");
            let store: SharedStore = Arc::new(UrlListStore::new(list, self.public(), spool));
            let probe = store.probe("").await?;
            return Ok(OpenedStore { store, probe, limit_key: "urls".into() });
        }
        let bucket = self.open_bucket(spec, secrets).await?;
        let list =
            key_list::sorted(&files, &key, ListForm::Keys, &path).await.map_err(|f| f.at(Side::Local))?;
        Ok(OpenedStore { store: Arc::new(KeyListStore::new(bucket.store, list)), ..bucket })
    }

    /// The source's bucket, and the domain in front of it.
    pub(crate) async fn open_bucket(&self, spec: &TaskSpec, secrets: &TaskSecrets) -> Result<OpenedStore> {
        let prefix = spec.selection.entries().first().map_or("", String::as_str);
        let (place, keys) = (&spec.source, &secrets.source);
        let mut opened = self.open_below(place, prefix, keys, Side::Source, spec.requester_pays).await?;
        if spec.extensions.versions {
            opened.store = Arc::new(VersionedStore::new(opened.store).map_err(|f| f.at(Side::Source))?);
        }
        match &spec.cdn {
            Some(cdn) => {
                let store =
                    Arc::new(self.fronted(opened.store, cdn, secrets).map_err(|f| f.at(Side::Source))?);
                Ok(OpenedStore { store, limit_key: cdn.domain.clone(), ..opened })
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
    ) -> Result<CdnStore> {
        let client = Client::new(&format!("{}://{}", cdn.protocol, cdn.domain), self.public())?;
        let signer = Signer {
            auth: Auth::named(&cdn.authentication_type).unwrap_or(Auth::None),
            key: secrets.cdn.expose().to_owned(),
            access_key: secrets.source.ak.clone(),
            secret_key: secrets.source.sk.expose().to_owned(),
        };
        Ok(CdnStore::new(bucket, client, signer, self.clock.clone()))
    }

    /// Anybody's URLs lead to public addresses only, unless the operator lists more.
    fn public(&self) -> Egress {
        Egress::public(&self.inner().inline)
    }
}

#[async_trait]
impl StoreResolver for Catalogue {
    async fn open(&self, task: &TaskRow, secrets: &str, side: Side) -> Result<OpenedStore> {
        let secrets = TaskSecrets::from_json(secrets);
        let (spec, own) = (&task.spec, self.for_project(&task.project));
        match side {
            Side::Source => own.open_source(task, &secrets).await,
            _ => {
                let below = spec.selection.entries().first().map_or("", String::as_str);
                let prefix = format!("{}{below}", spec.save_prefix);
                own.open_below(&spec.target, &prefix, &secrets.target, side, false).await
            }
        }
    }

    fn egress(&self) -> Egress {
        Egress::public(&self.inner().redis)
    }

    fn instance(&self, id: &str) -> Option<Instance> {
        self.registry().instances.iter().find(|i| i.id == id).cloned()
    }

    async fn backup(&self, bucket: &str, file: &str) -> Result<OpenedBackup> {
        self.open_backup(bucket, file).await
    }

    fn hook(&self) -> Option<Hook> {
        self.registry().hook.clone()
    }

    fn webhook(&self, topic: &str) -> Option<Webhook> {
        let inner = self.inner();
        let found = inner.notify.iter().find(|n| n.topic == topic)?;
        let egress = Egress::operators(&inner.inline).with_url(&found.webhook);
        Some(Webhook { url: found.webhook.clone(), secret: found.secret.clone(), egress })
    }

    async fn lists(&self, spec: &TaskSpec, secrets: &str, folder: &ListFile) -> Result<Vec<String>> {
        let secrets = TaskSecrets::from_json(secrets);
        let place = Location { bucket: folder.bucket.clone(), ..spec.target.clone() };
        let files = self.open(&place, &secrets.target, Side::Target, false).await?.store;
        key_list::in_folder(&files, &folder.key).await.map_err(|f| f.at(Side::Target))
    }
}
