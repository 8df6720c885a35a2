//! What has arrived from the source and is not applied yet: in memory first, on the disk when the target is slower. The
//! source is made to wait only when the disk's share is used up too.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use model::error::{Error, Kind, Result};
use storage::checksum::{DigestSet, Hasher};
use tokio::sync::Notify;

/// Length and CRC-64 before each piece on the disk.
const FRAME_BYTES: usize = 12;
/// One piece on the disk is at most so long.
const CHUNK_MAX: usize = 1 << 20;

/// Longest command unless something else is said: a text of the servers' own bound, and what stands around it.
pub const COMMAND_MAX: usize = 513 << 20;

/// Bounds of what waits between both ends, bytes.
#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    /// In memory.
    pub memory: u64,
    /// On the disk.
    pub disk: u64,
    /// One command of the stream: it is taken as a whole.
    pub command: usize,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { memory: 8 << 20, disk: 64 << 30, command: COMMAND_MAX }
    }
}

#[derive(Debug, Default)]
struct State {
    memory: VecDeque<Bytes>,
    memory_bytes: u64,
    /// What is on the disk lies between these.
    read: u64,
    written: u64,
    /// Bytes of pieces on the disk, without their frames.
    disk_bytes: u64,
    /// Bytes that were written since the free space was checked.
    bytes_since_check: u64,
    ended: Option<Result<()>>,
}

/// A queue of bytes between a source and its target.
#[derive(Debug)]
pub struct Spool {
    state: Mutex<State>,
    file: File,
    dir: PathBuf,
    bounds: SpoolLimits,
    arrived: Notify,
    room: Notify,
}

fn crc(bytes: &[u8]) -> u64 {
    let mut hasher = Hasher::new(DigestSet { crc64_nvme: true, ..DigestSet::default() });
    hasher.update(bytes);
    hasher.finish().sums.crc64_nvme.unwrap_or_default()
}

fn failed(e: std::io::Error) -> Error {
    Error::new(Kind::Internal, "spool", e.to_string())
}

