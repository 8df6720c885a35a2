//! The Redis engine: a snapshot and the stream of changes behind it, from one server to another.
//!
//! ```text
//! source ──> spool ──> parse ──> restore / rebuild ──> target
//!   ^       (memory,   (spans)    (pure, per key)     (one pipeline,
//!   │        then disk)                                answers counted)
//!   └────────────── offset acknowledged <── offset stored with the data
//! ```
//!
//! The source is never made to wait for a slow target: what has arrived waits in the [`spool`]. Changes are applied in
//! transactions that also store the replication offset at the target ([`apply`]), so that whatever is interrupted goes on
//! from there, exactly once.

pub mod apply;
pub mod archive;
pub mod backup;
pub mod checkpoint;
pub mod client;
mod cluster_source;
mod command_filter;
pub mod events;
pub mod expiry_guard;
mod full_sync;
pub mod functions;
pub mod import;
mod key_repair;
pub mod load;
pub mod migration;
pub mod node;
pub mod progress;
pub mod query_client;
pub mod rebuild;
pub mod reconnect;
pub mod restore;
pub mod route;
pub mod scan;
mod scripts;
pub mod server;
mod session;
pub mod slot_layout;
mod slot_router;
pub mod source;
pub mod spool;
mod stream;
pub mod target;
mod target_locks;
pub mod topology;
pub mod translate;
pub mod verify;
mod watermarks;

pub use events::{Event, EventSender};
pub use functions::FunctionPolicy;
pub use migration::{Migration, Options, Until};
pub use node::Node;
pub use progress::{Progress, Summary};
pub use reconnect::Reconnect;
