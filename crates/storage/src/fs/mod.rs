//! A directory as a store. Writes are atomic renames, metadata lives in an extended attribute (or a side
//! file where those do not exist), and no key or link leads out of the root.

pub mod copy;
mod dir_cache;
mod error;
mod meta;
mod root;
mod sidecar;
mod threads;
mod walk;
mod write;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::error::{Error, Kind, Reason, Result};
use model::key::Key;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use self::error::{io_failure, std_failure};
use self::meta::{FileStat, changed_within, etag_of, meta_of};
use self::root::{Root, path_of};
use self::threads::FsThreads;
use self::write::publish;
use crate::body::Body;
use crate::capability::Capability;
use crate::checksum::{Checksums, DigestSet, Digests, Hasher, hex};
use crate::etag::Etag;
use crate::meta::Meta;
use crate::{ListRequest, ObjectStore, Page, Probe, ReadRequest, Reading, UploadedPart, Written};

pub use self::root::RESERVED_DIR;

const CHUNK: usize = 256 << 10;
const SMALL: u64 = 1 << 20;
/// More than the steps in which file systems keep time: 10 ms where the kernel ticks at 100 Hz.
const TIME_STEP: Duration = Duration::from_millis(20);
/// A file that has changed in each of so many steps is being written.
const SETTLE_WAITS: usize = 5;

/// A directory of the local machine.
#[derive(Debug)]
pub struct Fs {
    inner: Arc<Root>,
    threads: FsThreads,
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
            Error::new(kind, "open", format!("directory `{}`: {e}", path.display()))
                .because(Reason::LocalPath)
                .caused_by(e)
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
            cache: dir_cache::Cache::default(),
            ignored: dir_cache::Ignored::default(),
            side_files: sidecar::SideFiles::default(),
            temp: AtomicU64::new(0),
            salt: fastrand::u64(..),
            temp_dir: OnceLock::new(),
        };
        let threads = FsThreads::new(&root.fd).map_err(missing)?;
        Ok(Self { inner: Arc::new(root), threads })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Root) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = self.inner.clone();
        self.threads.run(move || work(&root)).await
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
        let root = self.inner.clone();
        let writing = self.threads.run_writer(move || write(&root, &mut || rx.blocking_recv()));
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
    let mut hasher = Hasher::new(DigestSet { crc64_nvme: true, ..DigestSet::default() });
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    while let Some(chunk) = next() {
        let chunk = chunk?;
        hasher.update(&chunk);
        file.write_all(&chunk).map_err(failed)?;
    }
    let sent = hasher.finish();
    if sent.bytes != len {
        // The sender of the bytes ended early: a stop, or a lost connection.
        let m = format!("`{what}`: only {} of {len} bytes were received", sent.bytes);
        return Err(Error::new(Kind::Stopped, "write", m));
    }
    let mut buffer = vec![0; CHUNK.min(usize::try_from(sent.bytes).unwrap_or(CHUNK))];
    if read_back(what, file, offset, &mut buffer, sent.bytes)? != sent {
        let m = format!("`{what}`: the bytes read back differ from the bytes written");
        return Err(Error::new(Kind::Corrupt, "write", m));
    }
    Ok((sent.bytes, sent.sums.crc64_nvme.unwrap_or(0)))
}

/// The digests of what stands in a file now; of less than `len` bytes where it is shorter.
fn read_back(what: &Key, file: &File, offset: u64, buffer: &mut [u8], len: u64) -> Result<Digests> {
    let mut hasher = Hasher::new(DigestSet { crc64_nvme: true, ..DigestSet::default() });
    let mut at = 0;
    while at < len {
        let want = buffer.len().min(usize::try_from(len - at).unwrap_or(buffer.len()));
        let n = file.read_at(&mut buffer[..want], offset + at).map_err(|e| std_failure("write", what, &e))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        at += n as u64;
    }
    Ok(hasher.finish())
}

const RW_NEW: OFlags = OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

#[async_trait]
impl ObjectStore for Fs {
    fn capability(&self) -> &Capability {
        &Capability::FS
    }

