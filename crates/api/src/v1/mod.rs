//! OMS v1 (oms.md §6): the same tasks in the older words.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod operate;
pub(crate) mod quotas;
pub(crate) mod show;
pub(crate) mod version;
