//! The threads that move bytes: one single-threaded runtime per core.
//!
//! A connection, its driver and the transfer that uses it stay on one thread, so that no chunk crosses
//! cores (measured: a fifth less CPU than one shared runtime).

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A fixed set of thread threads.
#[derive(Debug)]
pub struct IoThreads {
    handles: Vec<Handle>,
    next: AtomicUsize,
    stops: Vec<Option<oneshot::Sender<()>>>,
    threads: Vec<JoinHandle<()>>,
}

impl IoThreads {
    /// Starts `n` threads (at least one).
    ///
    /// # Errors
    /// When the operating system gives no thread or no event queue.
    pub fn start(n: usize) -> std::io::Result<Self> {
        let (mut handles, mut stops, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..n.max(1) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let (stop, stopped) = oneshot::channel();
            stops.push(Some(stop));
            let thread = std::thread::Builder::new().name(format!("io-{i}"));
            threads.push(thread.spawn(move || {
                // Ends when `IoThreads` is dropped; whatever still runs is dropped with the runtime.
                let _ = runtime.block_on(stopped);
            })?);
        }
        Ok(Self { handles, next: AtomicUsize::new(0), stops, threads })
    }

    /// Runs everything on an existing runtime, for tests with a virtual clock.
    pub fn on_runtime(handle: Handle) -> Self {
        Self { handles: vec![handle], next: AtomicUsize::new(0), stops: vec![], threads: vec![] }
    }

    /// The next thread in turn.
    pub fn handle(&self) -> &Handle {
        let i = self.next.fetch_add(1, Ordering::Relaxed);
        &self.handles[i % self.handles.len()]
    }

    /// Runs `work` on the next thread in turn and gives back its result; none if it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.handle().spawn(work).await.ok()
    }
}

impl Drop for IoThreads {
    fn drop(&mut self) {
        for stop in &mut self.stops {
            if let Some(stop) = stop.take() {
                let _ = stop.send(());
            }
        }
        // The last that holds the I/O threads may be work on one of them, which cannot wait for itself.
        let own = std::thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != own) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn io_threads_can_be_dropped_on_one_of_their_threads() {
        let io_threads = std::sync::Arc::new(IoThreads::start(1).expect("threads"));
        let (held, (dropped, seen)) = (io_threads.clone(), oneshot::channel());
        let (go, gone) = oneshot::channel::<()>();
        io_threads.handle().spawn(async move {
            let _ = gone.await;
            drop(held);
            let _ = dropped.send(());
        });
        drop(io_threads);
        let _ = go.send(());
        seen.await.expect("it went on behind the drop");
    }

    #[tokio::test]
    async fn io_threads_run_work_in_turn() {
        let io_threads = IoThreads::start(2).expect("threads");
        let name = || async { std::thread::current().name().map(str::to_owned) };
        let a = io_threads.run(name()).await.flatten();
        let b = io_threads.run(name()).await.flatten();
        assert_eq!((a.as_deref(), b.as_deref()), (Some("io-0"), Some("io-1")));
    }
}
