//! The last step of a write: the finished file gets its metadata and is moved to its place.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use model::error::Result;
use model::key::Key;
use rustix::fs::Mode;
use rustix::io::Errno;

use super::error::io_failure;
use super::root::{Root, path_of};
use super::sidecar;
use crate::Written;
use crate::meta::Meta;

/// Moves a finished temporary file to its place.
pub(super) fn publish(
    root: &Root,
    key: &Key,
    temp_dir: &OwnedFd,
    temp: &str,
    file: &File,
    meta: &Meta,
) -> Result<Written> {
    let failed = |e: Errno| io_failure("write", key, e);
    let path = path_of(key)?;
    sidecar::write(root, key, file, meta)?;
    set_times(file, meta).map_err(failed)?;
    let parent = root.make_dir(path.parent().unwrap_or(Path::new("")), &meta.modes).map_err(failed)?;
    if let Some(mode) = meta.modes.last() {
        rustix::fs::fchmod(file, Mode::from_raw_mode(*mode)).map_err(failed)?;
    }
    let name = path.file_name().unwrap_or_default();
    rustix::fs::renameat(temp_dir, temp, &parent, name).map_err(failed)?;
    Ok(Written::default())
}

/// Gives a file or a directory the time of the object.
pub(super) fn set_times(file: &File, meta: &Meta) -> rustix::io::Result<()> {
    let Some(modified_ms) = meta.modified_ms else { return Ok(()) };
    let at = rustix::fs::Timespec {
        tv_sec: modified_ms.div_euclid(1000),
        tv_nsec: modified_ms.rem_euclid(1000) * 1_000_000,
    };
    rustix::fs::futimens(file, &rustix::fs::Timestamps { last_access: at, last_modification: at })
}
