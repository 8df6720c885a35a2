//! Listing a directory tree as one sorted key space, page by page, in bounded memory.
//!
//! A directory sorts under its name with `/` appended, which makes the walk agree with byte order. Of a very
//! large directory only the next [`SPAN`] names are held.

use std::collections::BinaryHeap;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use model::error::{Error, Kind, Result};
use model::key::Key;
use rustix::fs::{AtFlags, DirEntry, FileType, OFlags};
use rustix::io::Errno;

use super::dir_cache::{SPAN, Span};
use super::error::io_failure;
use super::meta::{FileStat, etag_of};
use super::root::{RESERVED_DIR, Root};
use super::sidecar;
use crate::{Entry, Etag, ListRequest, Page, Position};

/// A path has at most 4,096 bytes, so no deeper one can be opened.
const DEPTH_MAX: usize = 2048;
/// One page of the tree.
pub(super) fn page(root: &Root, request: &ListRequest) -> Result<Page> {
    let mut out = Page::default();
    let max = request.max.clamp(1, 1000) as usize;
    // One more than asked for tells whether more follow.
    let after = request.from.after_key();
    let mut walk = Walk { root, request, after: after.as_bytes(), max: max + 1, out: &mut out };
    walk.dir(b"", 0)?;
    if out.entries.len() + out.folders.len() > max {
        // Names come in order: the one too many is the last of either.
        let last_folder = out.folders.last().map(|f| f.as_bytes().to_vec());
        let last_entry = out.entries.last().map(|e| e.key.as_bytes().to_vec());
        if last_folder > last_entry {
            out.folders.pop();
        } else {
            out.entries.pop();
        }
        // What stands in a folder that was shown already does not show it again.
        let folder = out.folders.last().map(|f| Key::from(format!("{f}{}", char::MAX)));
        out.next = out.entries.last().map(|e| e.key.clone()).max(folder).map(Position::After);
    }
    Ok(out)
}

struct Walk<'a> {
    root: &'a Root,
    request: &'a ListRequest,
    after: &'a [u8],
    max: usize,
    out: &'a mut Page,
}

