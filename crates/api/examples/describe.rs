//! Prints the description of the API: `openapi`, `codes` or `metrics`.
#![allow(clippy::print_stdout, reason = "a program for developers")]

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("codes") => print!("{}", api::codes::page()),
        Some("metrics") => print!("{}", api::metrics::page()),
        _ => println!("{:#}", api::openapi::document()),
    }
}
