//! Requests and replies exactly as the compatible APIs spell them. Depends on no other crate of the workspace.

pub mod dcs;
pub mod fields;
pub mod iam;
pub mod v1;
pub mod v2;
