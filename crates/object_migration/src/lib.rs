//! The object engine: list, compare, transfer, prove, and note it in the ledger.
//!
//! ```text
//! source listing ─┐
//!                 ├─> compare ─> plan ─> transfer ─> proof ─> window ─> ledger
//! target listing ─┘      (pure)  (pure)                       (pure)   (one transaction a second)
//! ```
//!
//! A [`job::Job`] works on one task. It walks ranges of the key space, splits the largest when lanes are idle
//! ([`sketch`]), and can be stopped at any moment: what is in the ledger is never asked for again.

pub mod assess;
pub mod compare;
mod feed;
mod field;
pub mod glob;
pub mod history;
mod integrity;
pub mod job;
mod large;
mod ledger;
mod lister;
pub mod outcome;
mod parts_limit;
pub mod plan;
pub mod progress;
mod proof;
pub mod prune;
mod range;
pub mod records;
pub mod report;
pub mod restored;
mod sketch;
mod survey;
mod transfer;
pub mod verify;
mod window;

pub use job::{Ended, Job};
pub use progress::Progress;
