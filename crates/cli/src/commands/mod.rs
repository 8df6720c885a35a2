//! One file per command.

mod assess;
mod completions;
mod connections;
mod copy;
mod db;
mod doctor;
mod http_error_body;
mod init;
mod keys;
mod redis;
mod serve;
mod sessions;
mod task;
mod verify;
mod worker;
mod write_timeout;

use model::error::{Error, Kind};
use model::printable::Printable;

use crate::args::Command;
use crate::exit::Exit;
use crate::printer::Printer;

/// Runs a command to its exit code.
pub(crate) async fn run(command: Command, printer: &Printer) -> Exit {
    let json = command.wants_json();
    let done = match command {
        Command::Init(args) => init::run(&args, printer),
        Command::Serve(args) => serve::run(&args, printer).await,
        Command::Worker(args) => worker::run(&args, printer).await,
        Command::Db(args) => db::run(&args, printer).await,
        Command::Sessions(args) => sessions::run(&args, printer).await,
        Command::Copy(args) => copy::run(&args, printer).await,
        Command::Verify(args) => verify::run(&args, printer).await,
        Command::Assess(args) => assess::run(&args, printer).await,
        Command::Redis(args) => redis::run(&args, printer).await,
        Command::Task(args) => task::run(&args, printer).await,
        Command::Doctor(args) => doctor::run(&args, printer).await,
        Command::Keys(args) => keys::run(&args, printer).await,
        Command::Completions { shell } => Ok(completions::run(shell, printer)),
    };
    done.unwrap_or_else(|failure| {
        let (what, hint) = failure.with_hint();
        printer.error(&format!("{}: {}", failure.op, Printable(what)), Some(hint));
        if json {
            let code = serde_json::to_value(failure.kind).unwrap_or_default();
            printer.result(
                &serde_json::json!({"error": {"code": code, "message": failure.message}}).to_string(),
            );
        }
        exit_of(&failure)
    })
}

fn exit_of(failure: &Error) -> Exit {
    match failure.kind {
        Kind::Invalid => Exit::Usage,
        _ => Exit::NotStarted,
    }
}
