//! Where keys and changes come from.

pub mod psync;
pub mod spool;
