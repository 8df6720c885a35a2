//! Connections to Redis servers: addresses, versions, topology and queries.

pub mod capabilities;
pub mod client;
pub mod node;
pub mod query_client;
pub(crate) mod reply_error;
pub mod server;
pub mod topology;

/// Keys of migrations begin with this; they never count as data.
pub const RESERVED_PREFIX: &[u8] = b"whimbrel:redis:";
