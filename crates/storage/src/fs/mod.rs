//! A directory as a store. Writes are atomic renames, metadata lives in an extended attribute (or a side
//! file where those do not exist), and no key or link leads out of the root.

mod sidecar;
mod walk;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use model::failure::{Failure, Kind, Result};
use model::key::Key;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tokio::sync::{Semaphore, mpsc};

use crate::body::Body;
use crate::capability::Capability;
use crate::checksum::{Hasher, Wanted, hex};
use crate::etag::Etag;
use crate::meta::Meta;
use crate::{ListRequest, ObjectStore, Page, Part, Probe, ReadRequest, Reading, Written};

/// Our own files below the root: temporary files, open uploads, metadata where attributes do not exist.
pub const OWN_DIR: &str = ".whimbrel";
const CHUNK: usize = 256 << 10;
const SMALL: u64 = 1 << 20;
const BLOCKING_MAX: usize = 64;

/// A directory of the local machine.
#[derive(Debug)]
pub struct Fs {
    inner: Arc<Root>,
    blocking: Arc<Semaphore>,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    fd: OwnedFd,
    cache: walk::Cache,
    ignored: walk::Ignored,
    temp: AtomicU64,
    salt: u64,
    /// Where unfinished files of this process are; locked, so that others can tell when it has ended.
    temp_dir: OnceLock<OwnedFd>,
}

impl Drop for Root {
    /// Takes our own directories away again when nothing is left in them.
    fn drop(&mut self) {
        let mine = format!("tmp/{:016x}", self.salt);
        for name in [mine.as_str(), "tmp", "uploads", "meta", ""] {
            let path = Path::new(OWN_DIR).join(name);
            let _ = rustix::fs::unlinkat(&self.fd, &path, AtFlags::REMOVEDIR);
        }
    }
}

fn io_failure(op: &'static str, what: &dyn std::fmt::Display, e: Errno) -> Failure {
    let kind = match e {
        Errno::NOENT => Kind::NotFound,
        Errno::ACCESS | Errno::PERM => Kind::Forbidden,
        Errno::XDEV => Kind::Forbidden,
        Errno::NOSPC | Errno::DQUOT => Kind::NoSpace,
        Errno::ROFS => Kind::ReadOnly,
        Errno::NAMETOOLONG | Errno::ILSEQ | Errno::INVAL => Kind::KeyRefused,
        Errno::ISDIR | Errno::NOTDIR | Errno::EXIST | Errno::NOTEMPTY => Kind::KeyRefused,
        Errno::FBIG => Kind::TooLarge,
        Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::INTR => Kind::Unavailable,
        _ => Kind::Internal,
    };
    let why = match e {
        Errno::ISDIR | Errno::NOTDIR | Errno::EXIST | Errno::NOTEMPTY => {
            "a file and a directory of one name cannot stand side by side".to_owned()
        }
        Errno::XDEV => "a link leads out of the root".to_owned(),
        e => std::io::Error::from(e).to_string(),
    };
    Failure::new(kind, op, format!("`{what}`: {why}"))
}

