//! Several Redis migrations (dcs-migration.md §2.2, §2.4, §2.8).

pub(crate) mod batch_restart;
pub(crate) mod delete;
pub(crate) mod list;
