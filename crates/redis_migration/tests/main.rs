//! The Redis engine against real servers of several versions, which each test starts for itself.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod cases;
mod cluster;
mod exactly_once;
mod existing_keys;
mod expiry;
mod fill;
mod proxy;
mod scan;
mod shared_target;
mod support;
mod versions;
