//! Nouns, identities and states of a migration.
//!
//! Nothing here reads a clock, opens a socket or awaits: "now" is always an argument.

pub mod count;
pub mod error;
pub mod group;
pub mod instant;
pub mod key;
pub mod migration;
pub mod parent;
pub mod policy;
pub mod printable;
pub mod selection;
pub mod spec;
pub mod task;
