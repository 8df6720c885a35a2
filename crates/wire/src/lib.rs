//! Requests and replies exactly as the compatible APIs spell them. Depends on nothing of ours.

pub mod dcs;
pub mod fields;
pub mod iam;
pub mod v1;
pub mod v2;
