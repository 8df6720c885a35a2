//! Prints the description of the API: `openapi` or `codes`.
#![allow(clippy::print_stdout, reason = "a program for developers")]

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("codes") => print!("{}", api::codes::page()),
        _ => println!("{:#}", api::openapi::document()),
    }
}
