//! The sections of the file, each with its own checks.

mod validate;

use std::path::PathBuf;

use model::key::Order;
use serde::Deserialize;

use crate::size::bytes_of;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Address to listen on.
    pub listen: String,
    /// Address at which numbers are told to everybody; none: they need a caller.
    pub metrics_listen: Option<String>,
    /// Directory for SQLite, ledgers and the sealing key.
    pub data_dir: String,
    /// `sqlite`, or a PostgreSQL URL.
    pub database: String,
    /// The same PostgreSQL database without a pgbouncer in between: notifications of changes arrive there.
    pub database_direct: Option<String>,
    /// Zone of bandwidth windows and stamps, minutes east of UTC.
    pub time_zone_minutes: i32,
    /// TLS; none: plain HTTP.
    pub tls: Option<Tls>,
    /// Where audit lines are written in addition to the database.
    pub audit: Audit,
    /// Limits.
    pub limits: Limits,
    /// Projects.
    #[serde(rename = "project")]
    pub projects: Vec<Project>,
    /// Access keys.
    #[serde(rename = "access_key")]
    pub access_keys: Vec<AccessKey>,
    /// Users.
    #[serde(rename = "user")]
    pub users: Vec<User>,
    /// Object stores.
    #[serde(rename = "store")]
    pub stores: Vec<Store>,
    /// Redis instances.
    #[serde(rename = "redis")]
    pub redis_instances: Vec<RedisInstance>,
    /// Buckets for backup imports.
    #[serde(rename = "bucket")]
    pub backup_sources: Vec<BackupSource>,
    /// How clients are redirected in a cut-over.
    pub cutover: Cutover,
    /// Notification sinks.
    pub notify: Vec<Notify>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8790".into(),
            metrics_listen: None,
            data_dir: "./whimbrel-data".into(),
            database: "sqlite".into(),
            database_direct: None,
            time_zone_minutes: 0,
            tls: None,
            audit: Audit::default(),
            limits: Limits::default(),
            projects: vec![],
            access_keys: vec![],
            users: vec![],
            stores: vec![],
            redis_instances: vec![],
            backup_sources: vec![],
            cutover: Cutover::default(),
            notify: vec![],
        }
    }
}

/// Certificate and key files, PEM.
#[derive(Clone, Debug, Deserialize)]
pub struct Tls {
    /// Certificate chain.
    pub cert: String,
    /// Private key.
    pub key: String,
}

/// Audit lines as JSON lines, for whatever ships logs. They are kept in the database as well.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Audit {
    /// A file that lines are appended to; it is opened again at each SIGHUP, so that it can be rotated.
    pub file: Option<String>,
    /// True writes them to the standard output of the service.
    pub stdout: bool,
}

/// Limits of the whole service.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Running tasks per project; others wait.
    pub running_tasks: u32,
    /// Bound of all engine buffers together.
    pub memory: String,
    /// Hosts or CIDRs that `region = "http://…"` may name; empty: refused.
    #[serde(rename = "inline_endpoints")]
    pub allowed_endpoints: Vec<String>,
    /// Hosts or CIDRs that `addrs` of a migration may name in addition to public addresses and `inline_endpoints`.
    #[serde(rename = "redis_endpoints")]
    pub allowed_redis_endpoints: Vec<String>,
    /// Tasks that a project may create in 24 hours.
    pub tasks_per_day: u64,
    /// Tasks of a project that may wait.
    pub waiting_tasks: u64,
    /// Redis migrations of a project that have not ended.
    pub open_migrations: u64,
    /// Backups of a project that are being made at once.
    pub running_backups: u64,
    /// Backups of a project that are kept.
    pub kept_backups: u64,
    /// Task groups of a project that have not ended.
    pub open_groups: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            running_tasks: 5,
            memory: "512MiB".into(),
            allowed_endpoints: vec![],
            allowed_redis_endpoints: vec![],
            tasks_per_day: 5000,
            waiting_tasks: 1500,
            open_migrations: 100,
            running_backups: 2,
            kept_backups: 100,
            open_groups: 100,
        }
    }
}

impl Limits {
    /// [`Limits::memory`] in bytes.
    pub fn memory_bytes(&self) -> u64 {
        bytes_of(&self.memory).unwrap_or(512 << 20)
    }
}

/// One project.
#[derive(Clone, Debug, Deserialize)]
pub struct Project {
    /// Identity, as in paths.
    pub id: String,
    /// Name; clients that only know a region use it as project name.
    pub name: String,
    /// Further names.
    #[serde(default)]
    pub names: Vec<String>,
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    #[default]
    Viewer,
    /// Create, start, stop, delete.
    Operator,
    /// Everything.
    Admin,
}

/// A secret, or where it is kept.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum SecretRef {
    /// Sealed by this service's keyring.
    Sealed {
        /// The sealed text.
        sealed: String,
    },
    /// In the environment.
    Env {
        /// The variable.
        env: String,
    },
    /// In a file.
    File {
        /// Its path.
        file: String,
    },
    /// In the configuration itself.
    Plain(String),
}

