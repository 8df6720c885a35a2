//! Where keys and changes come from.

pub mod psync;
