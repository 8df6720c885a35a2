//! The compatible REST surface: requests become calls of `control`, answers become replies of `wire`.
//! All routes stand in [`router`]; each endpoint has its own file.

mod auth;
mod body_limits;
pub mod codes;
mod dcs;
mod error;
mod health;
mod held_body;
mod i18n;
mod iam;
pub mod metrics;
pub mod openapi;
mod query;
mod reply;
mod router;
mod time_text;
mod v1;
mod v2;
mod versions;

pub use router::{health_only, metrics_only, router};
