//! `whimbrel redis …`: the Redis engine in the foreground.

mod clean;
mod copy;
mod import;
mod task;
mod verify;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flow_control::backoff::Backoff;
use flow_control::budget::Bandwidth;
use flow_control::io_threads::IoThreads;
use model::error::{Error, Kind, Result, Side};
use redis_migration::route::Route;
use redis_migration::snapshot::restore::Conflict;
use redis_migration::source::spool::SpoolLimits;
use redis_migration::{Event, EventSender, FunctionPolicy, Node, Options, Progress, Summary, Until};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::args::{Existing, Redis, RedisCommand, Routing};
use crate::exit::Exit;
use crate::printer::Printer;
use crate::report;

pub(crate) async fn run(args: &Redis, printer: &Printer) -> Result<Exit> {
    match &args.command {
        RedisCommand::Copy(args) => copy::run(args, printer).await,
        RedisCommand::Verify(args) => verify::run(args, printer).await,
        RedisCommand::Import(args) => import::run(args, printer).await,
        RedisCommand::Clean(args) => clean::run(args, printer).await,
        RedisCommand::Task(args) => task::run(args, printer).await,
    }
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "usage", message)
}

/// A server by its place; a password that is not written there comes from the environment.
fn node(place: &str, side: Side) -> Result<Node> {
    let mut node = Node::parse(place).map_err(|f| f.at(side))?;
    if node.password.is_empty() {
        let word = if side == Side::Source { "SOURCE" } else { "TARGET" };
        node.password = std::env::var(format!("WHIMBREL_{word}_PASSWORD")).unwrap_or_default();
    }
    Ok(node)
}

/// What travels where; `/DB` of the source means only that one, of the target its new number.
fn route(routing: &Routing, source: Option<u32>, target: Option<u32>) -> Result<Route> {
    let mut db_map = Route::parse_map(&routing.db_map)?;
    if let Some(to) = target {
        let from = source.ok_or_else(|| {
            usage(
                "a database in the target URL requires a database in the source URL \
                 (redis://HOST:PORT/DB)",
            )
        })?;
        if db_map.insert(from, to).is_some_and(|other| other != to) {
            return Err(usage(format!("--db-map conflicts with the database in the URL ({from})")));
        }
    }
    let (include, exclude) = (routing.include_key.clone(), routing.exclude_key.clone());
    Ok(Route { only_db: source, db_map, all_into: None, include, exclude })
}

fn conflict(existing: Existing) -> Conflict {
    match existing {
        Existing { skip_existing: true, .. } => Conflict::Skip,
        Existing { fail_on_existing: true, .. } => Conflict::Fail,
        _ => Conflict::Replace,
    }
}

/// Names of commands to leave out. What divides a stream into transactions and databases cannot be left out.
fn skipped(names: &[String]) -> Result<Arc<BTreeSet<String>>> {
    let names: BTreeSet<String> = names.iter().map(|name| name.to_ascii_uppercase()).collect();
    match model::migration::KEPT_COMMANDS.iter().find(|name| names.contains(**name)) {
        Some(name) => Err(usage(format!("--skip-command: {name} cannot be excluded"))),
        None => Ok(Arc::new(names)),
    }
}

/// What happens to libraries that the target refuses.
fn functions(word: &str) -> Result<FunctionPolicy> {
    FunctionPolicy::parse(word)
        .ok_or_else(|| usage(format!("--functions: `{word}` is not stop, replace or skip")))
}

fn options(route: Route, conflict: Conflict, until: Until, bandwidth: Option<&str>) -> Result<Options> {
    let rate = match bandwidth {
        None => 0,
        Some(text) => {
            let rate = config::bytes_of(text.trim_end_matches("/s")).filter(|n| *n >= 1024);
            rate.ok_or_else(|| usage(format!("--bandwidth: `{text}` is not a size of at least 1KiB/s")))?
        }
    };
    Ok(Options {
        route,
        conflict,
        until,
        bandwidth: Arc::new(Bandwidth::new(rate)),
        spool: SpoolLimits::default(),
        spool_dir: std::env::temp_dir(),
        backoff: Backoff::default(),
        reconnect: Arc::default(),
        event_sender: EventSender::default(),
        skip_commands: Arc::default(),
        functions: FunctionPolicy::default(),
    })
}

/// Runs the work on a thread of its own: what is received, read and sent there need not be handed from one to another.
async fn on_io_thread<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let lost = |e: &dyn std::fmt::Display| Error::new(Kind::Internal, "redis", e.to_string());
    let io_threads = IoThreads::start(1).map_err(|e| lost(&e))?;
    io_threads.run(work).await.ok_or_else(|| lost(&"the worker ended without a result"))?
}

