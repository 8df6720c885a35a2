//! The snapshot: its keys on their way to the target.

pub mod backup;
pub mod load;
pub mod rebuild;
pub mod restore;
