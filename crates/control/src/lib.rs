//! Use cases: validate, check, store, wake. Every version of the API calls them and has no logic of its own.

pub mod audit;
pub mod audit_file;
pub mod bandwidth;
pub mod buckets;
pub mod catalogue;
pub mod create;
pub mod groups;
pub mod health;
pub mod identity;
pub mod migrations;
mod open;
pub mod outgoing;
pub mod precheck;
pub mod report;
pub mod request_limits;
pub mod secrets;
pub mod sync;
pub mod task_error;
pub mod tasks;

use std::sync::{Arc, RwLock};

use config::Limits;
use flow_control::clock::SharedClock;
use runtime::Engine;

pub use catalogue::Catalogue;
pub use identity::Directory;
pub use task_error::TaskError;

/// Limits as they are now.
#[derive(Debug, Default)]
pub struct SharedLimits(RwLock<Arc<Limits>>);

impl SharedLimits {
    /// Begins with these.
    pub fn new(limits: Limits) -> Self {
        Self(RwLock::new(Arc::new(limits)))
    }

    /// As they are now.
    pub fn current(&self) -> Arc<Limits> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Others from here on.
    pub fn replace(&self, limits: Limits) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(limits);
    }
}

/// What the versions of the API call.
#[derive(Clone)]
pub struct Control {
    /// The engine of this process and its store.
    pub engine: Arc<Engine>,
    /// What regions mean.
    pub catalogue: Arc<Catalogue>,
    /// Who may call.
    pub directory: Arc<Directory>,
    /// Time.
    pub clock: SharedClock,
    /// Limits.
    pub limits: Arc<SharedLimits>,
    /// Zone of stamps and windows, minutes east of UTC.
    pub zone_minutes: i32,
    /// Calls that wait for servers which their callers named.
    pub outgoing: outgoing::OutgoingLimit,
    /// Reports that are made or read.
    pub reports: report::ReportLimit,
    /// Requests that are answered at once, by all faces together.
    pub requests: request_limits::RequestLimits,
    /// Writes audit lines to a file or the standard output, in addition to the database.
    pub audit_file: Arc<audit_file::AuditFile>,
}

impl Control {
    /// The same for one project, without stores, instances and buckets that the operator gave to other projects only.
    #[must_use]
    pub fn for_project(&self, project: &str) -> Self {
        Self { catalogue: Arc::new(self.catalogue.for_project(project)), ..self.clone() }
    }
}