/// Runs the work beside its progress; Ctrl-C or SIGTERM pauses it.
async fn run_with_progress<T>(
    work: impl Future<Output = T>,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
    mut events: Option<mpsc::Receiver<Event>>,
    printer: &Printer,
) -> Result<T> {
    let mut said = String::new();
    let mut tick = tokio::time::interval(Duration::from_millis(if printer.draws() { 200 } else { 10_000 }));
    tick.tick().await;
    let heard = |kind| signal(kind).map_err(|e| Error::new(Kind::Internal, "signal", e.to_string()));
    let (mut interrupt, mut terminate) = (heard(SignalKind::interrupt())?, heard(SignalKind::terminate())?);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            _ = interrupt.recv() => stop.cancel(),
            _ = terminate.recv() => stop.cancel(),
            Some(one) = next_event(&mut events) => {
                // What goes on for long is said once.
                if let Event::Disconnected { failure, delay } = one
                    && failure.message != said
                {
                    printer.note(&format!("{failure}; retrying in {:.1} s", delay.as_secs_f64()));
                    said = failure.message;
                }
            }
            _ = tick.tick() => {
                let line = line(progress);
                if printer.draws() { printer.progress(&line) } else { printer.note(&line) }
            }
        }
    }
}

/// The next event, where there is a sender.
async fn next_event(events: &mut Option<mpsc::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

fn line(progress: &Progress) -> String {
    let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    match get(&progress.phase) {
        0 => "connecting".into(),
        1 => format!(
            "full sync  {}/{} keys  {}",
            get(&progress.keys),
            get(&progress.keys_expected).max(get(&progress.keys)),
            report::bytes(get(&progress.full_bytes) as f64)
        ),
        _ => format!(
            "replicating  {} commands  {}  lag {} ms ({})",
            get(&progress.commands),
            report::bytes(get(&progress.stream_bytes) as f64),
            get(&progress.lag_ms),
            report::bytes(get(&progress.lag_bytes) as f64)
        ),
    }
}

/// Says what a migration did, and decides how the command ends.
fn finish(
    summary: &Summary,
    progress: &Progress,
    compared: Option<&redis_migration::verify::Comparison>,
    json: bool,
    printer: &Printer,
) -> Exit {
    let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    for note in &summary.notes {
        printer.note(&format!("note: {note}"));
    }
    if summary.full.empty > 0 {
        printer.note(&format!(
            "note: {} empty collections were skipped, as a server does when it loads a \
             file",
            summary.full.empty
        ));
    }
    if summary.refused > 0 {
        printer.note(&format!(
            "the target refused {} commands; all other commands were applied",
            summary.refused
        ));
    }
    for (what, n) in &summary.full.unsupported {
        printer.note(&format!("not migrated: {n} × {what}"));
    }
    for failed in summary.failed.iter().take(5) {
        printer.note(&format!("  failed {failed}"));
    }
    let complete = summary.failed.is_empty() && summary.full.unsupported.is_empty();
    let same = compared.is_none_or(redis_migration::verify::Comparison::is_same);
    let state = match (summary.done, complete && same) {
        (false, _) => "paused",
        (true, true) => "succeeded",
        (true, false) => "failed",
    };
    printer.note(&format!(
        "{}: {} keys in {:.1} s, then {} commands{}",
        state,
        get(&progress.keys),
        summary.full_seconds,
        get(&progress.commands),
        if summary.skipped_existing > 0 {
            format!(", {} existing keys skipped", summary.skipped_existing)
        } else {
            String::new()
        }
    ));
    if json {
        let verify = compared.map(verify::shown);
        printer.result(
            &json!({
                "state": state,
                "full": {"keys": get(&progress.keys), "bytes": get(&progress.full_bytes), "seconds": summary.full_seconds,
                    "left_alone": summary.skipped_existing, "left_out": summary.full.unsupported, "empty": summary.full.empty, "functions": summary.full.functions},
                "incremental": {"commands": get(&progress.commands), "bytes": get(&progress.stream_bytes),
                    "lag_bytes": get(&progress.lag_bytes), "lag_ms": get(&progress.lag_ms)},
                "resyncs": {"full": summary.full_syncs, "partial": summary.partial_syncs},
                "verify": verify,
                "refused": summary.refused,
                "failed": summary.failed,
                "notes": summary.notes,
                "error": null,
            })
            .to_string(),
        );
    }
    match (summary.done, complete && same) {
        (false, _) => Exit::Stopped,
        (true, true) => Exit::Done,
        (true, false) => Exit::Differs,
    }
}
