//! Metadata of a file: what the file system knows, and what stands beside the file.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use model::key::Key;

use super::root::Root;
use super::sidecar;
use crate::etag::Etag;
use crate::meta::Meta;

/// Metadata of an opened file.
pub(super) fn meta_of(root: &Root, key: &Key, file: &File, stat: &std::fs::Metadata) -> Meta {
    let mut meta = sidecar::read(root, key, file).unwrap_or_default();
    meta.size = if stat.is_dir() { 0 } else { stat.len() };
    meta.modified_ms = Some(modified_ms(stat));
    meta.written_ms = stat.ctime() * 1000 + stat.ctime_nsec() / 1_000_000;
    meta.etag = etag_of(stat);
    meta.modes = root.modes(key, stat);
    meta
}

pub(super) fn modified_ms(stat: &std::fs::Metadata) -> i64 {
    stat.mtime() * 1000 + stat.mtime_nsec() / 1_000_000
}

/// Whether a file changed so recently, by the clock that the file system of this machine keeps time with.
pub(super) fn changed_within(stat: &std::fs::Metadata, window: Duration) -> bool {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
    let age = ns(now.tv_sec, now.tv_nsec) - ns(stat.ctime(), stat.ctime_nsec());
    age.unsigned_abs() < window.as_nanos()
}

pub(super) fn etag_of(stat: &std::fs::Metadata) -> Etag {
    // Programs can set a file's mtime back after they changed it, but not its ctime.
    let text = format!(
        "{:x}.{:x}:{:x}.{:x}:{:x}:{:x}",
        stat.mtime(),
        stat.mtime_nsec(),
        stat.ctime(),
        stat.ctime_nsec(),
        stat.len(),
        stat.ino()
    );
    Etag::Other(text.into())
}
