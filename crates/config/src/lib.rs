//! The configuration file: one TOML file, every key known, every value overridable by the environment.

mod keys;
pub mod sealed;
mod sections;
mod size;
pub mod template;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::error::{Error, Kind, Result};
use seal::Keyring;

pub use sections::{
    AccessKey, Audit, BackupSource, Config, Cutover, Limits, Notify, Project, RedisInstance, Role, SecretRef,
    Store, Tls, User,
};
pub use size::bytes_of;

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "configuration", message)
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
/// As [`parse`]; also when the file cannot be read, or holds a secret in clear and others may read it.
pub fn load(path: &Path, env: &BTreeMap<String, String>) -> Result<Config> {
    let text = std::fs::read_to_string(path).map_err(|e| invalid(format!("{}: {e}", path.display())))?;
    let config = parse(&text, env)
        .map_err(|f| Error { message: format!("{}: {}", path.display(), f.message), ..f })?;
    if config.has_plain_secrets() {
        seal::check_private(path)?;
    }
    Ok(config)
}

/// The value of a secret, wherever it is kept.
///
/// # Errors
/// [`Kind::Invalid`] naming the variable or file that is missing, or the key whose value is empty: an empty secret would be
/// equal to one that nobody sent.
pub fn reveal(
    what: &str,
    secret: &SecretRef,
    env: &BTreeMap<String, String>,
    keys: &Keyring,
) -> Result<seal::Secret> {
    let found = read_secret(what, secret, env, keys)?;
    if found.expose().trim().is_empty() {
        let from = match secret {
            SecretRef::Plain(_) | SecretRef::Sealed { .. } => "its value".to_owned(),
            SecretRef::Env { env } => format!("the variable {env}"),
            SecretRef::File { file } => file.clone(),
        };
        return Err(invalid(format!(
            "{what}: {from} is empty; hint: write a secret there, or remove the key"
        )));
    }
    Ok(found)
}

