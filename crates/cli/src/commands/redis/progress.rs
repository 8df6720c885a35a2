//! Running a migration in the foreground: its progress line, its events, and the signals that pause it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flow_control::io_threads::IoThreads;
use model::error::{Error, Kind, Result};
use redis_migration::{Event, Progress};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::printer::Printer;
use crate::report;

/// Runs the work on a thread of its own: what is received, read and sent there need not be handed from one to another.
pub(super) async fn on_io_thread<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let lost = |e: &dyn std::fmt::Display| Error::new(Kind::Internal, "redis", e.to_string());
    let io_threads = IoThreads::start(1).map_err(|e| lost(&e))?;
    io_threads.run(work).await.ok_or_else(|| lost(&"the worker ended without a result"))?
}

/// Runs the work and shows its progress; Ctrl-C or SIGTERM pauses it.
pub(super) async fn run_with_progress<T>(
    work: impl Future<Output = T>,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
    mut events: Option<mpsc::Receiver<Event>>,
    printer: &Printer,
) -> Result<T> {
    let mut said = String::new();
    let mut tick = tokio::time::interval(Duration::from_millis(if printer.draws() { 200 } else { 10_000 }));
    tick.tick().await;
    let handler = |kind| signal(kind).map_err(|e| Error::new(Kind::Internal, "signal", e.to_string()));
    let (mut interrupt, mut terminate) =
        (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
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
