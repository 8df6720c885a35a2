//! Metadata of a file: what the file system knows, and what stands beside the file.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use model::key::Key;
use rustix::fs::FileType;

use super::root::Root;
use super::sidecar;
use crate::etag::Etag;
use crate::meta::Meta;

/// A time of the file system: seconds and nanoseconds.
type Time = (i64, i64);

/// What the file system knows of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileStat {
    pub(super) kind: FileType,
    /// Permissions.
    pub(super) mode: u32,
    pub(super) size: u64,
    inode: u64,
    modified: Time,
    changed: Time,
}

impl From<rustix::fs::Stat> for FileStat {
    fn from(stat: rustix::fs::Stat) -> Self {
        let ns = |ns: u64| i64::try_from(ns).unwrap_or(0);
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            inode: stat.st_ino,
            modified: (stat.st_mtime, ns(stat.st_mtime_nsec)),
            changed: (stat.st_ctime, ns(stat.st_ctime_nsec)),
        }
    }
}

impl FileStat {
    pub(super) fn of(file: impl AsFd) -> rustix::io::Result<Self> {
        rustix::fs::fstat(file).map(Self::from)
    }

    pub(super) fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub(super) fn modified_ms(&self) -> i64 {
        milliseconds(self.modified)
    }

    /// When its content, name or metadata changed last.
    pub(super) fn changed_ms(&self) -> i64 {
        milliseconds(self.changed)
    }

    /// When its content changed last, nanoseconds.
    pub(super) fn modified_ns(&self) -> i128 {
        nanoseconds(self.modified)
    }
}

fn milliseconds((s, ns): Time) -> i64 {
    s * 1000 + ns / 1_000_000
}

fn nanoseconds((s, ns): Time) -> i128 {
    i128::from(s) * 1_000_000_000 + i128::from(ns)
}

/// Metadata of an opened file.
pub(super) fn meta_of(root: &Root, key: &Key, file: &File, stat: &FileStat) -> Meta {
    let mut meta = sidecar::read(root, key, file).unwrap_or_default();
    meta.size = if stat.is_dir() { 0 } else { stat.size };
    meta.modified_ms = Some(stat.modified_ms());
    meta.written_ms = stat.changed_ms();
    meta.etag = etag_of(stat);
    meta.modes = root.modes(key, stat);
    meta
}

/// Whether a file changed so recently, by the clock that the file system of this machine keeps time with.
pub(super) fn changed_within(stat: &FileStat, window: Duration) -> bool {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let age = nanoseconds((now.tv_sec, now.tv_nsec)) - nanoseconds(stat.changed);
    age.unsigned_abs() < window.as_nanos()
}

pub(super) fn etag_of(stat: &FileStat) -> Etag {
    // Programs can set a file's mtime back after they changed it, but not its ctime.
    let ((m, m_ns), (c, c_ns)) = (stat.modified, stat.changed);
    Etag::Other(format!("{m:x}.{m_ns:x}:{c:x}.{c_ns:x}:{:x}:{:x}", stat.size, stat.inode).into())
}
