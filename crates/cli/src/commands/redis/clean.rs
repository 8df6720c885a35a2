//! `whimbrel redis clean DST`: deletes the reserved keys that migrations have left.

use model::error::{Result, Side};
use redis_migration::checkpoint::cleanup::clean;
use serde_json::json;

use super::options;
use crate::args::RedisClean;
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) async fn run(args: &RedisClean, printer: &Printer) -> Result<Exit> {
    let target = options::node(&args.target, Side::Target)?.with_tls(args.target_tls.files())?;
    let removed = clean(&target, args.force).await?;
    printer.note(&format!("removed {removed} keys of migrations; user data were not changed"));
    if args.json {
        printer.result(&json!({"removed": removed}).to_string());
    }
    Ok(Exit::Done)
}
