//! OMS v2.

pub(crate) mod credentials;
pub(crate) mod objectstorage;
pub(crate) mod privacy_agreements;
pub(crate) mod sync_tasks;
pub(crate) mod taskgroups;
pub(crate) mod tasks;
