//! Measurements: a server that costs almost nothing, a bare client, and runs of whole programs side by side.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for developers")]

mod bare;
mod objects;
mod page;
mod redis;
mod server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("server") => server::run(&args[1..]),
        Some("bare") => bare::run(&args[1..]),
        Some("objects") => objects::run(&args[1..]),
        Some("redis") => redis::run(&args[1..]),
        _ => {
            eprintln!(
                "usage: bench server PORT | bare copy|list ENDPOINT … | objects [--quick] | redis [--quick]"
            );
            std::process::exit(2);
        }
    }
}
