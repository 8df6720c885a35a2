//! The dispatcher and its runners: find where desired and observed state differ, and run that work under leases.

mod dispatch;
pub mod engine;
mod environment;
mod groups;
pub mod migrations;
pub mod naming;
mod panics;
pub mod plan;
pub mod proxy;
mod runner;
mod session;
mod sync;
#[cfg(test)]
mod test_support;
mod webhooks;

pub use engine::Engine;
pub use environment::{OpenedStore, StoreResolver, Webhook};
pub use runner::run_to_end;
