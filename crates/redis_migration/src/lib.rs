//! The Redis engine: a snapshot and the stream of changes behind it, from one server to another.
//!
//! ```text
//! source ──> spool ──> parse ──> restore / rebuild ──> target
//!   ^       (memory,   (spans)    (pure, per key)     (one pipeline,
//!   │        then disk)                                answers counted)
//!   └────────────── offset acknowledged <── offset stored with the data
//! ```
//!
//! The source is never made to wait for a slow target: what has arrived waits in the [`source::spool`]. Changes are applied in
//! transactions that also store the replication offset at the target (`stream::apply`), so that an interrupted migration
//! continues from there, exactly once.

pub mod checkpoint;
pub mod connection;
pub mod events;
pub mod import;
pub mod migration;
pub(crate) mod operation;
pub mod progress;
pub mod reconnect;
pub mod route;
pub mod session;
pub mod snapshot;
pub mod source;
pub mod stream;
pub mod target;
pub mod verify;

pub use connection::node::Node;
pub use events::{Event, EventSender};
pub use migration::{Migration, Options, Until};
pub use progress::{Progress, Summary};
pub use reconnect::Reconnect;
pub use target::functions::FunctionPolicy;
