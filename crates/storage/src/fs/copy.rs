//! Copies from one directory of this machine to another: the bytes go from file to file on one thread.
//!
//! A file is copied into a temporary file, read back, compared by CRC-64/NVME and moved to its place. [`CopyControl`] tells
//! the thread to stop, and its owner whether the file is being moved to its place already.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use flow_control::budget::Bandwidth;
use model::error::{Error, Kind, Result, Side};
use model::key::Key;
use rustix::fs::{AtFlags, Mode};

use super::error::{io_failure, std_failure};
use super::meta::{FileStat, etag_of, meta_of};
use super::root::Root;
use super::write::publish;
use super::{CHUNK, Fs, RW_NEW, read_back, settled, upload_file};
use crate::checksum::{Checksums, DigestSet, Digests, Hasher, hex};
use crate::etag::Etag;
use crate::meta::Meta;
use crate::{UploadedPart, Written};

/// A thread that waits for bandwidth looks so often whether it is to stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);

const COPYING: u8 = 0;
const PUBLISHING: u8 = 1;
const CANCELLED: u8 = 2;

/// What a copy shares with the transfer that waits for it.
#[derive(Clone, Debug)]
pub struct CopyControl {
    bandwidth: Arc<Bandwidth>,
    moved: Arc<AtomicU64>,
    state: Arc<AtomicU8>,
}

impl CopyControl {
    /// A copy that pays `bandwidth` for its bytes and adds them to `moved`.
    pub fn new(bandwidth: Arc<Bandwidth>, moved: Arc<AtomicU64>) -> Self {
        Self { bandwidth, moved, state: Arc::default() }
    }

    /// Stops the copy; false when the file is being moved to its place already.
    pub fn cancel(&self) -> bool {
        self.change(CANCELLED) != Err(PUBLISHING)
    }

    fn change(&self, to: u8) -> std::result::Result<u8, u8> {
        self.state.compare_exchange(COPYING, to, Ordering::AcqRel, Ordering::Acquire)
    }

    fn publishes(&self) -> Result<()> {
        self.change(PUBLISHING).map(drop).map_err(|_| Error::stopped("copy"))
    }

    /// Waits until `bytes` may move.
    fn pay(&self, bytes: u64) -> Result<()> {
        let ticket = self.bandwidth.reserve(bytes);
        loop {
            if self.state.load(Ordering::Acquire) == CANCELLED {
                return Err(Error::stopped("copy"));
            }
            match ticket.and_then(|ticket| self.bandwidth.due(ticket)) {
                Some(wait) => std::thread::park_timeout(wait.min(STOP_CHECK_INTERVAL)),
                None => return Ok(()),
            }
        }
    }
}

/// Stops a copy whose owner is dropped.
struct CancelOnDrop(CopyControl);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// One file to copy.
#[derive(Clone, Debug)]
pub struct FileCopy {
    /// The key at the source.
    pub from: Key,
    /// The key at the target.
    pub to: Key,
    /// Fail with [`Kind::Changed`] unless the source file has this ETag.
    pub if_match: Option<Etag>,
}

/// One part of a file to copy into an open upload.
#[derive(Clone, Debug)]
pub struct PartCopy {
    /// The key at the source.
    pub from: Key,
    /// Fail with [`Kind::Changed`] unless the source file has this ETag.
    pub etag: Etag,
    /// Bytes of the file.
    pub range: Range<u64>,
    /// The open upload at the target.
    pub upload: String,
    /// Number of the part, from 1.
    pub number: u32,
}

/// A file that was copied.
#[derive(Debug)]
pub struct CopiedFile {
    /// The source file, as it was read.
    pub source: Meta,
    /// The bytes read.
    pub seen: Digests,
    /// The bytes read back from the target.
    pub written: Written,
}

impl Fs {
    /// Copies a file of `source` into this directory. `target_meta` makes the metadata of the copy.
    ///
    /// # Errors
    /// [`Kind::Changed`] when the source file is another than asked for or changes meanwhile; [`Kind::Corrupt`] when
    /// other bytes are read back than were written; [`Kind::Stopped`] after [`CopyControl::cancel`].
    pub async fn copy_file(
        &self,
        source: &Fs,
        job: FileCopy,
        control: CopyControl,
        target_meta: impl FnOnce(&Meta) -> Meta + Send + 'static,
    ) -> Result<CopiedFile> {
        let from_root = source.inner.clone();
        self.blocking(move |root| {
            let source = OpenSource::open(&from_root, &job.from, job.if_match.as_ref())?;
            let size = source.meta.size;
            let meta = target_meta(&source.meta);
            let at_target = |e: Error| e.at(Side::Target);
            let dir = root.temp_dir().map_err(at_target)?;
            let temp = root.temp_name();
            let failed = |e| io_failure("write", &job.to, e).at(Side::Target);
            let fd = rustix::fs::openat(dir, &temp, RW_NEW, Mode::from_raw_mode(0o666)).map_err(failed)?;
            let file = File::from(fd);
            let done = source.copy_range(&job.to, &file, 0..size, 0, &control).and_then(|seen| {
                control.publishes()?;
                let published = publish(root, &job.to, dir, &temp, &file, &meta).map_err(at_target)?;
                Ok((seen, Written { sums: seen.sums, ..published }))
            });
            if done.is_err() {
                let _ = rustix::fs::unlinkat(dir, &temp, AtFlags::empty());
            }
            let (seen, written) = done?;
            Ok(CopiedFile { source: source.meta, seen, written })
        })
        .await
    }

