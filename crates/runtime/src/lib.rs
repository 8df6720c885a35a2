//! The part that keeps going: asks the store what is not yet true, and lends that work to the engines.

mod dispatch;
pub mod engine;
mod groups;
pub mod migrations;
pub mod naming;
mod notices;
mod panics;
pub mod plan;
pub mod proxy;
mod runner;
mod sync;

pub use engine::{Engine, Opened, Places};
pub use notices::Webhook;
pub use runner::run_to_end;
