//! Online Redis migrations in two calls: create, then configure (dcs-migration.md §2.9, §2.10).

pub(crate) mod instance;
pub(crate) mod task;
