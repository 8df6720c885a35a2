//! Secrets: a type that cannot be printed, and a keyring that seals them at rest with AES-256-GCM.

mod rotation;

use std::fmt;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as B64;
use model::error::{Error, Kind, Reason, Result};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

pub use rotation::{KeyFile, replace_file, sync_file};

/// Text that must not be seen: it prints as `***` and leaves only by [`Secret::expose`].
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; every use is a place to look at in review.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True when there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The keyring's name in a data directory.
pub const FILE: &str = "seal.key";

/// A file that holds secrets is its owner's alone.
///
/// # Errors
/// [`Kind::Invalid`] when its mode lets anybody else in.
pub fn check_private(path: &Path) -> Result<()> {
    let mode = std::fs::metadata(path).map_or(0, |m| m.permissions().mode());
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let m = format!(
        "{} contains secrets and has mode {:03o}, which permits access by others",
        path.display(),
        mode & 0o777
    );
    Err(Error::new(Kind::Invalid, "mode", m).because(Reason::FileMode))
}

/// Makes a directory that is its owner's alone, and one that is there already so.
///
/// # Errors
/// From the file system.
pub fn private_dir(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

/// Random bytes from the operating system.
///
/// # Errors
/// When the system has none to give.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::new(Kind::Internal, "random", "the system random number generator failed"))?;
    Ok(bytes)
}

/// Name of the key that sealed a text; none: the text is not a sealed secret.
pub fn key_of(sealed: &str) -> Option<&str> {
    let (name, _) = sealed.strip_prefix("v1:")?.split_once(':')?;
    Some(name)
}

/// The first characters of every text that the key `name` sealed.
pub fn mark(name: &str) -> String {
    format!("v1:{name}:")
}

/// Keys by name: the first seals, any opens, so that a key can be changed without losing what it sealed.
pub struct Keyring {
    keys: Vec<(String, LessSafeKey)>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

/// The keyring is missing or cannot be parsed.
fn unusable(why: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "keyring", why).because(Reason::Keyring)
}

