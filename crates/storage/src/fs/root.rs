//! The root of a directory store: every path is opened beneath it, unfinished files stand in a directory of this
//! process's own, and finished ones are moved to their place in one step.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use model::error::{Error, Kind, Result};
use model::key::Key;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::dir_cache::{Cache, Ignored};
use super::error::io_failure;
use super::meta::FileStat;
use super::sidecar::SideFiles;

/// Our own files below the root: temporary files, open uploads, metadata where attributes do not exist.
pub const RESERVED_DIR: &str = ".whimbrel";

#[derive(Debug)]
pub(super) struct Root {
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
    pub(super) cache: Cache,
    pub(super) ignored: Ignored,
    pub(super) side_files: SideFiles,
    pub(super) temp: AtomicU64,
    pub(super) salt: u64,
    /// Where unfinished files of this process are; locked, so that others can tell when it has ended.
    pub(super) temp_dir: OnceLock<OwnedFd>,
}

impl Drop for Root {
    /// Takes our own directories away again when nothing is left in them.
    fn drop(&mut self) {
        let mine = format!("tmp/{:016x}", self.salt);
        for name in [mine.as_str(), "tmp", "uploads", "meta", ""] {
            let path = Path::new(RESERVED_DIR).join(name);
            let _ = rustix::fs::unlinkat(&self.fd, &path, AtFlags::REMOVEDIR);
        }
    }
}

/// The path of a key below the root.
///
/// # Errors
/// [`Kind::InvalidKey`] for keys that no file can have: empty or dotted segments, NUL, over-long names, and
/// our own directory.
pub(super) fn path_of(key: &Key) -> Result<&Path> {
    use std::os::unix::ffi::OsStrExt;
    let refused = |why: &str| Error::new(Kind::InvalidKey, "open", format!("`{key}`: {why}"));
    let bytes = key.as_bytes();
    let bare = bytes.strip_suffix(b"/").unwrap_or(bytes);
    if bare.is_empty() {
        return Err(refused("the file name is empty"));
    }
    for segment in bare.split(|&b| b == b'/') {
        match segment {
            b"" => {
                return Err(refused(
                    "empty path segments (`//` or a leading `/`) are not possible in a directory",
                ));
            }
            b"." | b".." => return Err(refused("`.` and `..` are not valid file names")),
            s if s.len() > 255 => return Err(refused("a name is longer than 255 bytes")),
            s if s.contains(&0) => return Err(refused("a name contains a NUL byte")),
            _ => {}
        }
    }
    if bare.split(|&b| b == b'/').next() == Some(RESERVED_DIR.as_bytes()) {
        return Err(refused("this directory is reserved for whimbrel"));
    }
    Ok(Path::new(std::ffi::OsStr::from_bytes(bare)))
}

fn not_regular(key: &Key, what: &str) -> Error {
    Error::new(Kind::Unsupported, "read", format!("`{key}` is {what}, not a regular file"))
}

