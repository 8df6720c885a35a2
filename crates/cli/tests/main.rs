//! The program as its users run it: real processes, real servers, the official SDK.

mod copy;
mod crash;
mod messages;
mod sdk;
mod service;
mod soak;
mod support;