fn std_failure(op: &'static str, what: &dyn std::fmt::Display, e: &std::io::Error) -> Failure {
    io_failure(op, what, e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

/// The path of a key below the root.
///
/// # Errors
/// [`Kind::KeyRefused`] for keys that no file can have: empty or dotted segments, NUL, over-long names, and
/// our own directory.
fn path_of(key: &Key) -> Result<&Path> {
    use std::os::unix::ffi::OsStrExt;
    let refused = |why: &str| Failure::new(Kind::KeyRefused, "open", format!("`{key}`: {why}"));
    let bytes = key.as_bytes();
    let bare = bytes.strip_suffix(b"/").unwrap_or(bytes);
    if bare.is_empty() {
        return Err(refused("a file needs a name"));
    }
    for segment in bare.split(|&b| b == b'/') {
        match segment {
            b"" => return Err(refused("a directory cannot hold an empty name (`//` or a leading `/`)")),
            b"." | b".." => return Err(refused("`.` and `..` are not names")),
            s if s.len() > 255 => return Err(refused("a name is longer than 255 bytes")),
            s if s.contains(&0) => return Err(refused("a name contains a NUL byte")),
            _ => {}
        }
    }
    if bare.split(|&b| b == b'/').next() == Some(OWN_DIR.as_bytes()) {
        return Err(refused("this directory is the mover's own"));
    }
    Ok(Path::new(std::ffi::OsStr::from_bytes(bare)))
}

impl Root {
    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    fn dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        self.open(path, OFlags::DIRECTORY | OFlags::RDONLY)
    }

    /// Opens a directory below the root and makes what is missing of it, with the modes given from the
    /// outermost on; further ones get the usual mode.
    fn make_dir(&self, path: &Path, modes: &[u32]) -> rustix::io::Result<OwnedFd> {
        match self.dir(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut at = PathBuf::new();
        let mut dir = self.dir(Path::new("."))?;
        for (i, part) in path.components().enumerate() {
            // Whoever writes below it must be able to.
            let mode = modes.get(i).map_or(0o777, |m| m & 0o777 | 0o700);
            match rustix::fs::mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(mode)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            at.push(part);
            dir = self.dir(&at)?;
        }
        Ok(dir)
    }

    fn own(&self, name: &str) -> Result<(OwnedFd, PathBuf)> {
        let path = Path::new(OWN_DIR).join(name);
        let dir = self.make_dir(&path, &[]).map_err(|e| match e {
            // Where this cannot be made, nothing can be written at all.
            Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                let m = format!("directory `{}` cannot be written: {e}", self.path.display());
                Failure::new(Kind::ReadOnly, "write", m)
            }
            e => io_failure("write", &self.path.display(), e),
        })?;
        Ok((dir, path))
    }

    /// The directory for this process's unfinished files. What a killed process left is taken away first.
    fn temp_dir(&self) -> Result<&OwnedFd> {
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
            let path = Path::new(OWN_DIR).join("tmp").join(&name);
            let dir = match self.dir(&path) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(failed)?,
            };
            // Some network file systems cannot lock: there, nothing is ever swept.
            if matches!(lock(&dir), Err(Errno::WOULDBLOCK)) || self.dir(&path).is_err() {
                // Another lane of this process was first, or a sweeper took it away.
                if let Some(dir) = self.temp_dir.get() {
                    return Ok(dir);
                }
                continue;
            }
            return Ok(self.temp_dir.get_or_init(|| dir));
        }
    }

    fn temp_name(&self) -> String {
        format!("{:016x}-{}", self.salt, self.temp.fetch_add(1, Ordering::Relaxed))
    }

    fn stat(&self, key: &Key) -> Result<(File, std::fs::Metadata)> {
        let path = path_of(key)?;
        let fd =
            self.open(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(|e| io_failure("read", key, e))?;
        let file = File::from(fd);
        let meta = file.metadata().map_err(|e| std_failure("read", key, &e))?;
        if meta.is_dir() != key.is_folder() || !(meta.is_file() || meta.is_dir()) {
            return Err(Failure::new(Kind::NotFound, "read", format!("`{key}` is not a file")));
        }
        Ok((file, meta))
    }

    fn meta(&self, key: &Key, file: &File, stat: &std::fs::Metadata) -> Meta {
        let mut meta = sidecar::read(self, key, file).unwrap_or_default();
        meta.size = if stat.is_dir() { 0 } else { stat.len() };
        meta.modified_ms = modified_ms(stat);
        meta.written_ms = stat.ctime() * 1000 + stat.ctime_nsec() / 1_000_000;
        meta.etag = etag_of(stat);
        meta.modes = self.modes(key, stat);
        meta
    }

    /// Permissions of the directories on the way to a key, then its own.
    fn modes(&self, key: &Key, stat: &std::fs::Metadata) -> Vec<u32> {
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
        modes.push(stat.mode() & 0o777);
        modes
    }

    /// Moves a finished temporary file to its place.
    fn publish(
        &self,
        key: &Key,
        temp_dir: &OwnedFd,
        temp: &str,
        file: &File,
        meta: &Meta,
    ) -> Result<Written> {
        let failed = |e: Errno| io_failure("write", key, e);
        let path = path_of(key)?;
        sidecar::write(self, key, file, meta)?;
        if meta.modified_ms > 0 {
            let at = rustix::fs::Timespec {
                tv_sec: meta.modified_ms.div_euclid(1000),
                tv_nsec: meta.modified_ms.rem_euclid(1000) * 1_000_000,
            };
            let times = rustix::fs::Timestamps { last_access: at, last_modification: at };
            rustix::fs::futimens(file, &times).map_err(failed)?;
        }
        let parent = self.make_dir(path.parent().unwrap_or(Path::new("")), &meta.modes).map_err(failed)?;
        if let Some(mode) = meta.modes.last() {
            rustix::fs::fchmod(file, Mode::from_raw_mode(*mode)).map_err(failed)?;
        }
        let name = path.file_name().unwrap_or_default();
        rustix::fs::renameat(temp_dir, temp, &parent, name).map_err(failed)?;
        Ok(Written { etag: Etag::None, crc64: None })
    }
}

