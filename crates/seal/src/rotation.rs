//! The keyring file while its keys change. The whole protocol of a rotation is written in the module
//! `commands::keys` of the program.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use model::error::{Error, Kind, Reason, Result};

use crate::{B64, FILE, Keyring, random};

/// The keyring file of a data directory, locked against other rotations until it is dropped. The lock is on the
/// directory, because the file itself is replaced.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    _lock: File,
}

fn failed(path: &Path, e: std::io::Error) -> Error {
    let kind = match e.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Kind::ReadOnly,
        ErrorKind::StorageFull => Kind::NoSpace,
        ErrorKind::NotFound => Kind::Invalid,
        _ => Kind::Internal,
    };
    Error::new(kind, "rotate", format!("cannot change {}: {e}", path.display()))
        .because(Reason::KeyRotation)
        .caused_by(e)
}

impl KeyFile {
    /// Locks the keyring file of a data directory.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when another rotation holds it; from the file system.
    pub fn lock(data_dir: &Path) -> Result<Self> {
        let lock = File::open(data_dir).map_err(|e| failed(data_dir, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: data_dir.join(FILE), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let m = format!("another `whimbrel keys rotate` is running on {}", data_dir.display());
                Err(Error::new(Kind::Conflict, "rotate", m).because(Reason::KeyRotation))
            }
            Err(TryLockError::Error(e)) => Err(failed(data_dir, e)),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keyring as it is in the file now.
    ///
    /// # Errors
    /// As [`Keyring::read`].
    pub fn keyring(&self) -> Result<Keyring> {
        Keyring::read(&self.path).map(|(_, keys)| keys)
    }

    /// Puts a fresh key before all others and answers the new keyring; durable when it returns.
    ///
    /// # Errors
    /// When the file cannot be read or replaced; then it is as it was.
    pub fn add(&self) -> Result<Keyring> {
        let (text, keys) = Keyring::read(&self.path)?;
        let numbers = keys.names().filter_map(|name| name.strip_prefix('k')?.parse::<u32>().ok());
        let number = numbers.max().map_or(1, |n| u64::from(n) + 1);
        let key = B64.encode(random::<32>()?);
        let text = format!("k{number} {key}\n{}\n", text.expose().trim_end());
        let keys = Keyring::parse(&text)?;
        replace_file(&self.path, text.as_bytes()).map_err(|e| failed(&self.path, e))?;
        Ok(keys)
    }

    /// Removes every key but the newest and those that are still needed, and answers the names of the removed ones;
    /// durable when it returns.
    ///
    /// # Errors
    /// When the file cannot be read or replaced; then it is as it was.
    pub fn retain(&self, needed: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let (text, _) = Keyring::read(&self.path)?;
        let (mut kept, mut removed) = (String::new(), Vec::new());
        for line in text.expose().lines().map(str::trim).filter(|line| !line.is_empty()) {
            let name = line.split(' ').next().unwrap_or_default();
            if kept.is_empty() || needed(name) {
                kept.push_str(line);
                kept.push('\n');
            } else {
                removed.push(name.to_owned());
            }
        }
        if !removed.is_empty() {
            replace_file(&self.path, kept.as_bytes()).map_err(|e| failed(&self.path, e))?;
        }
        Ok(removed)
    }
}

/// Replaces a file by new content, whole or not at all, with its mode and owner; durable when it returns.
///
/// # Errors
/// From the file system; then the file is as it was.
pub fn replace_file(path: &Path, content: &[u8]) -> std::io::Result<()> {
    // A symbolic link stays one.
    let path = std::fs::canonicalize(path)?;
    let before = std::fs::metadata(&path)?;
    let mut new = path.clone().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    // An earlier attempt that was killed may have left one.
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = write_like(&mut file, &before, content).and_then(|()| std::fs::rename(&new, &path));
    if let Err(e) = written {
        let _ = std::fs::remove_file(&new);
        return Err(e);
    }
    sync_file(&path)
}

fn write_like(file: &mut File, before: &std::fs::Metadata, content: &[u8]) -> std::io::Result<()> {
    let made = file.metadata()?;
    // A command of root must not take the file away from the user of the service.
    if made.uid() != before.uid() {
        fchown(&*file, Some(before.uid()), Some(before.gid()))?;
    } else if made.gid() != before.gid() {
        let _ = fchown(&*file, None, Some(before.gid()));
    }
    file.write_all(content)?;
    file.set_permissions(std::fs::Permissions::from_mode(before.mode() & 0o777))?;
    file.sync_all()
}

/// Makes a file and its name durable.
///
/// # Errors
/// From the file system.
pub fn sync_file(path: &Path) -> std::io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    File::open(&path)?.sync_all()?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn sec_f17_added_key_seals_and_old_key_opens() {
        let dir = tempfile::tempdir().unwrap();
        let old = Keyring::in_data_dir(dir.path()).unwrap().seal("c", b"x").unwrap();
        let file = KeyFile::lock(dir.path()).unwrap();
        let keys = file.add().unwrap();
        assert_eq!(keys.names().collect::<Vec<_>>(), ["k2", "k1"]);
        let new = keys.seal("c", b"y").unwrap();
        assert_eq!((crate::key_of(&old), crate::key_of(&new)), (Some("k1"), Some("k2")));
        assert!(new.starts_with(&crate::mark("k2")));
        let read = file.keyring().unwrap();
        assert_eq!(
            (read.open("c", &old).unwrap(), read.open("c", &new).unwrap()),
            (b"x".to_vec(), b"y".to_vec())
        );
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(file.retain(|name| name == "k1").unwrap(), Vec::<String>::new());
        assert_eq!(file.retain(|_| false).unwrap(), ["k1"]);
        let read = file.keyring().unwrap();
        assert!(read.open("c", &old).is_err() && read.open("c", &new).is_ok());
        assert_eq!((file.add().unwrap().newest(), mode(file.path())), ("k3", 0o600));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn sec_f17_one_rotation_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        Keyring::in_data_dir(dir.path()).unwrap();
        let held = KeyFile::lock(dir.path()).unwrap();
        assert_eq!(KeyFile::lock(dir.path()).unwrap_err().kind, Kind::Conflict);
        drop(held);
        KeyFile::lock(dir.path()).unwrap();
    }

    #[test]
    fn sec_f17_replaced_file_keeps_its_mode_and_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::fs::write(dir.path().join("a.new"), "of a command that was killed").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace_file(&link, b"new").unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), 0o640));
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(!dir.path().join("a.new").exists());
    }
}
