//! The object engine: list, compare, transfer, prove, and note it in the ledger.
//!
//! ```text
//! source listing ─┐
//!                 ├─> compare ─> plan ─> transfer ─> proof ─> window ─> ledger
//! target listing ─┘      (pure)  (pure)                       (pure)   (one transaction a second)
//! ```
//!
//! A [`job::Job`] works on one task. It walks ranges of the key space, splits the largest when lanes are idle
//! ([`key_distribution`]), and can be stopped at any moment: what is in the ledger is never asked for again.

pub mod compare;
pub mod delete_extras;
mod feed;
pub mod glob;
mod integrity;
pub mod inventory;
pub mod job;
mod key_distribution;
mod ledger;
mod lister;
mod multipart;
pub mod outcome;
mod parts_limit;
pub mod plan;
mod precount;
pub mod progress;
mod proof;
mod range_runner;
mod range_scheduler;
pub mod records;
pub mod report;
pub mod restored;
mod transfer;
pub mod verify;
pub mod versions;
mod window;

pub use job::{Job, JobEnd};
pub use progress::Progress;