fn read_secret(
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
            seal::check_private(Path::new(file))?;
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
    data_dir.join(seal::FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn err(text: &str) -> String {
        parse(text, &BTreeMap::new()).unwrap_err().message
    }

    #[test]
    fn unknown_key_suggests_the_nearest_name() {
        assert_eq!(err("lisen = \"x\""), "unknown key `lisen`; did you mean `listen`?");
        assert_eq!(
            err("[limits]\nrunning_task = 1"),
            "unknown key `limits.running_task`; did you mean `running_tasks`?"
        );
        assert!(err("[[store]]\nregion = \"a\"\nendpont = \"b\"").contains("did you mean `endpoint`?"));
    }

    /// A file that is not valid is refused with words, whatever it holds.
    #[test]
    fn fuzz_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let made = template::init(&dir.path().join("data"), "127.0.0.1:8790").unwrap();
        let every: String = made.text.lines().map(|l| format!("{}\n", l.trim_start_matches("# "))).collect();
        let corpus = [
            made.text.clone(),
            every,
            "[[store]]\nregion=\"a\"\nendpoint=\"http://h\"\nuse=[\"source\"]\n".into(),
        ];
        testkit::fuzz::fuzz("configuration", &corpus.map(String::into_bytes), |input, random| {
            let text = String::from_utf8_lossy(input);
            let value = text.chars().skip(random.usize(..text.len().max(1))).take(20).collect();
            let env = BTreeMap::from([("WHIMBREL_LIMITS__MEMORY".to_owned(), value)]);
            for env in [BTreeMap::new(), env] {
                match parse(&text, &env) {
                    Ok(config) => assert!(config.limits.memory_bytes() >= 16 << 20),
                    Err(failure) => assert!(!failure.message.is_empty()),
                }
            }
        });
    }

    #[test]
    fn sec_f38_empty_secrets_are_refused_by_the_name_of_their_key() {
        let dir = tempfile::tempdir().unwrap();
        let made = template::init(&dir.path().join("data"), "127.0.0.1:8790").unwrap();
        let keys = Keyring::in_data_dir(&dir.path().join("data")).unwrap();
        drop(made);
        let file = dir.path().join("secret");
        std::fs::write(&file, "\n").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let env = BTreeMap::from([("EMPTY".to_owned(), String::new())]);
        for secret in [
            SecretRef::Plain(String::new()),
            SecretRef::Plain(" ".into()),
            SecretRef::Env { env: "EMPTY".into() },
            SecretRef::File { file: file.display().to_string() },
        ] {
            let refused = reveal("sk of access key AK", &secret, &env, &keys).unwrap_err();
            assert!(
                refused.message.contains("sk of access key AK") && refused.message.contains("empty"),
                "{refused}"
            );
        }
    }

    #[test]
    fn sec_f04_allowed_endpoints_that_match_nothing_are_refused() {
        let of =
            |key: &str, entry: &str| parse(&format!("[limits]\n{key} = [\"{entry}\"]"), &BTreeMap::new());
        for key in ["inline_endpoints", "redis_endpoints"] {
            for entry in [
                "10.0.0.0/33",
                "http://a.example",
                "a.example:9000",
                "*.example",
                "",
                "a b",
                "::/129",
                "host/8",
            ] {
                let refused = of(key, entry).unwrap_err().message;
                assert!(refused.contains(key) && refused.contains(entry), "{refused}");
            }
            for entry in ["10.0.0.0/8", "a.example", "A.example.", "127.0.0.1", "fd00::/8", "[::1]", "::1"] {
                assert!(of(key, entry).is_ok(), "{entry}");
            }
        }
    }

    #[test]
    fn sec_f03_names_that_no_request_can_carry_are_refused() {
        for text in [
            "[[project]]\nid=\"a/b\"\nname=\"n\"",
            "[[project]]\nid=\"..\"\nname=\"n\"",
            "[[project]]\nid=\"\"\nname=\"n\"",
            "[[project]]\nid=\"p\"\nname=\"n\"\n[[access_key]]\nak=\"A K\"\nsk=\"x\"\nproject=\"p\"",
            "[[project]]\nid=\"p\"\nname=\"n\"\n[[access_key]]\nak=\"A/K\"\nsk=\"x\"\nproject=\"p\"",
            "[[user]]\nname=\"\"\ndomain=\"d\"\npassword_hash=\"x\"",
            "[[user]]\nname=\"u\"\ndomain=\"d\"\npassword_hash=\"\"",
        ] {
            assert!(err(text).contains("must") || err(text).contains("empty"), "{text}: {}", err(text));
        }
    }

    #[test]
    fn environment_overrides_the_file() {
        let env = BTreeMap::from([
            ("WHIMBREL_LIMITS__RUNNING_TASKS".to_owned(), "9".to_owned()),
            ("WHIMBREL_LISTEN".to_owned(), "127.0.0.1:1".to_owned()),
        ]);
        let config = parse("", &env).unwrap();
        assert_eq!((config.limits.running_tasks, config.listen.as_str()), (9, "127.0.0.1:1"));
    }

    #[test]
    fn invalid_values_are_reported_by_name() {
        assert!(err("[limits]\nmemory = \"lots\"").contains("limits.memory"));
        assert!(err("[audit]\nfile = \"\"").contains("audit.file"));
        assert!(err("[audit]\nfiles = \"x\"").contains("did you mean `file`?"));
        let twice =
            "[[store]]\nregion=\"a\"\nendpoint=\"http://h\"\n[[store]]\nregion=\"a\"\nendpoint=\"http://h\"";
        assert!(err(twice).contains("region `a` is used twice"));
        let lost = "[[access_key]]\nak=\"AK\"\nsk=\"x\"\nproject=\"nope\"";
        assert!(err(lost).contains("there is no [[project]] with the name `nope`"));
    }

    #[test]
    fn sec_f05_sections_must_name_their_project() {
        let projects = "[[project]]\nid=\"a\"\nname=\"one\"\n[[project]]\nid=\"b\"\nname=\"two\"\n";
        let uuid = "0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f10";
        let sections = [
            ("store", "region=\"s\"\nendpoint=\"http://h\"\n".to_owned()),
            ("redis", format!("id=\"{uuid}\"\nname=\"r\"\naddrs=\"h:1\"\n")),
            ("bucket", "name=\"k\"\nlocation=\"/srv\"\n".to_owned()),
        ];
        for (section, keys) in sections {
            let text = |more: &str| format!("{projects}[[{section}]]\n{keys}{more}");
            assert!(err(&text("")).contains("several projects"), "{section}");
            assert!(
                err(&text("projects=[\"three\"]")).contains("there is no [[project]] with the name `three`"),
                "{section}"
            );
            for named in ["one", "a", "*"] {
                parse(&text(&format!("projects=[\"{named}\"]")), &BTreeMap::new()).unwrap();
            }
            // One project has everything.
            let alone = format!("[[project]]\nid=\"a\"\nname=\"one\"\n[[{section}]]\n{keys}");
            parse(&alone, &BTreeMap::new()).unwrap();
        }
        let apart = format!(
            "{projects}[[store]]\nregion=\"s\"\nendpoint=\"http://h\"\nprojects=[\"one\"]\n\
             [[bucket]]\nname=\"k\"\nlocation=\"s:b/p\"\nprojects=[\"two\"]\n"
        );
        assert!(err(&apart).contains("its [[store]] `s` is not"), "{}", err(&apart));
    }

    #[test]
    fn template_is_valid_and_complete() {
        let dir = tempfile::tempdir().unwrap();
        let made = template::init(dir.path(), "127.0.0.1:8790").unwrap();
        let config = parse(&made.text, &BTreeMap::new()).unwrap();
        assert_eq!(config.projects.len(), 1);
        let keys = Keyring::open_or_create(&keyring_path(dir.path())).unwrap();
        let sk = reveal("sk", &config.access_keys[0].sk, &BTreeMap::new(), &keys).unwrap();
        assert_eq!(sk.expose(), made.secret_key);
        assert!(!made.text.contains(&made.secret_key) && !made.text.contains(&made.password));
    }

    #[test]
    fn sec_f03_users_are_identified_by_name_and_domain() {
        let user = |domain: &str| {
            format!("[[user]]\nname = \"alice\"\ndomain = \"{domain}\"\npassword_hash = \"$argon2id$x\"\n")
        };
        assert!(parse(&(user("da") + &user("db")), &BTreeMap::new()).is_ok());
        assert!(err(&(user("da") + &user("da"))).contains("`alice` is listed twice in domain `da`"));
    }

    #[test]
    fn sec_f32_plain_password_hash_is_stable_per_user() {
        let (a, b) = ("0123456789abcdef0123456789abcdef", "f123456789abcdef0123456789abcdef");
        let hash = |id: &str, password: &str| template::hash_password_for(id, password).unwrap();
        assert_eq!(hash(a, "secret"), hash(a, "secret"));
        assert_ne!(hash(a, "secret"), hash(b, "secret"));
        assert_ne!(hash(a, "secret"), hash(a, "other"));
    }

    #[test]
    fn sec_f29_file_with_plain_secret_must_be_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.toml");
        let project = "[[project]]\nid=\"p\"\nname=\"p\"\n";
        let redis = "[[redis]]\nid=\"0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f10\"\nname=\"r\"\naddrs=\"h:1\"\n";
        let user = "[[user]]\nname=\"u\"\ndomain=\"d\"\n";
        for (text, secret) in [
            (format!("{project}[[access_key]]\nak=\"A\"\nproject=\"p\"\nsk=\"x\"\n"), true),
            (format!("{project}[[access_key]]\nak=\"A\"\nproject=\"p\"\nsk={{env=\"X\"}}\n"), false),
            (format!("{redis}password=\"x\"\n"), true),
            (redis.to_owned(), false),
            (format!("{user}password=\"x\"\n"), true),
            (format!("{user}password={{env=\"X\"}}\n"), false),
            ("[[bucket]]\nname=\"b\"\nlocation=\"/b\"\nak=\"A\"\nsk=\"x\"\n".to_owned(), true),
            ("[[notify]]\ntopic=\"t\"\nwebhook=\"http://h\"\nsecret=\"x\"\n".to_owned(), true),
        ] {
            std::fs::write(&path, &text).unwrap();
            for mode in [0o644, 0o640, 0o604] {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
                assert_eq!(load(&path, &BTreeMap::new()).is_err(), secret, "{mode:o} {text}");
            }
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            load(&path, &BTreeMap::new()).unwrap();
        }
    }
}
