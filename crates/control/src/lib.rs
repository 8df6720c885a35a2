//! Use cases: validate, check, write down, wake. Called by every face; no face has logic of its own.

mod addresses;
pub mod bandwidth;
pub mod buckets;
pub mod catalogue;
pub mod create;
pub mod groups;
pub mod identity;
pub mod migrations;
mod open;
pub mod precheck;
pub mod refusal;
mod report;
pub mod secrets;
pub mod sync;
pub mod tasks;

use std::sync::Arc;

use config::Limits;
use pace::clock::SharedClock;
use runtime::Engine;

pub use catalogue::Catalogue;
pub use identity::Directory;
pub use refusal::Refusal;

/// What the faces call.
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
    pub limits: Arc<Limits>,
    /// Zone of stamps and windows, minutes east of UTC.
    pub zone_minutes: i32,
}