fn modified_ms(stat: &std::fs::Metadata) -> i64 {
    stat.mtime() * 1000 + stat.mtime_nsec() / 1_000_000
}

fn etag_of(stat: &std::fs::Metadata) -> Etag {
    let text = format!("{:x}.{:x}:{:x}:{:x}", stat.mtime(), stat.mtime_nsec(), stat.len(), stat.ino());
    Etag::Other(text.into())
}

impl Fs {
    /// Opens a directory; with `create`, makes it when it is missing.
    ///
    /// # Errors
    /// [`Kind::NoBucket`] when it does not exist or is no directory.
    pub fn open(path: &Path, create: bool) -> Result<Self> {
        let missing = |e: std::io::Error| {
            let kind = match e.kind() {
                std::io::ErrorKind::PermissionDenied => Kind::Forbidden,
                std::io::ErrorKind::ReadOnlyFilesystem => Kind::ReadOnly,
                _ => Kind::NoBucket,
            };
            Failure::new(kind, "open", format!("directory `{}`: {e}", path.display()))
        };
        if create {
            std::fs::create_dir_all(path).map_err(missing)?;
        }
        let real = path.canonicalize().map_err(missing)?;
        let fd = rustix::fs::open(&real, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| missing(e.into()))?;
        let root = Root {
            path: real,
            fd,
            cache: walk::Cache::default(),
            ignored: walk::Ignored::default(),
            temp: AtomicU64::new(0),
            salt: fastrand::u64(..),
            temp_dir: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(root), blocking: Arc::new(Semaphore::new(BLOCKING_MAX)) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Root) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.blocking.clone().acquire_owned().await;
        let root = self.inner.clone();
        #[expect(clippy::disallowed_methods, reason = "bounded by the permit just taken")]
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&root)
        })
        .await;
        done.unwrap_or_else(|e| Err(Failure::new(Kind::Internal, "fs", format!("a file task ended: {e}"))))
    }

    /// Feeds `body` to `write` on a blocking thread, chunk by chunk.
    async fn feed<T: Send + 'static>(
        &self,
        mut body: Body,
        write: impl FnOnce(&Root, &mut dyn FnMut() -> Option<Result<Bytes>>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if body.len() <= SMALL {
            let bytes = body.collect(SMALL).await?;
            let mut one = Some(Ok(bytes));
            return self.blocking(move |root| write(root, &mut || one.take())).await;
        }
        let (tx, mut rx) = mpsc::channel::<Result<Bytes>>(2);
        let writing = self.blocking(move |root| write(root, &mut || rx.blocking_recv()));
        let feeding = async move {
            while let Some(chunk) = body.chunk().await {
                let failed = chunk.is_err();
                if tx.send(chunk).await.is_err() || failed {
                    break;
                }
            }
        };
        tokio::join!(writing, feeding).0
    }
}

