//! OMS v2, and the migrations of DCS.

pub(crate) mod audit;
pub(crate) mod credentials;
pub(crate) mod instances;
pub(crate) mod jobs;
pub(crate) mod migration;
pub(crate) mod migration_task;
pub(crate) mod migration_tasks;
pub(crate) mod objectstorage;
pub(crate) mod privacy_agreements;
pub(crate) mod sync_tasks;
pub(crate) mod taskgroups;
pub(crate) mod tasks;
pub(crate) mod vendors;
