//! The first configuration: one project, one key pair, one admin, and an example of everything else.

use std::path::Path;

use argon2::password_hash::{PasswordHasher, SaltString};
use model::error::{Error, Kind, Result};
use seal::{Keyring, random};

/// A fresh configuration; its secrets are shown once and stored only sealed or hashed.
#[derive(Debug)]
pub struct GeneratedConfig {
    /// The file's text.
    pub text: String,
    /// Project id.
    pub project: String,
    /// Access key id.
    pub access_key: String,
    /// Its secret, in clear.
    pub secret_key: String,
    /// Password of `admin`, in clear.
    pub password: String,
}

fn letters<const N: usize>(alphabet: &[u8]) -> Result<String> {
    let bytes = random::<N>()?;
    Ok(bytes.iter().map(|b| alphabet[usize::from(*b) % alphabet.len()] as char).collect())
}

/// Argon2id hash of a password, in PHC form.
///
/// # Errors
/// When the system has no random bytes.
pub fn hash_password(password: &str) -> Result<String> {
    hash_with(SaltString::encode_b64(&random::<16>()?), password)
}

/// As [`hash_password`], and the same each time for one user and password, so that tokens end when the password changes
/// and not when the service starts again. For hashes that are stored nowhere; `id` is the user's, hexadecimal.
///
/// # Errors
/// When `id` cannot be a salt.
pub fn hash_password_for(id: &str, password: &str) -> Result<String> {
    hash_with(SaltString::from_b64(id), password)
}

fn hash_with(salt: argon2::password_hash::Result<SaltString>, password: &str) -> Result<String> {
    let failed = |e: argon2::password_hash::Error| Error::new(Kind::Internal, "password", e.to_string());
    let salt = salt.map_err(failed)?;
    let hash = argon2::Argon2::default().hash_password(password.as_bytes(), &salt).map_err(failed)?;
    Ok(hash.to_string())
}

/// Makes the data directory, its keyring, and the text of a first configuration.
///
/// # Errors
/// When the directory or the keyring cannot be made.
pub fn init(data_dir: &Path, listen: &str) -> Result<GeneratedConfig> {
    // 32 letters, so that a byte maps evenly.
    const UPPER: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    const MIXED: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789ABCDEFG";
    const HEX: &[u8] = b"0123456789abcdef";
    std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
        .create(data_dir)
        .map_err(|e| {
            Error::new(Kind::ReadOnly, "init", format!("{}: {e}", data_dir.display())).caused_by(e)
        })?;
    let keys = Keyring::in_data_dir(data_dir)?;
    let project = letters::<32>(HEX)?;
    let access_key = format!("WB{}", letters::<18>(UPPER)?);
    let secret_key = letters::<40>(MIXED)?;
    let password = letters::<20>(MIXED)?;
    let sealed = keys.seal("config", secret_key.as_bytes())?;
    let hash = hash_password(&password)?;
    let shown = Shown {
        listen,
        dir: &data_dir.display().to_string(),
        project: &project,
        access_key: &access_key,
        sealed: &sealed,
        hash: &hash,
    };
    let text = template(&shown);
    Ok(GeneratedConfig { text, project, access_key, secret_key, password })
}

/// The values of a first configuration.
struct Shown<'a> {
    listen: &'a str,
    dir: &'a str,
    project: &'a str,
    access_key: &'a str,
    /// The secret key, sealed.
    sealed: &'a str,
    /// Of the password.
    hash: &'a str,
}

/// The text of a first configuration: what is set, and examples of the rest.
fn template(Shown { listen, dir, project, access_key, sealed, hash }: &Shown<'_>) -> String {
    format!(
        r#"# Whimbrel's configuration. Every key can be overridden by WHIMBREL_<SECTION>__<KEY>.
listen   = "{listen}"
data_dir = "{dir}"
database = "sqlite"                # embedded, in data_dir
# metrics_listen = "127.0.0.1:8791" # /metrics of all projects, without authentication

[limits]
running_tasks = 5                  # per project; more tasks are queued
memory = "512MiB"                  # limit of all engine buffers together
inline_endpoints = []              # hosts or CIDRs that requests may use as `region = "http://…"`
redis_endpoints = []               # private hosts or CIDRs that `addrs` of a migration may use

[[project]]
id   = "{project}"
name = "lab"

[[access_key]]
ak = "{access_key}"
sk = {{ sealed = "{sealed}" }}     # or {{ env = "NAME" }} or {{ file = "/path" }}
project = "lab"
role = "operator"                  # admin | operator | viewer

[[user]]
name = "admin"
domain = "lab"
password_hash = "{hash}"
role = "admin"
projects = ["lab"]

# [tls]
# cert = "/path/cert.pem"
# key  = "/path/key.pem"

# [audit]                          # audit lines as JSON lines, in addition to the database
# file = "/var/log/whimbrel/audit.jsonl" # appended to; opened again at SIGHUP
# stdout = false

# [[store]]                        # endpoint for the (cloud_type, region) of a task
# region = "minio-a"               # unique; clients use it as `region`
# cloud_type = ["AWS", "HuaweiCloud"]
# endpoint = "http://10.0.0.5:9000"
# signing_region = "us-east-1"
# addressing = "path"              # or "virtual"
# use = ["source", "destination"]
# default = true
# projects = ["lab"]               # projects that may use it; "*" for all. Required here, in [[redis]] and [[bucket]]
#                                  # when there are several [[project]] sections

# [[store]]
# region = "archive"               # a directory; its subdirectories are the buckets
# path = "/srv/buckets"

# [[redis]]
# id = "0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f10"
# name = "cache-new"
# addrs = "10.0.0.9:6379"
# password = {{ env = "REDIS_PW" }}
# tls = true
# ca = "/path/ca.pem"              # instead of the authorities of this machine
# cert = "/path/client.pem"        # where clients show a certificate, with its key
# key = "/path/client.key"
# skip_commands = ["OPINFO"]       # that migrations from or to it skip
# functions = "stop"               # or "replace", "skip": libraries that it refuses as a target
# listen = "127.0.0.1:6390"        # the service forwards connections to the instance, also after a cut-over

# [cutover]
# hook = ["/usr/local/bin/repoint"] # receives a JSON object with both ends

# [[bucket]]                       # where backups are imported from
# name = "redis-backups"
# location = "minio-a:backups/redis" # or a directory
# ak = "…"                         # default: from the environment, or anonymous
# sk = {{ env = "BACKUP_SK" }}

# [[notify]]
# topic = "ops"
# webhook = "https://hooks.example/whimbrel"
"#
    )
}
