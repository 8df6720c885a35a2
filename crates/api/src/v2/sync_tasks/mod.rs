//! Sync tasks (oms.md §2.5).

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod list;
pub(crate) mod show;
pub(crate) mod start;
pub(crate) mod statistics;
pub(crate) mod stop;
