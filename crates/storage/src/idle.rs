//! Idle connections of one endpoint, kept for each thread: a connection is used again on the thread that opened it.
//!
//! The pool belongs to its clients. When the last of them is dropped, all of its connections close.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// A connection that was idle for longer is closed: the server may be about to close it.
const MAX_AGE: Duration = Duration::from_secs(25);
/// Idle connections that a thread keeps.
const MAX_PER_THREAD: usize = 512;

type Threads<C> = HashMap<ThreadId, VecDeque<(C, Instant)>>;

/// The idle connections `C` of one endpoint.
#[derive(Debug)]
pub(crate) struct IdlePool<C> {
    threads: Mutex<Threads<C>>,
}

impl<C> Default for IdlePool<C> {
    fn default() -> Self {
        Self { threads: Mutex::default() }
    }
}

impl<C> IdlePool<C> {
    fn threads(&self) -> MutexGuard<'_, Threads<C>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection of this thread that was used last, of those that are young enough and `usable`.
    pub(crate) fn take(&self, usable: impl Fn(&C) -> bool) -> Option<C> {
        let mut threads = self.threads();
        let idle = threads.get_mut(&std::thread::current().id())?;
        while let Some((connection, since)) = idle.pop_back() {
            if since.elapsed() < MAX_AGE && usable(&connection) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request of this thread; those that are too old are closed.
    pub(crate) fn put(&self, connection: C) {
        let mut threads = self.threads();
        let idle = threads.entry(std::thread::current().id()).or_default();
        while idle.front().is_some_and(|(_, since)| since.elapsed() >= MAX_AGE) {
            idle.pop_front();
        }
        if idle.len() < MAX_PER_THREAD {
            idle.push_back((connection, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn last_used_connection_of_the_thread_is_reused_first() {
        let pool = Arc::new(IdlePool::default());
        let other = pool.clone();
        std::thread::spawn(move || other.put(0)).join().unwrap();
        pool.put(1);
        pool.put(2);
        assert_eq!(pool.take(|_| true), Some(2));
        assert_eq!(pool.take(|c| *c != 1), None);
        assert_eq!(pool.take(|_| true), None);
    }

    #[test]
    fn dropped_pool_closes_its_connections() {
        let (pool, connection) = (IdlePool::default(), Arc::new(()));
        pool.put(connection.clone());
        assert_eq!(Arc::strong_count(&connection), 2);
        drop(pool);
        assert_eq!(Arc::strong_count(&connection), 1);
    }
}
