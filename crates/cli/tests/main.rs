//! The program as its users run it: real processes, real servers, the official SDK.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what went wrong by panicking")]

mod cases;
mod checksums;
mod clouds;
mod connections;
mod console;
mod console_browser;
mod copy;
mod crash;
mod false_answers;
mod fleet;
mod fuzzed;
mod guides;
mod keys;
mod messages;
mod migrations;
mod redis;
mod redis_soak;
mod sdk;
mod security;
mod service;
mod soak;
mod support;
mod two_projects;