/// Writes chunks at `offset`, reads them back and compares: what is on the file is what arrived.
fn write_checked(
    what: &Key,
    file: &mut File,
    offset: u64,
    len: u64,
    next: &mut dyn FnMut() -> Option<Result<Bytes>>,
) -> Result<(u64, u64)> {
    let failed = |e: std::io::Error| std_failure("write", what, &e);
    let mut hasher = Hasher::new(Wanted { md5: false, crc64: true });
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    while let Some(chunk) = next() {
        let chunk = chunk?;
        hasher.update(&chunk);
        file.write_all(&chunk).map_err(failed)?;
    }
    let sent = hasher.finish();
    if sent.bytes != len {
        // Whoever fed the bytes went away in the middle: a stop, or a lost connection.
        let m = format!("`{what}`: {} of {len} bytes came before the writer was left alone", sent.bytes);
        return Err(Failure::new(Kind::Stopped, "write", m));
    }
    let mut back = Hasher::new(Wanted { md5: false, crc64: true });
    let mut buffer = vec![0; CHUNK.min(usize::try_from(sent.bytes).unwrap_or(CHUNK)).max(1)];
    let mut at = offset;
    while at < offset + sent.bytes {
        let want = buffer.len().min(usize::try_from(offset + sent.bytes - at).unwrap_or(buffer.len()));
        let n = file.read_at(&mut buffer[..want], at).map_err(failed)?;
        if n == 0 {
            break;
        }
        back.update(&buffer[..n]);
        at += n as u64;
    }
    let stored = back.finish();
    if stored != sent {
        let m = format!("`{what}`: the bytes read back differ from the bytes written");
        return Err(Failure::new(Kind::Corrupt, "write", m));
    }
    Ok((sent.bytes, sent.crc64.unwrap_or(0)))
}

const RW_NEW: OFlags = OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

#[async_trait]
impl ObjectStore for Fs {
    fn capability(&self) -> &Capability {
        &Capability::FS
    }

    fn place(&self) -> String {
        format!("fs://{}", self.inner.path.display())
    }

    async fn probe(&self) -> Result<Probe> {
        self.blocking(|root| {
            let found = root.dir(Path::new("."));
            found.map_err(|e| io_failure("probe", &root.path.display(), e))?;
            Ok(Probe { server: "fs".into(), skew_ms: None })
        })
        .await
    }

