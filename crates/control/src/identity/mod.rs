//! Who calls: access keys, users, projects, tokens (auth.md).

mod audit_limit;
mod caller_known;
pub mod password;
mod password_queue;
mod sign_in;
mod sign_in_failures;
pub mod signature;
pub mod token;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use config::{Config, Role};
use model::error::Result;
use seal::{Keyring, Secret};

pub use audit_limit::AuditLimit;
pub use caller_known::CallerKnown;
pub use sign_in::{Account, SignInRefused};
pub use sign_in_failures::{NAME_MAX, SignInFailures};

/// A project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Identity.
    pub id: String,
    /// Name.
    pub name: String,
    /// Further names.
    pub names: Vec<String>,
}

/// An access key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its secret.
    pub secret: Secret,
    /// Project id.
    pub project: String,
    /// What it may do.
    pub role: Role,
    /// Not locked.
    pub enabled: bool,
}

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// Name.
    pub name: String,
    /// Identity, derived from the name.
    pub id: String,
    /// Domain name.
    pub domain: String,
    /// Argon2 hash.
    pub hash: String,
    /// What the user may do.
    pub role: Role,
    /// Project ids.
    pub projects: Vec<String>,
    /// Not locked.
    pub enabled: bool,
}

/// Who was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// A user's id, or `ak:` and an access key id, as tokens are issued to it.
    pub subject: String,
    /// Access key or user name, for the audit trail.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Project ids that it may name in a path.
    pub projects: Vec<String>,
}

/// Everyone known, from the configuration.
pub struct Directory {
    inner: RwLock<Arc<Accounts>>,
    /// Failures in a row, to make guessing slow.
    pub failures: SignInFailures,
    /// Refusals that are written down.
    pub audit_limit: AuditLimit,
    /// Where passwords are checked.
    pub passwords: password::PasswordQueue,
    /// Said once: a client signs its requests without their bodies.
    pub unprotected: std::sync::Once,
}

/// What [`Directory`] holds at one time.
#[derive(Debug, Default)]
pub struct Accounts {
    /// By id.
    pub projects: Vec<Project>,
    /// By access key id.
    pub keys: HashMap<String, Key>,
    /// Users.
    pub users: Vec<User>,
}

/// A stable identity out of a name: 32 hex digits.
pub fn id_of(kind: &str, name: &str) -> String {
    storage::checksum::sha256_hex(format!("{kind}\0{name}").as_bytes())[..32].to_owned()
}

/// The identity of a user: a name is one user's within a domain only.
pub fn user_id(domain: &str, name: &str) -> String {
    id_of("user", &format!("{domain}\0{name}"))
}

impl Directory {
    /// Reads everyone from a configuration.
    ///
    /// # Errors
    /// When a secret cannot be found or opened.
    pub fn new(config: &Config, env: &BTreeMap<String, String>, keys: &Keyring) -> Result<Self> {
        let accounts = Accounts::read(config, env, keys)?;
        Ok(Self {
            inner: RwLock::new(Arc::new(accounts)),
            failures: SignInFailures::default(),
            audit_limit: AuditLimit::default(),
            passwords: password::PasswordQueue::default(),
            unprotected: std::sync::Once::new(),
        })
    }

    /// Takes over a changed configuration; on error everything stays as it was.
    ///
    /// # Errors
    /// As [`Directory::new`].
    pub fn reload(&self, config: &Config, env: &BTreeMap<String, String>, keys: &Keyring) -> Result<()> {
        let accounts = Accounts::read(config, env, keys)?;
        *self.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(accounts);
        Ok(())
    }

    /// Everyone, now.
    pub fn accounts(&self) -> Arc<Accounts> {
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Accounts {
    fn read(config: &Config, env: &BTreeMap<String, String>, keyring: &Keyring) -> Result<Self> {
        let mut accounts = Accounts::default();
        for p in &config.projects {
            accounts.projects.push(Project {
                id: p.id.clone(),
                name: p.name.clone(),
                names: p.names.clone(),
            });
        }
        let project_id = |name: &str| config.project_id(name).unwrap_or_default().to_owned();
        for k in &config.access_keys {
            let secret = config::reveal(&format!("`sk` of access key {}", k.ak), &k.sk, env, keyring)?;
            let key = Key { secret, project: project_id(&k.project), role: k.role, enabled: k.enabled };
            accounts.keys.insert(k.ak.clone(), key);
        }
        for u in &config.users {
            let id = user_id(&u.domain, &u.name);
            let hash = match (&u.password_hash, &u.password) {
                (Some(hash), _) => hash.clone(),
                (None, Some(plain)) => {
                    let plain =
                        config::reveal(&format!("`password` of user {}", u.name), plain, env, keyring)?;
                    config::template::hash_password_for(&id, plain.expose())?
                }
                (None, None) => String::new(),
            };
            accounts.users.push(User {
                name: u.name.clone(),
                id,
                domain: u.domain.clone(),
                hash,
                role: u.role,
                projects: u.projects.iter().map(|p| project_id(p)).collect(),
                enabled: u.enabled,
            });
        }
        Ok(accounts)
    }

    /// A user by id.
    pub fn user(&self, id: &str) -> Option<&User> {
        self.users.iter().find(|u| u.id == id)
    }

    /// A project by id.
    pub fn project(&self, id: &str) -> Option<&Project> {
        self.projects.iter().find(|p| p.id == id)
    }

    /// The domain that everything belongs to when nothing else is said: the first user's, or `default`.
    pub fn domain(&self) -> String {
        self.users.first().map_or_else(|| "default".to_owned(), |u| u.domain.clone())
    }
}

/// The word of a role, as the configuration spells it.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// Compares two secrets in constant time.
pub fn same(a: &str, b: &str) -> bool {
    use subtle::ConstantTimeEq;
    bool::from(a.as_bytes().ct_eq(b.as_bytes()))
}
