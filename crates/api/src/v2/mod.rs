//! OMS v2.

pub(crate) mod objectstorage;
pub(crate) mod tasks;