    async fn list(&self, request: &ListRequest) -> Result<Page> {
        let request = request.clone();
        self.blocking(move |root| walk::page(root, &request)).await
    }

    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        if part.is_some() {
            return Err(Failure::new(Kind::Unsupported, "head", "files have no parts"));
        }
        let key = key.clone();
        self.blocking(move |root| {
            let (file, stat) = root.stat(&key)?;
            Ok(root.meta(&key, &file, &stat))
        })
        .await
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        let (key, request) = (key.clone(), request.clone());
        let blocking = self.blocking.clone();
        self.blocking(move |root| {
            let (mut file, stat) = root.stat(&key)?;
            let meta = root.meta(&key, &file, &stat);
            if request.if_match.as_ref().is_some_and(|e| !e.is_none() && *e != meta.etag) {
                let m = format!("`{key}` was changed since it was listed");
                return Err(Failure::new(Kind::Changed, "read", m));
            }
            let range = request.range.unwrap_or(0..meta.size);
            let len = range.end.min(meta.size).saturating_sub(range.start);
            if len <= SMALL {
                let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
                let failed = |e: std::io::Error| match e.kind() {
                    std::io::ErrorKind::UnexpectedEof => {
                        Failure::new(Kind::Changed, "read", format!("`{key}` shrank while it was read"))
                    }
                    _ => std_failure("read", &key, &e),
                };
                file.read_exact_at(&mut bytes, range.start).map_err(failed)?;
                return Ok(Reading { meta, body: Body::bytes(bytes) });
            }
            let (tx, rx) = mpsc::channel(2);
            let etag = meta.etag.clone();
            let permit = blocking.try_acquire_owned().ok();
            #[expect(clippy::disallowed_methods, reason = "bounded by the lanes that hold bodies")]
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                read_ahead(&key, &mut file, range.start, len, &etag, &tx);
            });
            Ok(Reading { meta, body: Body::channel(rx, len) })
        })
        .await
    }

    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        let (key, meta) = (key.clone(), meta.clone());
        path_of(&key)?;
        if key.is_folder() {
            if !body.is_empty() {
                let m = format!("`{key}`: a directory cannot hold bytes");
                return Err(Failure::new(Kind::KeyRefused, "write", m));
            }
            return self
                .blocking(move |root| {
                    let failed = |e| io_failure("write", &key, e);
                    let dir = root.make_dir(path_of(&key)?, &meta.modes).map_err(failed)?;
                    sidecar::write_marker(root, &key, &File::from(dir), &meta)?;
                    Ok(Written { etag: Etag::None, crc64: Some(0) })
                })
                .await;
        }
        let len = body.len();
        self.feed(body, move |root, next| {
            let dir = root.temp_dir()?;
            let temp = root.temp_name();
            let failed = |e| io_failure("write", &key, e);
            let fd = rustix::fs::openat(dir, &temp, RW_NEW, Mode::from_raw_mode(0o666)).map_err(failed)?;
            let mut file = File::from(fd);
            let done = write_checked(&key, &mut file, 0, len, next).and_then(|(_, crc64)| {
                let written = root.publish(&key, dir, &temp, &file, &meta)?;
                Ok(Written { crc64: Some(crc64), ..written })
            });
            if done.is_err() {
                let _ = rustix::fs::unlinkat(dir, &temp, AtFlags::empty());
            }
            done
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.clone();
        self.blocking(move |root| {
            let path = path_of(&key)?;
            let flags = if key.is_folder() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            let parent = match root.dir(path.parent().unwrap_or(Path::new(""))) {
                Err(Errno::NOENT) => return Ok(()),
                other => other.map_err(|e| io_failure("delete", &key, e))?,
            };
            sidecar::remove(root, &key);
            match rustix::fs::unlinkat(&parent, path.file_name().unwrap_or_default(), flags) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
                Err(e) => Err(io_failure("delete", &key, e)),
            }
        })
        .await
    }

    async fn begin_upload(&self, key: &Key, meta: &Meta) -> Result<String> {
        let (key, meta) = (key.clone(), meta.clone());
        path_of(&key)?;
        self.blocking(move |root| {
            let (dir, _) = root.own("uploads")?;
            let id = root.temp_name();
            let failed = |e| io_failure("begin_upload", &key, e);
            let fd = rustix::fs::openat(&dir, &id, RW_NEW, Mode::from_raw_mode(0o666)).map_err(failed)?;
            let text = sidecar::encode(&key, &meta)?;
            let side = format!("{id}.meta");
            let mut file = File::from(
                rustix::fs::openat(&dir, &side, RW_NEW, Mode::from_raw_mode(0o666)).map_err(failed)?,
            );
            file.write_all(text.as_bytes()).map_err(|e| std_failure("begin_upload", &key, &e))?;
            drop(fd);
            Ok(id)
        })
        .await
    }

    async fn write_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        offset: u64,
        body: Body,
    ) -> Result<Part> {
        let (key, upload) = (key.clone(), upload.to_owned());
        let len = body.len();
        self.feed(body, move |root, next| {
            let mut file = upload_file(root, &key, &upload)?;
            let (size, crc64) = write_checked(&key, &mut file, offset, len, next)?;
            Ok(Part { number, etag: hex(&crc64.to_be_bytes()), size })
        })
        .await
    }

    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[Part]) -> Result<Written> {
        let (key, upload) = (key.clone(), upload.to_owned());
        let total: u64 = parts.iter().map(|p| p.size).sum();
        self.blocking(move |root| {
            let file = upload_file(root, &key, &upload)?;
            let failed = |e: std::io::Error| std_failure("complete_upload", &key, &e);
            if file.metadata().map_err(failed)?.len() != total {
                let m = format!("`{key}`: the parts do not make {total} bytes");
                return Err(Failure::new(Kind::Corrupt, "complete_upload", m));
            }
            let (dir, path) = root.own("uploads")?;
            let side = format!("{upload}.meta");
            let text = root
                .open(&path.join(&side), OFlags::RDONLY)
                .map_err(|e| io_failure("complete_upload", &key, e))
                .and_then(|fd| {
                    let mut text = String::new();
                    File::from(fd).take(1 << 20).read_to_string(&mut text).map_err(failed)?;
                    Ok(text)
                })?;
            let written = root.publish(&key, &dir, &upload, &file, &sidecar::decode(&text))?;
            let _ = rustix::fs::unlinkat(&dir, &side, AtFlags::empty());
            Ok(written)
        })
        .await
    }

    async fn abort_upload(&self, _key: &Key, upload: &str) -> Result<()> {
        let upload = upload.to_owned();
        self.blocking(move |root| {
            if !upload.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
                return Ok(());
            }
            let (dir, _) = root.own("uploads")?;
            for name in [upload.clone(), format!("{upload}.meta")] {
                let _ = rustix::fs::unlinkat(&dir, &name, AtFlags::empty());
            }
            Ok(())
        })
        .await
    }

    async fn list_parts(&self, _key: &Key, _upload: &str) -> Result<Vec<Part>> {
        Err(Failure::new(Kind::Unsupported, "list_parts", "a file does not tell which parts it has"))
    }

    async fn list_uploads(&self, _prefix: &str) -> Result<Vec<(Key, String)>> {
        self.blocking(move |root| {
            let (dir, path) = root.own("uploads")?;
            let failed = |e: Errno| io_failure("list_uploads", &root.path.display(), e);
            let mut found = Vec::new();
            for entry in rustix::fs::Dir::read_from(&dir).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
                let Some(id) = name.strip_suffix(".meta") else { continue };
                let Ok(fd) = root.open(&path.join(&name), OFlags::RDONLY) else { continue };
                let mut text = String::new();
                if File::from(fd).take(1 << 20).read_to_string(&mut text).is_ok() {
                    found.push((sidecar::key_of(&text), id.to_owned()));
                }
            }
            Ok(found)
        })
        .await
    }

    async fn copy_from(&self, _bucket: &str, _from: &Key, _to: &Key, _if_match: &Etag) -> Result<Written> {
        Err(Failure::new(Kind::Unsupported, "copy", "directories have no server that could copy"))
    }

    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        let key = key.clone();
        self.blocking(move |root| {
            let (file, _) = root.stat(&key)?;
            Ok(sidecar::read(root, &key, &file).unwrap_or_default().tags)
        })
        .await
    }

    async fn settle(&self) -> Result<()> {
        self.blocking(|root| {
            rustix::fs::syncfs(&root.fd).map_err(|e| io_failure("settle", &root.path.display(), e))
        })
        .await
    }

    fn ignored(&self) -> Vec<String> {
        self.inner.ignored.list()
    }

    async fn buckets(&self) -> Result<Vec<String>> {
        Err(Failure::new(Kind::Unsupported, "buckets", "a directory has no buckets"))
    }
}

