//! `whimbrel`: the service, its client, and the movers in the foreground, in one binary.

mod args;
mod client;
mod commands;
#[cfg(test)]
mod documentation_tests;
mod exit;
mod open_store;
mod printer;
mod report;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::exit::Exit;
use crate::printer::Printer;

/// Measured: a quarter less CPU on the fully checked path than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            let usage = e.use_stderr();
            return if usage { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let printer = Printer::new(cli.quiet);
    let serving = matches!(cli.command, Command::Serve(_));
    init_log(cli.verbose, serving, &cli.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            printer.error(&format!("cannot start the runtime: {e}"), None);
            return Exit::NotStarted.into();
        }
    };
    let exit = runtime.block_on(commands::run(cli.command, &printer));
    runtime.shutdown_background();
    exit.into()
}

fn init_log(verbose: u8, serving: bool, format: &str) {
    use tracing::level_filters::LevelFilter;
    let level = match (serving, verbose) {
        (true, 0) => LevelFilter::INFO,
        (true, _) | (false, 2..) => LevelFilter::DEBUG,
        (false, 1) => LevelFilter::INFO,
        (false, 0) => LevelFilter::OFF,
    };
    // A message about a line that cannot be written would go to stderr as well, and panic there.
    let builder = tracing_subscriber::fmt().log_internal_errors(false);
    let builder = builder.with_max_level(level).with_writer(std::io::stderr).with_target(false);
    let done = if format == "json" { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
    drop(done);
}