impl Keyring {
    /// Reads a keyring: one `name base64-of-32-bytes` a line, the newest first.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming the line that is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let mut keys = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let bad = || unusable(format!("line {} of the keyring is not `name base64-of-32-bytes`", i + 1));
            let (id, key) = line.trim().split_once(' ').ok_or_else(bad)?;
            let key = B64.decode(key.trim()).map_err(|_| bad())?;
            let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| bad())?;
            keys.push((id.to_owned(), LessSafeKey::new(key)));
        }
        if keys.is_empty() {
            return Err(unusable("the keyring is empty"));
        }
        Ok(Self { keys })
    }

    /// Reads a keyring file; answers its text too.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the file cannot be read or understood, or may be read by others.
    pub fn read(path: &Path) -> Result<(Secret, Self)> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|e| unusable(format!("cannot read {}: {e}", path.display())).caused_by(e))?;
        check_private(path)?;
        let keys = Self::parse(&text)?;
        Ok((Secret::new(text), keys))
    }

    /// Names of the keys, the newest first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(name, _)| name.as_str())
    }

    /// Name of the key that seals.
    pub fn newest(&self) -> &str {
        &self.keys[0].0
    }

    /// True when the key that sealed a text is in the ring.
    pub fn holds(&self, sealed: &str) -> bool {
        key_of(sealed).is_some_and(|name| self.names().any(|n| n == name))
    }

    /// The keyring of a data directory. A new one is created only if there is no database yet: for an existing one, it would
    /// open nothing that the database holds.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if it is missing and there is a database, or may be read by others; when it cannot be read or made.
    pub fn in_data_dir(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(FILE);
        if !path.exists() && data_dir.join("whimbrel.db").exists() {
            let m = format!(
                "{} is missing; it is required to open the secrets in {}",
                path.display(),
                data_dir.join("whimbrel.db").display()
            );
            return Err(unusable(m));
        }
        Self::open_or_create(&path)
    }

    /// Opens the keyring file, or makes one with a fresh key, readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be read, made or understood, or may be read by others.
    pub fn open_or_create(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| {
            Error::new(Kind::Internal, "keyring", format!("{}: {e}", path.display()))
                .because(Reason::Keyring)
                .caused_by(e)
        };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                check_private(path)?;
                Self::parse(&text)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let text = format!("k1 {}\n", B64.encode(random::<32>()?));
                // Whole or not at all: a file that was cut short would be a key that is lost.
                let new = path.with_extension(format!("key.{}", std::process::id()));
                let _ = std::fs::remove_file(&new);
                let mut options = std::fs::OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
                let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
                let linked = written.and_then(|()| std::fs::hard_link(&new, path));
                let _ = std::fs::remove_file(&new);
                linked.map_err(failed)?;
                if let Some(dir) = path.parent() {
                    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
                }
                Self::parse(&text)
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// Seals `plain`; `context` names what it belongs to, and opening demands the same.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<String> {
        self.seal_with(0, context, plain)
    }

    /// As [`Keyring::seal`], with the oldest key: for the proof of a database whose rows may be of any key.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn seal_oldest(&self, context: &str, plain: &[u8]) -> Result<String> {
        self.seal_with(self.keys.len() - 1, context, plain)
    }

    fn seal_with(&self, at: usize, context: &str, plain: &[u8]) -> Result<String> {
        let (id, key) = &self.keys[at];
        let nonce = random::<NONCE_LEN>()?;
        let mut data = plain.to_vec();
        let sealed = key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context.as_bytes()),
            &mut data,
        );
        sealed.map_err(|_| Error::new(Kind::Internal, "seal", "cannot seal the secret"))?;
        Ok(format!("v1:{id}:{}:{}", B64.encode(nonce), B64.encode(data)))
    }

    /// Opens what [`Keyring::seal`] made.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the key is not in the ring or the text was altered.
    pub fn open(&self, context: &str, sealed: &str) -> Result<Vec<u8>> {
        let bad = |why: &str| Error::new(Kind::Invalid, "unseal", why).because(Reason::SecretNotOpened);
        let mut fields = sealed.split(':');
        let (Some("v1"), Some(id), Some(nonce), Some(data), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(bad("not a sealed secret"));
        };
        let key = self.keys.iter().find(|(k, _)| k == id);
        let (_, key) = key.ok_or_else(|| bad("the key of this sealed secret is not in the keyring"))?;
        let nonce = B64.decode(nonce).ok().and_then(|n| n.try_into().ok());
        let nonce: [u8; NONCE_LEN] = nonce.ok_or_else(|| bad("the sealed secret is corrupt"))?;
        let mut data = B64.decode(data).map_err(|_| bad("the sealed secret is corrupt"))?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = key.open_in_place(nonce, Aad::from(context.as_bytes()), &mut data);
        plain
            .map(|p| p.to_vec())
            .map_err(|_| bad("the sealed secret was modified or belongs to another record"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(ids: &[(&str, u8)]) -> Keyring {
        let text: String = ids.iter().map(|(id, b)| format!("{id} {}\n", B64.encode([*b; 32]))).collect();
        Keyring::parse(&text).unwrap()
    }

    #[test]
    fn sealed_value_opens_only_unchanged_and_in_its_context() {
        let keys = ring(&[("k1", 1)]);
        let sealed = keys.seal("task 1", b"sk").unwrap();
        assert_eq!(keys.open("task 1", &sealed).unwrap(), b"sk");
        assert!(keys.open("task 2", &sealed).is_err());
        assert!(keys.open("task 1", &sealed.replace("v1:k1", "v1:k2")).is_err());
        let mut altered = sealed.into_bytes();
        let last = altered.len() - 3;
        altered[last] = if altered[last] == b'A' { b'B' } else { b'A' };
        assert!(keys.open("task 1", &String::from_utf8(altered).unwrap()).is_err());
    }

    #[test]
    fn older_key_opens_sealed_values() {
        let old = ring(&[("k1", 1)]).seal("c", b"x").unwrap();
        assert_eq!(ring(&[("k2", 2), ("k1", 1)]).open("c", &old).unwrap(), b"x");
        assert!(ring(&[("k2", 2)]).open("c", &old).is_err());
    }

    #[test]
    fn secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("hidden")), "***");
    }

    #[test]
    fn sec_f17_key_is_not_created_beside_an_existing_database() {
        let dir = tempfile::tempdir().unwrap();
        let made = Keyring::in_data_dir(dir.path()).unwrap().seal("c", b"x").unwrap();
        std::fs::write(dir.path().join("whimbrel.db"), b"").unwrap();
        assert_eq!(Keyring::in_data_dir(dir.path()).unwrap().open("c", &made).unwrap(), b"x");
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        let refused = Keyring::in_data_dir(dir.path()).unwrap_err();
        assert!(refused.kind == Kind::Invalid && refused.message.contains("is missing"), "{refused}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was left there");
    }

    #[test]
    fn sec_f33_key_file_readable_by_others_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        Keyring::open_or_create(&path).unwrap();
        for (mode, fine) in [(0o644, false), (0o640, false), (0o660, false), (0o600, true), (0o400, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Keyring::open_or_create(&path).is_ok(), fine, "{mode:o}");
        }
    }
}