fn upload_file(root: &Root, key: &Key, upload: &str) -> Result<File> {
    if !upload.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Err(Failure::new(Kind::NotFound, "write_part", "no such upload"));
    }
    let path = Path::new(OWN_DIR).join("uploads").join(upload);
    let fd = root.open(&path, OFlags::RDWR).map_err(|e| io_failure("write_part", key, e))?;
    Ok(File::from(fd))
}

/// Reads a range in chunks until the receiver goes away; a file that changed meanwhile fails its last chunk.
fn read_ahead(
    key: &Key,
    file: &mut File,
    from: u64,
    len: u64,
    etag: &Etag,
    tx: &mpsc::Sender<Result<Bytes>>,
) {
    let mut left = len;
    let failed = |e: &std::io::Error| std_failure("read", key, e);
    if let Err(e) = file.seek(SeekFrom::Start(from)) {
        let _ = tx.blocking_send(Err(failed(&e)));
        return;
    }
    while left > 0 {
        let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
        let result = match file.read(&mut chunk) {
            Ok(0) => Err(Failure::new(Kind::Changed, "read", format!("`{key}` shrank while it was read"))),
            Ok(n) => {
                left -= n as u64;
                chunk.truncate(n);
                let unchanged = left > 0 || file.metadata().is_ok_and(|m| etag_of(&m) == *etag);
                if unchanged {
                    Ok(Bytes::from(chunk))
                } else {
                    Err(Failure::new(Kind::Changed, "read", format!("`{key}` changed while it was read")))
                }
            }
            Err(e) => Err(failed(&e)),
        };
        let end = result.is_err();
        if tx.blocking_send(result).is_err() || end {
            return;
        }
    }
}
