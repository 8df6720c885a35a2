//! The threads on which the system calls of one directory run.
//!
//! On a local disk the processors do the work, so a few threads do it best: the next call is taken from a queue without
//! waking anybody. A network file system answers many calls at once, and each of them waits. The runtimes that move bytes
//! share the threads of a directory.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use model::error::{Error, Kind, Result};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;

/// Calls in flight at a network file system.
const NETWORK_THREADS: usize = 64;
/// Threads that wait for the bytes of a body.
const MAX_WRITERS: usize = 64;

/// File systems of this machine by their magic number (`statfs(2)`): ext4, XFS, Btrfs, tmpfs, overlayfs, F2FS, ZFS, bcachefs.
const LOCAL_FILE_SYSTEMS: [i64; 8] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0xf2f5_2010, 0x2fc1_2fc1, 0xca45_1a4e];

/// A bounded set of threads, started when they are needed.
#[derive(Debug)]
pub(super) struct FsThreads {
    /// Never driven: it only owns the threads.
    runtime: Option<Runtime>,
    writers: Arc<Semaphore>,
}

impl FsThreads {
    pub(super) fn new(root: &OwnedFd) -> std::io::Result<Self> {
        let is_local = rustix::fs::fstatfs(root).is_ok_and(|s| LOCAL_FILE_SYSTEMS.contains(&{ s.f_type }));
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = if is_local { (2 * processors).min(NETWORK_THREADS) } else { NETWORK_THREADS };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(threads)
            .thread_name("files")
            .build()?;
        Ok(Self { runtime: Some(runtime), writers: Arc::new(Semaphore::new(MAX_WRITERS)) })
    }

    /// Runs calls that do not wait for anything but the file system.
    ///
    /// # Errors
    /// Those of `work`; [`Kind::Internal`] when it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(runtime) = &self.runtime else { return Err(Error::stopped("fs")) };
        runtime.spawn_blocking(work).await.unwrap_or_else(|e| Err(ended(&e)))
    }

    /// Runs work that waits for bytes from somewhere else, on a thread of the caller's runtime.
    ///
    /// # Errors
    /// As [`FsThreads::run`].
    pub(super) async fn run_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.writers.clone().acquire_owned().await.map_err(|e| ended(&e))?;
        let done = Handle::current().spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.unwrap_or_else(|e| Err(ended(&e)))
    }
}

fn ended(why: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Internal, "fs", format!("a file worker ended unexpectedly: {why}"))
}

impl Drop for FsThreads {
    /// Does not wait: what still runs ends by itself.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
