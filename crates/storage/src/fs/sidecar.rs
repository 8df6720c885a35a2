//! Metadata beside a file: an extended attribute, or a side file where attributes do not exist.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};

use http::{HeaderName, HeaderValue};
use model::error::{Error, Kind, Result};
use model::key::Key;
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::{io_failure, std_failure};
use super::root::{RESERVED_DIR, Root};
use crate::checksum::sha256_hex;
use crate::meta::Meta;

const ATTRIBUTE: &str = "user.whimbrel.meta";
const MAX: usize = 64 << 10;

const UNKNOWN: u8 = 0;
const ABSENT: u8 = 1;
const PRESENT: u8 = 2;

/// Whether there are side files below a root. Where extended attributes exist there are almost never any, and no file
/// needs to be looked for with each object.
#[derive(Debug, Default)]
pub(super) struct SideFiles(AtomicU8);

impl SideFiles {
    /// The directory of side files, if there is one.
    fn dir(&self, root: &Root) -> Option<OwnedFd> {
        if self.0.load(Ordering::Acquire) == ABSENT {
            return None;
        }
        match root.dir(&std::path::Path::new(RESERVED_DIR).join("meta")) {
            Ok(dir) => Some(dir),
            Err(Errno::NOENT) if has_attributes(root) => {
                // Not where one was written meanwhile.
                let _ = self.0.compare_exchange(UNKNOWN, ABSENT, Ordering::AcqRel, Ordering::Acquire);
                None
            }
            Err(_) => None,
        }
    }

    fn is_written(&self) {
        self.0.store(PRESENT, Ordering::Release);
    }
}

fn has_attributes(root: &Root) -> bool {
    matches!(rustix::fs::fgetxattr(&root.fd, ATTRIBUTE, &mut [0u8; 0]), Ok(_) | Err(Errno::NODATA))
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Sidecar {
    #[serde(default)]
    key: Vec<u8>,
    /// Name and raw bytes of each header.
    #[serde(default)]
    headers: Vec<(String, Vec<u8>)>,
    #[serde(default)]
    tags: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    modes: Vec<u32>,
    #[serde(default)]
    modified_ms: Option<i64>,
    #[serde(default)]
    marker: bool,
}

fn stored(key: &Key, meta: &Meta, marker: bool) -> Sidecar {
    Sidecar {
        key: key.as_bytes().to_vec(),
        headers: meta.headers.iter().map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec())).collect(),
        tags: meta.tags.clone(),
        modes: meta.modes.clone(),
        modified_ms: meta.modified_ms,
        marker,
    }
}

/// The text kept beside an open upload.
pub(super) fn encode(key: &Key, meta: &Meta) -> Result<String> {
    let text = serde_json::to_string(&stored(key, meta, false));
    text.map_err(|e| Error::new(Kind::Internal, "write", e.to_string()))
}

/// Metadata out of such a text; whatever is unreadable is left out.
pub(super) fn decode(text: &str) -> Meta {
    let stored: Sidecar = serde_json::from_str(text).unwrap_or_default();
    let mut meta =
        Meta { tags: stored.tags, modes: stored.modes, modified_ms: stored.modified_ms, ..Meta::default() };
    meta.tag_count = u32::try_from(meta.tags.len()).unwrap_or(u32::MAX);
    for (name, value) in stored.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value))
            && Meta::carries(&name)
        {
            meta.headers.push((name, value));
        }
    }
    meta
}

/// The key that an upload's text names.
pub(super) fn key_of(text: &str) -> Key {
    Key::from(serde_json::from_str::<Sidecar>(text).unwrap_or_default().key)
}

fn side_path(key: &Key) -> String {
    format!("{}.json", sha256_hex(key.as_bytes()))
}

/// Writes the metadata of a file that is not yet in its place.
pub(super) fn write(root: &Root, key: &Key, file: &File, meta: &Meta) -> Result<()> {
    if meta.headers.is_empty() && meta.tags.is_empty() {
        remove(root, key);
        return Ok(());
    }
    put(root, key, file, &stored(key, meta, false))
}

/// Marks a directory as a written folder marker.
pub(super) fn write_marker(root: &Root, key: &Key, dir: &File, meta: &Meta) -> Result<()> {
    put(root, key, dir, &stored(key, meta, true))
}

fn put(root: &Root, key: &Key, file: &File, stored: &Sidecar) -> Result<()> {
    let text = serde_json::to_vec(stored).map_err(|e| Error::new(Kind::Internal, "write", e.to_string()))?;
    if rustix::fs::fsetxattr(file, ATTRIBUTE, &text, XattrFlags::empty()).is_ok() {
        return Ok(());
    }
    root.side_files.is_written();
    let (dir, _) = root.own("meta")?;
    let failed = |e| io_failure("write", key, e);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&dir, side_path(key), flags, Mode::from_raw_mode(0o666)).map_err(failed)?;
    File::from(fd).write_all(&text).map_err(|e| std_failure("write", key, &e))
}

/// Metadata of an opened file, when there is any.
pub(super) fn read(root: &Root, key: &Key, file: &File) -> Option<Meta> {
    Some(decode(&text(root, key, file)?))
}

/// True when the directory was written as a folder marker.
pub(super) fn is_marker(root: &Root, key: &Key, file: &File) -> bool {
    text(root, key, file)
        .and_then(|t| serde_json::from_str::<Sidecar>(&t).ok())
        .is_some_and(|stored| stored.marker)
}

fn text(root: &Root, key: &Key, file: &File) -> Option<String> {
    let mut buffer = vec![0; 4096];
    loop {
        match rustix::fs::fgetxattr(file, ATTRIBUTE, &mut buffer) {
            Ok(n) => {
                buffer.truncate(n);
                return String::from_utf8(buffer).ok();
            }
            Err(Errno::RANGE) if buffer.len() < MAX => buffer.resize(MAX, 0),
            Err(_) => break,
        }
    }
    let dir = root.side_files.dir(root)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&dir, side_path(key), flags, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(fd).take(MAX as u64).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Forgets a side file.
pub(super) fn remove(root: &Root, key: &Key) {
    if let Some(dir) = root.side_files.dir(root) {
        let _ = rustix::fs::unlinkat(&dir, side_path(key), rustix::fs::AtFlags::empty());
    }
}
