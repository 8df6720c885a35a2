//! The configuration file: one TOML file, every key known, every value overridable by the environment.

mod keys;
mod sections;
mod size;
pub mod template;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::failure::{Failure, Kind, Result};
use seal::Keyring;

pub use sections::{
    AccessKey, Bucket, Config, Cutover, Limits, Notify, Project, RedisInstance, Role, SecretRef, Store, Tls,
    User,
};
pub use size::bytes_of;

pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Kind::Invalid, "configuration", message)
}

/// Reads a configuration text; `env` holds the process environment.
///
/// # Errors
/// [`Kind::Invalid`] naming the key, what is wrong with it, and the nearest valid key.
pub fn parse(text: &str, env: &BTreeMap<String, String>) -> Result<Config> {
    let mut table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| invalid(e.message().to_owned()))?;
    keys::check(&table)?;
    keys::override_by(&mut table, env)?;
    let config: Config = table.try_into().map_err(|e: toml::de::Error| invalid(e.message().to_owned()))?;
    config.validate()?;
    Ok(config)
}

/// Reads a configuration file.
///
/// # Errors
/// As [`parse`]; also when the file cannot be read, or holds a password and others may read it.
pub fn load(path: &Path, env: &BTreeMap<String, String>) -> Result<Config> {
    let text = std::fs::read_to_string(path).map_err(|e| invalid(format!("{}: {e}", path.display())))?;
    let config = parse(&text, env)
        .map_err(|f| Failure { message: format!("{}: {}", path.display(), f.message), ..f })?;
    let plain = config.user.iter().any(|u| u.password.is_some());
    if plain && others_may_read(path) {
        let m =
            format!("{} holds a password and may be read by others; run `chmod 600` on it", path.display());
        return Err(invalid(m));
    }
    Ok(config)
}

fn others_may_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o044 != 0)
}

/// The value of a secret, wherever it is kept.
///
/// # Errors
/// [`Kind::Invalid`] naming the variable or file that is missing.
pub fn reveal(
    what: &str,
    secret: &SecretRef,
    env: &BTreeMap<String, String>,
    keys: &Keyring,
) -> Result<seal::Secret> {
    match secret {
        SecretRef::Plain(text) => Ok(seal::Secret::new(text.clone())),
        SecretRef::Env { env: name } => {
            let value =
                env.get(name).ok_or_else(|| invalid(format!("{what}: the variable {name} is not set")))?;
            Ok(seal::Secret::new(value.clone()))
        }
        SecretRef::File { file } => {
            let text = std::fs::read_to_string(file).map_err(|e| invalid(format!("{what}: {file}: {e}")))?;
            Ok(seal::Secret::new(text.trim_end_matches(['\n', '\r'])))
        }
        SecretRef::Sealed { sealed } => {
            let plain = keys.open("config", sealed).map_err(|f| invalid(format!("{what}: {}", f.message)))?;
            Ok(seal::Secret::new(String::from_utf8_lossy(&plain).into_owned()))
        }
    }
}

/// Where the keyring of a data directory lives.
pub fn keyring_path(data_dir: &Path) -> PathBuf {
    data_dir.join("seal.key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn err(text: &str) -> String {
        parse(text, &BTreeMap::new()).unwrap_err().message
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        assert_eq!(err("lisen = \"x\""), "unknown key `lisen`; did you mean `listen`?");
        assert_eq!(
            err("[limits]\nrunning_task = 1"),
            "unknown key `limits.running_task`; did you mean `running_tasks`?"
        );
        assert!(err("[[store]]\nregion = \"a\"\nendpont = \"b\"").contains("did you mean `endpoint`?"));
    }

    #[test]
    fn the_environment_overrides() {
        let env = BTreeMap::from([
            ("WHIMBREL_LIMITS__RUNNING_TASKS".to_owned(), "9".to_owned()),
            ("WHIMBREL_LISTEN".to_owned(), "127.0.0.1:1".to_owned()),
        ]);
        let config = parse("", &env).unwrap();
        assert_eq!((config.limits.running_tasks, config.listen.as_str()), (9, "127.0.0.1:1"));
    }

    #[test]
    fn values_are_checked_with_their_names() {
        assert!(err("[limits]\nmemory = \"lots\"").contains("limits.memory"));
        let twice =
            "[[store]]\nregion=\"a\"\nendpoint=\"http://h\"\n[[store]]\nregion=\"a\"\nendpoint=\"http://h\"";
        assert!(err(twice).contains("region `a` is used twice"));
        let lost = "[[access_key]]\nak=\"AK\"\nsk=\"x\"\nproject=\"nope\"";
        assert!(err(lost).contains("no [[project]] is named `nope`"));
    }

    #[test]
    fn the_template_is_valid_and_complete() {
        let dir = tempfile::tempdir().unwrap();
        let made = template::init(dir.path(), "127.0.0.1:8790").unwrap();
        let config = parse(&made.text, &BTreeMap::new()).unwrap();
        assert_eq!(config.project.len(), 1);
        let keys = Keyring::open_or_create(&keyring_path(dir.path())).unwrap();
        let sk = reveal("sk", &config.access_key[0].sk, &BTreeMap::new(), &keys).unwrap();
        assert_eq!(sk.expose(), made.secret_key);
        assert!(!made.text.contains(&made.secret_key) && !made.text.contains(&made.password));
    }
}