impl Spool {
    /// A spool whose file lives in `dir`, without a name, so that it goes with the process.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn new(dir: &Path, bounds: SpoolLimits) -> Result<Arc<Self>> {
        let file = tempfile::tempfile_in(dir).map_err(failed)?;
        let (state, dir) = (Mutex::default(), dir.to_owned());
        Ok(Arc::new(Self { state, file, dir, bounds, arrived: Notify::new(), room: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Bytes that wait, on the disk and in memory.
    pub fn queued_bytes(&self) -> u64 {
        let state = self.state();
        state.memory_bytes + state.disk_bytes
    }

    /// Bytes that wait on the disk.
    pub fn disk_bytes(&self) -> u64 {
        self.state().disk_bytes
    }

    /// Adds bytes; waits only when both bounds are reached.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn push(&self, bytes: Bytes) -> Result<()> {
        for start in (0..bytes.len()).step_by(CHUNK_MAX) {
            let chunk = bytes.slice(start..(start + CHUNK_MAX).min(bytes.len()));
            loop {
                let room = self.room.notified();
                if self.try_push(&chunk)? {
                    break;
                }
                room.await;
            }
            self.arrived.notify_one();
        }
        Ok(())
    }

    fn try_push(&self, chunk: &Bytes) -> Result<bool> {
        let mut state = self.state();
        let len = chunk.len() as u64;
        // What came later stays behind what is on the disk.
        if state.disk_bytes == 0 && state.memory_bytes + len <= self.bounds.memory {
            state.memory.push_back(chunk.clone());
            state.memory_bytes += len;
            return Ok(true);
        }
        if state.disk_bytes + len > self.bounds.disk {
            return Ok(false);
        }
        state.bytes_since_check += len;
        if state.bytes_since_check >= storage::disk_space::CHECK_INTERVAL_BYTES {
            // Nothing is lost: the source continues from the checkpoint when there is room again.
            storage::disk_space::check(&self.dir)?;
            state.bytes_since_check = 0;
        }
        let mut frame = Vec::with_capacity(FRAME_BYTES + chunk.len());
        frame.extend_from_slice(&u32::try_from(chunk.len()).unwrap_or(u32::MAX).to_le_bytes());
        frame.extend_from_slice(&crc(chunk).to_le_bytes());
        frame.extend_from_slice(chunk);
        self.file.write_all_at(&frame, state.written).map_err(failed)?;
        state.written += frame.len() as u64;
        state.disk_bytes += len;
        Ok(true)
    }

    /// No more will come. A failure is returned after everything that was received.
    pub fn end(&self, result: Result<()>) {
        self.state().ended = Some(result);
        self.arrived.notify_one();
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// The failure that the source ended with, or the disk's.
    pub async fn pop(&self) -> Result<Option<Bytes>> {
        loop {
            let arrived = self.arrived.notified();
            if let Some(next) = self.try_pop()? {
                return Ok(next);
            }
            arrived.await;
        }
    }

    /// As [`Spool::pop`], without waiting; none when there is nothing now.
    ///
    /// # Errors
    /// As [`Spool::pop`].
    pub fn try_pop(&self) -> Result<Option<Option<Bytes>>> {
        let mut state = self.state();
        if let Some(bytes) = state.memory.pop_front() {
            state.memory_bytes -= bytes.len() as u64;
            self.room.notify_one();
            return Ok(Some(Some(bytes)));
        }
        if state.disk_bytes > 0 {
            let mut frame = [0; FRAME_BYTES];
            self.file.read_exact_at(&mut frame, state.read).map_err(failed)?;
            let mut len = [0; 4];
            len.copy_from_slice(&frame[..4]);
            let mut sum = [0; 8];
            sum.copy_from_slice(&frame[4..]);
            let mut chunk = vec![0; u32::from_le_bytes(len) as usize];
            self.file.read_exact_at(&mut chunk, state.read + FRAME_BYTES as u64).map_err(failed)?;
            if crc(&chunk) != u64::from_le_bytes(sum) {
                let m = "the bytes read from the spool file differ from the bytes written";
                return Err(Error::new(Kind::Corrupt, "spool", m));
            }
            state.read += (FRAME_BYTES + chunk.len()) as u64;
            state.disk_bytes -= chunk.len() as u64;
            if state.disk_bytes == 0 {
                self.file.set_len(0).map_err(failed)?;
                (state.read, state.written) = (0, 0);
            }
            self.room.notify_one();
            return Ok(Some(Some(chunk.into())));
        }
        match &state.ended {
            Some(Ok(())) => Ok(Some(None)),
            Some(Err(failure)) => Err(failure.clone()),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn spool_returns_bytes_in_order_through_memory_and_disk() {
        let dir = std::env::temp_dir();
        let bounds = SpoolLimits { memory: 100, disk: 1 << 20, ..SpoolLimits::default() };
        let spool = Spool::new(&dir, bounds).unwrap();
        let mut random = fastrand_like(3);
        let mut sent = Vec::new();
        let mut got = Vec::new();
        for round in 0..200 {
            let bytes: Vec<u8> = (0..random() % 90).map(|i| (i + round) as u8).collect();
            sent.extend_from_slice(&bytes);
            spool.push(bytes.into()).await.unwrap();
            if random().is_multiple_of(3) {
                while let Some(Some(bytes)) = spool.try_pop().unwrap() {
                    got.extend_from_slice(&bytes);
                    if random().is_multiple_of(4) {
                        break;
                    }
                }
            }
        }
        assert!(spool.disk_bytes() > 0 || got.len() < sent.len());
        spool.end(Ok(()));
        while let Some(bytes) = spool.pop().await.unwrap() {
            got.extend_from_slice(&bytes);
        }
        assert!(got == sent);
        assert_eq!(spool.queued_bytes(), 0);
    }

    #[tokio::test]
    async fn spool_blocks_the_source_at_both_limits() {
        let bounds = SpoolLimits { memory: 10, disk: 10, ..SpoolLimits::default() };
        let spool = Spool::new(&std::env::temp_dir(), bounds).unwrap();
        spool.push(Bytes::from_static(b"0123456789")).await.unwrap();
        spool.push(Bytes::from_static(b"abcdefghij")).await.unwrap();
        let mut third = tokio::spawn({
            let spool = spool.clone();
            async move { spool.push(Bytes::from_static(b"x")).await }
        });
        tokio::select! {
            biased;
            done = &mut third => panic!("there was no room: {done:?}"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(&spool.pop().await.unwrap().unwrap()[..], b"0123456789");
        assert_eq!(&spool.pop().await.unwrap().unwrap()[..], b"abcdefghij");
        third.await.unwrap().unwrap();
        assert_eq!(&spool.pop().await.unwrap().unwrap()[..], b"x");
    }

    /// Small numbers that look random.
    fn fastrand_like(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 40
        }
    }
}
