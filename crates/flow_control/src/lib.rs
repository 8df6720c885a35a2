//! How we wait, limit and stop.

pub mod backoff;
pub mod budget;
pub mod caller_limit;
pub mod clock;
pub mod fair_queue;
pub mod io_threads;
pub mod limit;
