//! How we wait, limit and stop.

pub mod backoff;
pub mod budget;
pub mod clock;
pub mod lanes;
pub mod limit;
pub mod shares;
