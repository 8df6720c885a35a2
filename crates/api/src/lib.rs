//! The compatible REST surface: requests become calls of `control`, answers become replies of `wire`.
//! All routes stand in [`router`]; each endpoint has its own file.

mod auth;
mod bodies;
mod body;
pub mod codes;
mod dcs;
mod error;
mod health;
mod iam;
pub mod openapi;
mod router;
mod v1;
mod v2;
mod versions;
mod zh;

pub use auth::Recognised;
pub use router::{health_only, metrics, router};
