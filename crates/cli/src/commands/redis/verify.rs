//! `whimbrel redis verify SRC DST`: compares without writing.

use model::error::{Result, Side};
use redis_migration::verify::{Comparison, Depth, compare};
use serde_json::json;

use super::options;
use crate::args::RedisVerify;
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) async fn run(args: &RedisVerify, printer: &Printer) -> Result<Exit> {
    let (source, target) =
        (options::node(&args.source, Side::Source)?, options::node(&args.target, Side::Target)?);
    let (mut source, target) =
        (source.with_tls(args.source_tls.files())?, target.with_tls(args.target_tls.files())?);
    source.renamed = redis_migration::Node::parse_renamed(&args.source_command)?;
    source.allow_uncovered = args.allow_uncovered_slots;
    let route = options::route(&args.routing, source.db, target.db)?;
    let depth = if args.sample { Depth::Sample } else { Depth::Full };
    let found = compare(&source, &target, &route, depth).await?;
    print_difference(&found, printer);
    if args.routing.json {
        printer.result(&shown(&found).to_string());
    }
    Ok(if found.is_same() { Exit::Done } else { Exit::Differs })
}

/// The differences on stdout, the numbers for people.
pub(crate) fn print_difference(found: &Comparison, printer: &Printer) {
    for named in &found.examples {
        let named = if named.chars().any(char::is_control) {
            named.escape_debug().to_string()
        } else {
            named.clone()
        };
        printer.result(&named);
    }
    printer.note(&format!(
        "{} keys compared: {} differ, {} with a different expiry, {} missing, {} extra",
        found.keys, found.differ, found.expiry_differs, found.missing, found.extra
    ));
}

pub(crate) fn shown(found: &Comparison) -> serde_json::Value {
    json!({"keys": found.keys, "differ": found.differ, "expiry_differs": found.expiry_differs,
        "missing": found.missing, "extra": found.extra, "same": found.is_same()})
}