impl Walk<'_> {
    fn full(&self) -> bool {
        self.out.entries.len() + self.out.folders.len() >= self.max
    }

    /// Walks the directory whose keys begin with `base` (empty, or ending in `/`).
    fn dir(&mut self, base: &[u8], depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            let m = format!("`{}` is nested too deeply", String::from_utf8_lossy(base));
            return Err(Error::new(Kind::Unsupported, "list", m));
        }
        let (after, prefix) = (self.after, self.request.prefix.as_bytes());
        // Where in this directory the page begins: the name that leads towards `after` or the prefix.
        let mut from: Vec<u8> = Vec::new();
        for bound in [after, prefix] {
            if let Some(rest) = bound.strip_prefix(base) {
                let end = rest.iter().position(|&b| b == b'/').map_or(rest.len(), |i| i + 1);
                from = from.max(rest[..end].to_vec());
            }
        }
        let mut inclusive = true;
        loop {
            let (dir, span) = match self.span(base, &from, inclusive) {
                // What cannot be listed is listed as itself, so that it fails alone when it is read.
                Err(_) if !base.is_empty() => {
                    if base > after && base.starts_with(prefix) {
                        self.out.entries.push(unreadable(Key::new(base)));
                    }
                    return Ok(());
                }
                span => span?,
            };
            let start = span.names.partition_point(|n| if inclusive { *n < from } else { *n <= from });
            for name in &span.names[start..] {
                if self.full() {
                    return Ok(());
                }
                let mut key = base.to_vec();
                key.extend_from_slice(name);
                if !key.starts_with(prefix) && key.as_slice() > prefix {
                    return Ok(());
                }
                self.name(&dir, key, depth)?;
            }
            match span.names.last() {
                Some(last) if !span.complete => {
                    from = last.clone();
                    inclusive = false;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Takes a name of the open directory `dir` into the page, with what is below it.
    fn name(&mut self, dir: &Option<File>, key: Vec<u8>, depth: usize) -> Result<()> {
        let (after, prefix) = (self.after, self.request.prefix.as_bytes());
        if key.last() != Some(&b'/') {
            if key.as_slice() > after && key.starts_with(prefix) {
                self.file(dir, key);
            }
            return Ok(());
        }
        let passed = key.as_slice() < after && !after.starts_with(&key);
        let leads = key.starts_with(prefix) || prefix.starts_with(&key);
        if passed || !leads {
            return Ok(());
        }
        let inside = key.starts_with(prefix);
        if inside && key.as_slice() > after {
            if self.request.delimiter == Some('/') && key.len() > prefix.len() {
                self.out.folders.push(String::from_utf8_lossy(&key).into_owned());
                return Ok(());
            }
            self.marker(&key)?;
        }
        self.dir(&key, depth + 1)
    }

    /// A directory counts as a folder marker when one was written, or when nothing else shows it.
    fn marker(&mut self, key: &[u8]) -> Result<()> {
        let key = Key::new(key);
        let Ok((file, stat)) = self.root.stat(&key) else { return Ok(()) };
        let empty = || self.span(key.as_bytes(), b"", true).is_ok_and(|(_, s)| s.names.is_empty());
        if sidecar::is_marker(self.root, &key, &file) || empty() {
            self.out.entries.push(entry(key, 0, &stat));
        }
        Ok(())
    }

    fn file(&mut self, dir: &Option<File>, key: Vec<u8>) {
        let name = key.rsplit(|&b| b == b'/').next().unwrap_or_default();
        let here = dir.as_ref().map(|dir| rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW));
        match here.map(|found| found.map(FileStat::from)) {
            Some(Ok(stat)) if stat.is_file() => self.out.entries.push(entry(Key::new(key), stat.size, &stat)),
            // It vanished meanwhile.
            Some(Err(Errno::NOENT)) => {}
            _ => self.link(key),
        }
    }

    /// What a name that is not a regular file leads to, within the root.
    fn link(&mut self, key: Vec<u8>) {
        let path = Path::new(std::ffi::OsStr::from_bytes(&key));
        let opened = self.root.open(path, OFlags::PATH);
        match opened.and_then(FileStat::of) {
            Ok(stat) if stat.is_file() => self.out.entries.push(entry(Key::new(key), stat.size, &stat)),
            Ok(stat) if stat.is_dir() => self.root.ignored.add(&key, "symbolic link to a directory"),
            Ok(_) => self.root.ignored.add(&key, "not a regular file"),
            Err(Errno::XDEV) => self.root.ignored.add(&key, "symbolic link out of the root"),
            Err(Errno::NOENT | Errno::LOOP) => {
                let here = rustix::fs::statat(&self.root.fd, path, AtFlags::SYMLINK_NOFOLLOW);
                // Else it vanished meanwhile.
                if here.is_ok() {
                    self.root.ignored.add(&key, "broken symbolic link");
                }
            }
            Err(_) => self.out.entries.push(unreadable(Key::new(key))),
        }
    }

    /// Our own directory is never listed; when something else is in it, that is said.
    fn foreign(&self, name: &[u8]) {
        let path = Path::new(std::ffi::OsStr::from_bytes(name));
        let names = self.root.dir(path).and_then(|fd| {
            let entries = rustix::fs::Dir::new(fd)?;
            Ok(entries.flatten().map(|e| e.file_name().to_bytes().to_vec()).collect::<Vec<_>>())
        });
        let own: [&[u8]; 5] = [b".", b"..", b"tmp", b"uploads", b"meta"];
        if names.map_or(true, |names| names.iter().any(|n| !own.contains(&n.as_slice()))) {
            self.root.ignored.add(name, "reserved for whimbrel");
        }
    }

    /// A directory, opened unless it vanished, and its next names from `from` on.
    fn span(&self, base: &[u8], from: &[u8], inclusive: bool) -> Result<(Option<File>, Arc<Span>)> {
        let what = String::from_utf8_lossy(base).into_owned();
        let failed = |e| io_failure("list", &what, e);
        let path = Path::new(std::ffi::OsStr::from_bytes(base.strip_suffix(b"/").unwrap_or(base)));
        let dir = match self.root.dir(path) {
            Ok(dir) => dir,
            // Removed between its parent's listing and now.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok((None, Span::empty())),
            Err(e) => return Err(failed(e)),
        };
        let file = File::from(dir);
        let stamp = FileStat::of(&file).map_err(failed)?.modified_ns();
        if let Some(span) = self.root.cache.find(base, stamp, from) {
            return Ok((Some(file), span));
        }
        let (names, complete) = self.smallest_names(&file, base, from, inclusive).map_err(failed)?;
        let span = Arc::new(Span { stamp, after: from.to_vec(), names, complete });
        self.root.cache.keep(base, &span);
        Ok((Some(file), span))
    }

    /// The smallest [`SPAN`] names of an open directory from `from` on, and whether these are all of them.
    fn smallest_names(
        &self,
        dir: &File,
        base: &[u8],
        from: &[u8],
        inclusive: bool,
    ) -> rustix::io::Result<(Vec<Vec<u8>>, bool)> {
        // A heap whose top is the largest kept.
        let mut heap: BinaryHeap<Vec<u8>> = BinaryHeap::new();
        let mut complete = true;
        for entry in rustix::fs::Dir::read_from(dir)? {
            let Some(name) = self.name_of(dir, base, &entry?) else { continue };
            if name.as_slice() < from || (!inclusive && name == from) {
                continue;
            }
            heap.push(name);
            if heap.len() > SPAN {
                heap.pop();
                complete = false;
            }
        }
        Ok((heap.into_sorted_vec(), complete))
    }

    /// The name of a directory entry as it sorts: that of a directory ends with `/`. None for what is not listed.
    fn name_of(&self, dir: &File, base: &[u8], entry: &DirEntry) -> Option<Vec<u8>> {
        let mut name = entry.file_name().to_bytes().to_vec();
        if matches!(name.as_slice(), b"." | b"..") {
            return None;
        }
        if base.is_empty() && name == RESERVED_DIR.as_bytes() {
            self.foreign(&name);
            return None;
        }
        let is_dir = match entry.file_type() {
            FileType::Directory => true,
            FileType::RegularFile | FileType::Symlink => false,
            FileType::Unknown => rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory),
            _ => {
                self.root.ignored.add(&[base, &name].concat(), "pipe, socket or device");
                return None;
            }
        };
        if is_dir {
            name.push(b'/');
        }
        Some(name)
    }
}

fn entry(key: Key, size: u64, stat: &FileStat) -> Entry {
    let (modified_ms, written_ms) = (stat.modified_ms(), stat.changed_ms());
    Entry { key, size, modified_ms, written_ms, etag: etag_of(stat), class: None }
}

/// Stands for a directory that cannot be listed.
fn unreadable(key: Key) -> Entry {
    Entry { key, size: 0, modified_ms: 0, written_ms: 0, etag: Etag::None, class: None }
}
