//! `whimbrel assess SRC`: what a source holds, by listing only.

use std::time::Instant;

use flow_control::backoff::Backoff;
use flow_control::io_threads::IoThreads;
use model::error::{Error, Kind, Result, Side};
use object_migration::glob::Filter;
use serde_json::json;
use storage::retrying::RetryingStore;

use crate::args::Assess;
use crate::exit::Exit;
use crate::open_store::EndPair;
use crate::printer::Printer;
use crate::report;

pub(crate) async fn run(args: &Assess, printer: &Printer) -> Result<Exit> {
    let ends = EndPair::new(&args.source, ".", &args.ends, flow_control::clock::system())?;
    let source = ends.open(Side::Source).await?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let io_threads =
        IoThreads::start(cores).map_err(|e| Error::new(Kind::Internal, "assess", e.to_string()))?;
    let filter = Filter::new(&args.ends.include, &args.ends.exclude)?;
    let began = Instant::now();
    let source = RetryingStore::alone(source.store, Side::Source, Backoff::default());
    let found = object_migration::inventory::take_inventory(
        source,
        &io_threads,
        filter,
        object_migration::job::MAX_RANGES,
    )
    .await?;
    let took = began.elapsed();
    // Dropping the threads waits for them, which must not happen on a thread of the runtime.
    std::thread::spawn(move || drop(io_threads));
    printer.note(&format!(
        "{} objects, {}, listed in {} with {} requests",
        found.total.objects,
        report::bytes(found.total.bytes as f64),
        report::duration(took.as_secs_f64()),
        found.pages
    ));
    let names = ["empty", "to 4 KiB", "to 64 KiB", "to 1 MiB", "to 16 MiB", "to 1 GiB", "larger"];
    for (name, n) in names.iter().zip(found.sizes).filter(|(_, n)| *n > 0) {
        printer.note(&format!("  {n:>12}  {name}"));
    }
    for (folder, tally) in &found.folders {
        let name = if folder.is_empty() { "(top level)" } else { folder };
        printer.note(&format!("  {:>12}  {:>10}  {name}", tally.objects, report::bytes(tally.bytes as f64)));
    }
    if args.ends.json {
        printer.result(&json!({"assessment": found, "seconds": took.as_secs_f64()}).to_string());
    }
    Ok(Exit::Done)
}
