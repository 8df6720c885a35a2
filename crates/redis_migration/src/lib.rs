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

mod allowed;
pub mod apply;
pub mod archive;
pub mod asker;
mod attempt;
pub mod backup;
mod claims;
pub mod client;
pub mod file;
mod fleet;
mod full;
pub mod functions;
pub mod load;
pub mod marker;
mod marks;
mod mend;
pub mod mover;
pub mod news;
pub mod node;
pub mod parts;
pub mod patience;
pub mod progress;
pub mod rebuild;
pub mod restore;
pub mod route;
pub mod scan;
mod scatter;
mod scripts;
pub mod server;
pub mod source;
pub mod spool;
mod stream;
pub mod target;
pub mod tongue;
pub mod topology;
pub mod verify;
pub mod watch;

pub use functions::Functions;
pub use mover::{Mover, Options, Until};
pub use news::{News, Teller};
pub use node::Node;
pub use patience::Reconnect;
pub use progress::{Progress, Summary};
