//! Real dumps, read whole and byte by byte, compared with what a server holds after loading them; and the same dumps
//! damaged in every way.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what went wrong by panicking")]

mod canon;
mod damage;
mod fixtures;
mod fuzz;
