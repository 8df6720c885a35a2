//! Sealed values of the configuration file when the keyring changes.
//!
//! A sealed value is replaced in the text of the file, so that comments and layout stay. A file that cannot be
//! written keeps its values, and the keyring keeps the keys of these.

use std::collections::BTreeMap;
use std::path::Path;

use model::error::{Error, Kind, Result};
use seal::{Keyring, key_of};
use toml::{Table, Value};

use crate::invalid;

/// Context of sealed values.
const CONTEXT: &str = "config";

fn collect(table: &Table, values: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            Value::String(text) if key == "sealed" => values.push(text.clone()),
            Value::Table(table) => collect(table, values),
            Value::Array(list) => list.iter().filter_map(Value::as_table).for_each(|t| collect(t, values)),
            _ => {}
        }
    }
}

fn read(path: &Path) -> Result<(String, Vec<String>)> {
    let bad = |why: String| invalid(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let table: Table = text.parse().map_err(|e: toml::de::Error| bad(e.message().to_owned()))?;
    let mut values = Vec::new();
    collect(&table, &mut values);
    Ok((text, values))
}

fn open(path: &Path, keys: &Keyring, sealed: &str) -> Result<Vec<u8>> {
    let bad = |f: Error| invalid(format!("{}: cannot open a sealed value: {}", path.display(), f.message));
    keys.open(CONTEXT, sealed).map_err(bad)
}

/// Checks that a keyring opens every sealed value of a file.
///
/// # Errors
/// [`Kind::Invalid`] when it does not, or when the file cannot be read.
pub fn check(path: &Path, keys: &Keyring) -> Result<()> {
    read(path)?.1.iter().try_for_each(|sealed| open(path, keys, sealed).map(drop))
}

/// Names of the keys that the sealed values of a file need, and how many values each of them seals.
///
/// # Errors
/// [`Kind::Invalid`] when the file cannot be read.
pub fn keys(path: &Path) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for name in read(path)?.1.iter().filter_map(|sealed| key_of(sealed)) {
        *found.entry(name.to_owned()).or_insert(0) += 1;
    }
    Ok(found)
}

/// Seals the values of a file with the newest key, and answers how many were changed; durable when it returns.
///
/// # Errors
/// [`Kind::Invalid`] when a value cannot be opened, [`Kind::ReadOnly`] when the file cannot be replaced. The file is as
/// it was then.
pub fn reseal(path: &Path, keys: &Keyring) -> Result<u64> {
    let (mut text, values) = read(path)?;
    let mut changed = 0;
    for old in values.iter().filter(|sealed| key_of(sealed) != Some(keys.newest())) {
        let plain = open(path, keys, old)?;
        // A value that is written with escapes is not found; it keeps its key.
        if text.contains(old.as_str()) {
            text = text.replace(old.as_str(), &keys.seal(CONTEXT, &plain)?);
            changed += 1;
        }
    }
    if changed > 0 {
        let failed = |e: std::io::Error| {
            Error::new(Kind::ReadOnly, "configuration", format!("cannot replace {}: {e}", path.display()))
                .caused_by(e)
        };
        seal::replace_file(path, text.as_bytes()).map_err(failed)?;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use seal::KeyFile;

    use super::*;

    #[test]
    fn sec_f17_reseal_changes_only_sealed_values() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.toml");
        let made = crate::template::init(dir.path(), "127.0.0.1:8790").unwrap();
        let redis = "[[redis]]\nid=\"0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f10\"\nname=\"r\"\naddrs=\"h:1\"\n";
        let file = KeyFile::lock(dir.path()).unwrap();
        let sealed = file.keyring().unwrap().seal(CONTEXT, b"pw").unwrap();
        let text = format!("{}{redis}password = {{ sealed = '{sealed}' }} # the old one\n", made.text);
        std::fs::write(&path, &text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(keys(&path).unwrap(), BTreeMap::from([("k1".to_owned(), 2)]));
        let ring = file.add().unwrap();
        check(&path, &ring).unwrap();
        assert_eq!(reseal(&path, &ring).unwrap(), 2);
        assert_eq!(reseal(&path, &ring).unwrap(), 0);
        assert_eq!(keys(&path).unwrap(), BTreeMap::from([("k2".to_owned(), 2)]));
        assert_eq!(file.retain(|name| keys(&path).unwrap().contains_key(name)).unwrap(), ["k1"]);
        let ring = file.keyring().unwrap();
        let config = crate::load(&path, &BTreeMap::new()).unwrap();
        let reveal = |secret| crate::reveal("x", secret, &BTreeMap::new(), &ring).unwrap();
        assert_eq!(reveal(&config.access_keys[0].sk).expose(), made.secret_key);
        assert_eq!(reveal(config.redis_instances[0].password.as_ref().unwrap()).expose(), "pw");
        // All that is not sealed is as it was.
        let now = std::fs::read_to_string(&path).unwrap();
        let rest = |text: &str| {
            let lines = text.lines().map(|line| line.split("v1:").next().unwrap_or_default().to_owned());
            lines.collect::<Vec<_>>()
        };
        assert_eq!(rest(&now), rest(&text));
        assert!(now.contains("# the old one"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn sec_f17_value_sealed_with_another_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.toml");
        let keyring = Keyring::in_data_dir(dir.path()).unwrap();
        // TOML reads `\u003A` as a colon: the value is not in the text as it is sealed.
        let sealed = keyring.seal(CONTEXT, b"pw").unwrap().replacen(':', "\\u003A", 1);
        let text = format!("[[access_key]]\nak = \"A\"\nproject = \"p\"\nsk = {{ sealed = \"{sealed}\" }}\n");
        std::fs::write(&path, &text).unwrap();
        let file = KeyFile::lock(dir.path()).unwrap();
        let ring = file.add().unwrap();
        assert_eq!(reseal(&path, &ring).unwrap(), 0);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let needed = keys(&path).unwrap();
        assert!(file.retain(|name| needed.contains_key(name)).unwrap().is_empty());
        check(&path, &file.keyring().unwrap()).unwrap();
        // A keyring that does not open the values is refused before anything is changed.
        let other = tempfile::tempdir().unwrap();
        let foreign = Keyring::in_data_dir(other.path()).unwrap();
        assert!(check(&path, &foreign).unwrap_err().message.contains("cannot open a sealed value"));
    }
}