impl std::fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// One access key.
#[derive(Clone, Debug, Deserialize)]
pub struct AccessKey {
    /// Its id.
    pub ak: String,
    /// Its secret.
    pub sk: SecretRef,
    /// Name or id of its project.
    pub project: String,
    /// What it may do.
    #[serde(default)]
    pub role: Role,
    /// False locks it.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// One user.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// Name.
    pub name: String,
    /// Domain (account) name.
    pub domain: String,
    /// Argon2 hash.
    pub password_hash: Option<String>,
    /// Password in clear; refused when others may read the file.
    pub password: Option<SecretRef>,
    /// What the user may do.
    #[serde(default)]
    pub role: Role,
    /// Names or ids of projects.
    #[serde(default)]
    pub projects: Vec<String>,
    /// False locks the user.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// One object store.
#[derive(Clone, Debug, Deserialize)]
pub struct Store {
    /// What clients write; unique.
    pub region: String,
    /// Vendors it stands for as a source; empty: any.
    #[serde(default)]
    pub cloud_type: Vec<String>,
    /// S3 endpoint.
    #[serde(default)]
    pub endpoint: String,
    /// A directory instead of an endpoint: its subdirectories are the buckets.
    #[serde(default)]
    pub path: String,
    /// Region to sign for.
    #[serde(default = "us_east_1")]
    pub signing_region: String,
    /// `path` or `virtual`.
    #[serde(default = "path")]
    pub addressing: String,
    /// `source`, `destination` or both.
    #[serde(default = "both", rename = "use")]
    pub uses: Vec<String>,
    /// For calls without a region.
    #[serde(default)]
    pub default: bool,
    /// Listing order, when detection is wrong.
    #[serde(default)]
    pub order: Option<Order>,
    /// Names or ids of the projects that may use it, or `*`.
    #[serde(default)]
    pub projects: Vec<String>,
}

/// One Redis instance.
#[derive(Clone, Debug, Deserialize)]
pub struct RedisInstance {
    /// Identity, as DCS calls it.
    pub id: String,
    /// Name.
    pub name: String,
    /// `host:port[,host:port…]`
    pub addrs: String,
    /// User name.
    #[serde(default)]
    pub user: String,
    /// Password.
    #[serde(default)]
    pub password: Option<SecretRef>,
    /// TLS.
    #[serde(default)]
    pub tls: bool,
    /// Authorities that are trusted there instead of the system's, a PEM file.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Names of commands that migrations from or to it skip.
    #[serde(default)]
    pub skip_commands: Vec<String>,
    /// Imports into it skip commands that affect more than single keys if they cannot be applied.
    #[serde(default)]
    pub leave_out_commands: bool,
    /// What happens to libraries of functions that it refuses as a target.
    #[serde(default)]
    pub functions: model::migration::Libraries,
    /// Certificate that is shown there, a PEM file.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// An address of this service at which clients reach the instance, wherever a cut-over puts it.
    #[serde(default)]
    pub listen: Option<String>,
    /// Names or ids of the projects that may use it, or `*`.
    #[serde(default)]
    pub projects: Vec<String>,
}

/// A bucket that backups are imported from.
#[derive(Clone, Debug, Deserialize)]
pub struct BackupSource {
    /// What clients write.
    pub name: String,
    /// `STORE:BUCKET/PREFIX`, or a directory.
    pub location: String,
    /// Access key; none: from the environment, as on the command line, or nobody's.
    #[serde(default)]
    pub ak: Option<String>,
    /// Its secret.
    #[serde(default)]
    pub sk: Option<SecretRef>,
    /// Names or ids of the projects that may use it, or `*`.
    #[serde(default)]
    pub projects: Vec<String>,
}

/// How clients are redirected in a cut-over, in addition to the registry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cutover {
    /// A program and its arguments; it reads a JSON object and may be called again with the same.
    pub hook: Vec<String>,
}

/// Who is told: what an SMN topic URN ends in.
#[derive(Clone, Debug, Deserialize)]
pub struct Notify {
    /// The last component of the URN.
    pub topic: String,
    /// URL to which notifications are posted.
    pub webhook: String,
    /// Signs notifications: `X-Whimbrel-Signature` is the hex HMAC-SHA256 of the body.
    #[serde(default)]
    pub secret: seal::Secret,
}

/// Stands for every project.
const ALL_PROJECTS: &str = "*";

fn yes() -> bool {
    true
}
fn us_east_1() -> String {
    "us-east-1".into()
}
fn path() -> String {
    "path".into()
}
fn both() -> Vec<String> {
    vec!["source".into(), "destination".into()]
}

impl Config {
    /// Id of a project by its name or id.
    pub fn project_id(&self, name: &str) -> Option<&str> {
        let named = |p: &&Project| p.id == name || p.name == name || p.names.iter().any(|n| n == name);
        self.projects.iter().find(named).map(|p| p.id.as_str())
    }

    /// True when the file itself holds a secret that is neither sealed nor kept elsewhere.
    pub(crate) fn has_plain_secrets(&self) -> bool {
        let plain = |secret: &Option<SecretRef>| matches!(secret, Some(SecretRef::Plain(_)));
        self.access_keys.iter().any(|k| matches!(k.sk, SecretRef::Plain(_)))
            || self.users.iter().any(|u| plain(&u.password))
            || self.redis_instances.iter().any(|r| plain(&r.password))
            || self.backup_sources.iter().any(|b| plain(&b.sk))
            || self.notify.iter().any(|n| !n.secret.is_empty())
    }

    /// Ids of the projects that a section is for: of all, where it names none or `*`.
    pub fn owners(&self, projects: &[String]) -> Vec<String> {
        if projects.is_empty() || projects.iter().any(|p| p == ALL_PROJECTS) {
            return self.projects.iter().map(|p| p.id.clone()).collect();
        }
        projects.iter().filter_map(|p| self.project_id(p)).map(str::to_owned).collect()
    }
}