impl Root {
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    pub(super) fn dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        self.open(path, OFlags::DIRECTORY | OFlags::RDONLY)
    }

    /// Opens a directory to write in. A listing does not follow links to directories: what is written through one would be
    /// an object under another key as well.
    fn dir_without_links(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve)
    }

    /// Opens a directory below the root and makes what is missing of it, with the modes given from the
    /// outermost on; further ones get the usual mode.
    pub(super) fn make_dir(&self, path: &Path, modes: &[u32]) -> rustix::io::Result<OwnedFd> {
        match self.dir_without_links(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut at = PathBuf::new();
        let mut dir = self.dir(Path::new("."))?;
        for (i, part) in path.components().enumerate() {
            // This process must be able to write below it.
            let mode = modes.get(i).map_or(0o777, |m| m & 0o777 | 0o700);
            match rustix::fs::mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(mode)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            at.push(part);
            dir = self.dir_without_links(&at)?;
        }
        Ok(dir)
    }

    pub(super) fn own(&self, name: &str) -> Result<(OwnedFd, PathBuf)> {
        let path = Path::new(RESERVED_DIR).join(name);
        // What is unfinished has no permissions of its own yet: nobody else reads it.
        let dir = self.make_dir(&path, &[0o700, 0o700]).map_err(|e| match e {
            // Where this cannot be made, nothing can be written at all.
            Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                let m = format!("directory `{}` is not writable: {e}", self.path.display());
                Error::new(Kind::ReadOnly, "write", m)
            }
            e => io_failure("write", &self.path.display(), e),
        })?;
        // One that an earlier version made may be open to all.
        let _ = rustix::fs::fchmod(&dir, Mode::RWXU);
        Ok((dir, path))
    }

    /// The directory for this process's unfinished files. What a killed process left is taken away first.
    pub(super) fn temp_dir(&self) -> Result<&OwnedFd> {
        if let Some(dir) = self.temp_dir.get() {
            return Ok(dir);
        }
        let failed = |e| io_failure("write", &self.path.display(), e);
        let lock = |dir: &OwnedFd| rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive);
        let name = format!("{:016x}", self.salt);
        // Another process may sweep our directory away between its making and its locking.
        loop {
            let (all, _) = self.own("tmp")?;
            for entry in rustix::fs::Dir::read_from(&all).map_err(failed)?.flatten() {
                let other = entry.file_name().to_owned();
                if other.to_bytes().starts_with(b".") || other.to_bytes() == name.as_bytes() {
                    continue;
                }
                let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let Ok(dir) = rustix::fs::openat(&all, &other, flags, Mode::empty()) else { continue };
                if lock(&dir).is_ok() {
                    for file in rustix::fs::Dir::read_from(&dir).map_err(failed)?.flatten() {
                        let _ = rustix::fs::unlinkat(&dir, file.file_name(), AtFlags::empty());
                    }
                    let _ = rustix::fs::unlinkat(&all, &other, AtFlags::REMOVEDIR);
                }
            }
            match rustix::fs::mkdirat(&all, &name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(e)),
            }
            let path = Path::new(RESERVED_DIR).join("tmp").join(&name);
            let dir = match self.dir(&path) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(failed)?,
            };
            // Some network file systems cannot lock: there, nothing is ever swept.
            if matches!(lock(&dir), Err(Errno::WOULDBLOCK)) || self.dir(&path).is_err() {
                // Another I/O thread of this process was first, or a sweeper took it away.
                if let Some(dir) = self.temp_dir.get() {
                    return Ok(dir);
                }
                continue;
            }
            return Ok(self.temp_dir.get_or_init(|| dir));
        }
    }

    pub(super) fn temp_name(&self) -> String {
        format!("{:016x}-{}", self.salt, self.temp.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn stat(&self, key: &Key) -> Result<(File, FileStat)> {
        let path = path_of(key)?;
        let fd =
            self.open(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(|e| self.not_opened(key, path, e))?;
        let file = File::from(fd);
        let stat = FileStat::of(&file).map_err(|e| io_failure("read", key, e))?;
        if !(stat.is_file() || stat.is_dir()) {
            return Err(not_regular(key, "a pipe, socket or device"));
        }
        if stat.is_dir() != key.is_folder() {
            return Err(Error::new(Kind::NotFound, "read", format!("`{key}` is not a file")));
        }
        Ok((file, stat))
    }

    /// Why a file could not be opened. A link that leads nowhere is there all the same: it is not "not found".
    fn not_opened(&self, key: &Key, path: &Path, e: Errno) -> Error {
        let dangling = matches!(e, Errno::NOENT | Errno::LOOP)
            && rustix::fs::statat(&self.fd, path, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        match (dangling, e) {
            (true, _) => not_regular(key, "a broken symbolic link"),
            (false, Errno::XDEV) => not_regular(key, "a symbolic link out of the root"),
            (false, Errno::NXIO) => not_regular(key, "a pipe, socket or device"),
            (false, e) => io_failure("read", key, e),
        }
    }

    /// Removes a directory and those above it, as far as they are empty and nobody wrote them as objects.
    pub(super) fn remove_empty_dirs(&self, deepest: Option<&Path>) {
        let named = deepest.into_iter().flat_map(Path::ancestors).filter(|dir| !dir.as_os_str().is_empty());
        for dir in named {
            let Ok(fd) = self.dir(dir) else { return };
            let key = Key::new([dir.as_os_str().as_encoded_bytes(), b"/"].concat());
            if super::sidecar::is_marker(self, &key, &File::from(fd))
                || rustix::fs::unlinkat(&self.fd, dir, AtFlags::REMOVEDIR).is_err()
            {
                return;
            }
        }
    }

    /// Permissions of the directories on the way to a key, then its own.
    pub(super) fn modes(&self, key: &Key, stat: &FileStat) -> Vec<u32> {
        let Ok(path) = path_of(key) else { return Vec::new() };
        let mut modes: Vec<u32> = path
            .ancestors()
            .skip(1)
            .filter(|a| !a.as_os_str().is_empty())
            .map(|a| {
                let stat = rustix::fs::statat(&self.fd, a, AtFlags::empty());
                stat.map_or(0o777, |s| s.st_mode & 0o777)
            })
            .collect();
        modes.reverse();
        modes.push(stat.mode & 0o777);
        modes
    }
}
