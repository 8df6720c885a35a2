//! The object engine: list, compare, transfer, prove, and note it in the ledger.
//!
//! ```text
//! source listing ─┐
//!                 ├─> compare ─> plan ─> transfer ─> proof ─> window ─> ledger
//! target listing ─┘      (pure)  (pure)                       (pure)   (one transaction a second)
//! ```
//!
//! A [`job::Job`] works on one task. It walks ranges of the key space, splits the largest when I/O threads are idle
//! (`ranges/key_distribution.rs`), and can be stopped at any moment: what is in the ledger is never asked for again.

pub mod compare;
pub mod glob;
mod integrity;
pub mod inventory;
pub mod job;
pub mod ledger;
pub mod listed_keys;
mod listing;
pub mod progress;
mod ranges;
pub mod report;
pub mod transfer;
pub mod verify;

pub use job::{Job, JobEnd};
pub use progress::Progress;