    fn location(&self) -> String {
        format!("fs://{}", self.inner.path.display())
    }

    fn as_directory(&self) -> Option<&Fs> {
        Some(self)
    }

    async fn probe(&self, _prefix: &str) -> Result<Probe> {
        self.blocking(|root| {
            let found = root.dir(Path::new("."));
            found.map_err(|e| io_failure("probe", &root.path.display(), e))?;
            Ok(Probe { server: "fs".into(), ..Probe::default() })
        })
        .await
    }

    async fn list(&self, request: &ListRequest) -> Result<Page> {
        let request = request.clone();
        self.blocking(move |root| walk::page(root, &request)).await
    }

    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        if part.is_some() {
            return Err(Error::new(Kind::Unsupported, "head", "files do not have parts"));
        }
        let key = key.clone();
        self.blocking(move |root| {
            let (file, stat) = root.stat(&key)?;
            Ok(meta_of(root, &key, &file, &stat))
        })
        .await
    }

    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        let (key, request) = (key.clone(), request.clone());
        let reading = tokio::runtime::Handle::current();
        self.blocking(move |root| {
            let (mut file, stat) = settled(root, &key)?;
            let meta = meta_of(root, &key, &file, &stat);
            if request.if_match.as_ref().is_some_and(|e| !e.is_none() && *e != meta.etag) {
                let m = format!("`{key}` has changed since it was listed");
                return Err(Error::new(Kind::Changed, "read", m));
            }
            let range = request.range.unwrap_or(0..meta.size);
            let len = range.end.min(meta.size).saturating_sub(range.start);
            if len <= SMALL {
                let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
                let failed = |e: std::io::Error| match e.kind() {
                    std::io::ErrorKind::UnexpectedEof => {
                        Error::new(Kind::Changed, "read", format!("`{key}` became shorter while it was read"))
                    }
                    _ => std_failure("read", &key, &e),
                };
                file.read_exact_at(&mut bytes, range.start).map_err(failed)?;
                if !FileStat::of(&file).is_ok_and(|now| etag_of(&now) == meta.etag) {
                    let m = format!("`{key}` changed while it was read");
                    return Err(Error::new(Kind::Changed, "read", m));
                }
                return Ok(Reading { meta, body: Body::bytes(bytes) });
            }
            let (tx, rx) = mpsc::channel(2);
            let etag = meta.etag.clone();
            // Not one of the bounded threads: it waits for its reader, which may wait for one of them.
            reading.spawn_blocking(move || {
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
                let m = format!("`{key}`: a directory cannot have content");
                return Err(Error::new(Kind::InvalidKey, "write", m));
            }
            return self
                .blocking(move |root| {
                    let failed = |e| io_failure("write", &key, e);
                    let dir = File::from(root.make_dir(path_of(&key)?, &meta.modes).map_err(failed)?);
                    sidecar::write_marker(root, &key, &dir, &meta)?;
                    write::set_times(&dir, &meta).map_err(failed)?;
                    Ok(Written {
                        sums: Checksums { crc64_nvme: Some(0), ..Checksums::default() },
                        ..Written::default()
                    })
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
                let published = publish(root, &key, dir, &temp, &file, &meta)?;
                Ok(Written {
                    sums: Checksums { crc64_nvme: Some(crc64), ..Checksums::default() },
                    ..published
                })
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
            match rustix::fs::unlinkat(&parent, path.file_name().unwrap_or_default(), flags) {
                Ok(()) | Err(Errno::NOENT) => {
                    sidecar::remove(root, &key);
                    root.remove_empty_dirs(path.parent());
                    Ok(())
                }
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let m = format!("`{key}`: the directory is not empty");
                    Err(Error::new(Kind::Conflict, "delete", m))
                }
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
    ) -> Result<UploadedPart> {
        let (key, upload) = (key.clone(), upload.to_owned());
        let len = body.len();
        self.feed(body, move |root, next| {
            let mut file = upload_file(root, &key, &upload)?;
            let (size, crc64) = write_checked(&key, &mut file, offset, len, next)?;
            Ok(UploadedPart {
                number,
                etag: hex(&crc64.to_be_bytes()),
                size,
                opaque: false,
                crc64: None,
                md5: None,
            })
        })
        .await
    }

    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        let (key, upload) = (key.clone(), upload.to_owned());
        let total: u64 = parts.iter().map(|p| p.size).sum();
        self.blocking(move |root| {
            let file = upload_file(root, &key, &upload)?;
            let failed = |e: std::io::Error| std_failure("complete_upload", &key, &e);
            if file.metadata().map_err(failed)?.len() != total {
                let m = format!("`{key}`: the parts do not add up to {total} bytes");
                return Err(Error::new(Kind::Corrupt, "complete_upload", m));
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
            let published = publish(root, &key, &dir, &upload, &file, &sidecar::decode(&text))?;
            let _ = rustix::fs::unlinkat(&dir, &side, AtFlags::empty());
            Ok(published)
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

    async fn list_parts(&self, _key: &Key, _upload: &str) -> Result<Vec<UploadedPart>> {
        Err(Error::new(Kind::Unsupported, "list_parts", "files do not have part information"))
    }

    async fn list_uploads(&self, _prefix: &str) -> Result<Vec<(Key, String)>> {
        self.blocking(move |root| {
            let (dir, path) = root.own("uploads")?;
            let failed = |e: Errno| io_failure("list_uploads", &root.path.display(), e);
            let mut found = Vec::new();
            for entry in rustix::fs::Dir::read_from(&dir).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
                let Some(id) = name.strip_suffix(".meta") else { continue };
                // A process that was killed after its upload had become a file left this.
                if rustix::fs::statat(&dir, id, AtFlags::SYMLINK_NOFOLLOW).is_err_and(|e| e == Errno::NOENT) {
                    let _ = rustix::fs::unlinkat(&dir, &name, AtFlags::empty());
                    continue;
                }
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
        Err(Error::new(Kind::Unsupported, "copy", "directories do not support server-side copy"))
    }

    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        let key = key.clone();
        self.blocking(move |root| {
            let (file, _) = root.stat(&key)?;
            Ok(sidecar::read(root, &key, &file).unwrap_or_default().tags)
        })
        .await
    }

    async fn flush(&self) -> Result<()> {
        self.blocking(|root| {
            rustix::fs::syncfs(&root.fd).map_err(|e| io_failure("settle", &root.path.display(), e))
        })
        .await
    }

    fn ignored_entries(&self) -> Vec<String> {
        self.inner.ignored.list()
    }

    async fn buckets(&self) -> Result<Vec<String>> {
        Err(Error::new(Kind::Unsupported, "buckets", "a directory does not have buckets"))
    }
}

fn upload_file(root: &Root, key: &Key, upload: &str) -> Result<File> {
    if !upload.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Err(Error::new(Kind::NotFound, "write_part", "the upload does not exist"));
    }
    let path = Path::new(RESERVED_DIR).join("uploads").join(upload);
    let fd = root.open(&path, OFlags::RDWR).map_err(|e| io_failure("write_part", key, e))?;
    Ok(File::from(fd))
}

/// Opens a file once a later change of it would show in its times: they advance in steps, and of two changes within one
/// step the second leaves no trace.
fn settled(root: &Root, key: &Key) -> Result<(File, FileStat)> {
    for _ in 0..SETTLE_WAITS {
        let found = root.stat(key)?;
        if !changed_within(&found.1, TIME_STEP) {
            return Ok(found);
        }
        std::thread::park_timeout(TIME_STEP);
    }
    Err(Error::new(Kind::Changed, "read", format!("`{key}` is being written")))
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
            Ok(0) => {
                Err(Error::new(Kind::Changed, "read", format!("`{key}` became shorter while it was read")))
            }
            Ok(n) => {
                left -= n as u64;
                chunk.truncate(n);
                let unchanged = left > 0 || FileStat::of(&*file).is_ok_and(|now| etag_of(&now) == *etag);
                if unchanged {
                    Ok(Bytes::from(chunk))
                } else {
                    Err(Error::new(Kind::Changed, "read", format!("`{key}` changed while it was read")))
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
