//! `whimbrel redis …`: the Redis engine in the foreground.

mod clean;
mod copy;
mod import;
mod options;
mod progress;
mod summary;
mod task;
mod verify;

use model::error::Result;

use crate::args::{Redis, RedisCommand};
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) async fn run(args: &Redis, printer: &Printer) -> Result<Exit> {
    match &args.command {
        RedisCommand::Copy(args) => copy::run(args, printer).await,
        RedisCommand::Verify(args) => verify::run(args, printer).await,
        RedisCommand::Import(args) => import::run(args, printer).await,
        RedisCommand::Clean(args) => clean::run(args, printer).await,
        RedisCommand::Task(args) => task::run(args, printer).await,
    }
}
