//! The stream of changes: applied in transactions, each with the checkpoint behind it.

pub(crate) mod apply;
pub(crate) mod command_filter;
pub(crate) mod connections;
pub(crate) mod existing_keys;
pub(crate) mod expiry_guard;
pub(crate) mod follower;
pub(crate) mod key_repair;
pub(crate) mod scripts;
pub(crate) mod translate;