    /// Copies a part of a file of `source` into an open upload of this directory.
    ///
    /// # Errors
    /// As [`Fs::copy_file`]; [`Kind::NotFound`] when there is no such upload.
    pub async fn copy_part(
        &self,
        source: &Fs,
        to: &Key,
        job: PartCopy,
        control: CopyControl,
    ) -> Result<(UploadedPart, Digests)> {
        let (from_root, to) = (source.inner.clone(), to.clone());
        let _cancel = CancelOnDrop(control.clone());
        self.blocking(move |root| {
            let source = OpenSource::open(&from_root, &job.from, Some(&job.etag))?;
            let file = upload_file(root, &to, &job.upload).map_err(|e| e.at(Side::Target))?;
            let offset = job.range.start;
            let seen = source.copy_range(&to, &file, job.range, offset, &control)?;
            let etag = hex(&seen.sums.crc64_nvme.unwrap_or(0).to_be_bytes());
            let part = UploadedPart {
                number: job.number,
                etag,
                size: seen.bytes,
                opaque: false,
                crc64: None,
                md5: None,
            };
            Ok((part, seen))
        })
        .await
    }
}

/// A file of the source that is being copied.
struct OpenSource {
    key: Key,
    file: File,
    meta: Meta,
}

impl OpenSource {
    fn open(root: &Root, key: &Key, if_match: Option<&Etag>) -> Result<Self> {
        let (file, stat) = settled(root, key).map_err(|e| e.at(Side::Source))?;
        let meta = meta_of(root, key, &file, &stat);
        if if_match.is_some_and(|etag| !etag.is_none() && *etag != meta.etag) {
            return Err(changed(key, "has changed since it was listed"));
        }
        Ok(Self { key: key.clone(), file, meta })
    }

    /// Copies a range to `offset` of the target file and reads it back; the digests are those of both.
    fn copy_range(
        &self,
        to: &Key,
        target: &File,
        range: Range<u64>,
        offset: u64,
        control: &CopyControl,
    ) -> Result<Digests> {
        let len = range.end - range.start;
        let mut hasher = Hasher::new(DigestSet { crc64_nvme: true, ..DigestSet::default() });
        let mut buffer = vec![0; CHUNK.min(usize::try_from(len).unwrap_or(CHUNK))];
        let mut done = 0;
        while done < len {
            let want = buffer.len().min(usize::try_from(len - done).unwrap_or(buffer.len()));
            control.pay(want as u64)?;
            let chunk = &mut buffer[..want];
            self.file.read_exact_at(chunk, range.start + done).map_err(|e| self.not_read(&e))?;
            hasher.update(chunk);
            let failed = |e: std::io::Error| std_failure("write", to, &e).at(Side::Target);
            target.write_all_at(chunk, offset + done).map_err(failed)?;
            done += want as u64;
            control.moved.fetch_add(want as u64, Ordering::Relaxed);
        }
        let seen = hasher.finish();
        if !FileStat::of(&self.file).is_ok_and(|now| etag_of(&now) == self.meta.etag) {
            return Err(changed(&self.key, "changed while it was read"));
        }
        if read_back(to, target, offset, &mut buffer, len).map_err(|e| e.at(Side::Target))? != seen {
            let m = format!("`{to}`: the bytes read back differ from the bytes written");
            return Err(Error::new(Kind::Corrupt, "write", m).at(Side::Target));
        }
        Ok(Digests { sums: Checksums { crc64_nvme: seen.sums.crc64_nvme, ..Checksums::default() }, ..seen })
    }

    fn not_read(&self, e: &std::io::Error) -> Error {
        match e.kind() {
            std::io::ErrorKind::UnexpectedEof => changed(&self.key, "became shorter while it was read"),
            _ => std_failure("read", &self.key, e).at(Side::Source),
        }
    }
}

fn changed(key: &Key, how: &str) -> Error {
    Error::new(Kind::Changed, "read", format!("`{key}` {how}")).at(Side::Source)
}
