//! What a migration did, as text, as JSON and as an exit code.

use std::sync::atomic::{AtomicU64, Ordering};

use redis_migration::verify::Comparison;
use redis_migration::{Progress, Summary};
use serde_json::{Value, json};

use super::verify;
use crate::exit::Exit;
use crate::printer::Printer;

/// Prints what a migration did, and decides how the command ends.
pub(super) fn finish(
    summary: &Summary,
    progress: &Progress,
    compared: Option<&Comparison>,
    json: bool,
    printer: &Printer,
) -> Exit {
    print_notes(summary, printer);
    let complete = summary.failed.is_empty() && summary.full.unsupported.is_empty();
    let same = compared.is_none_or(Comparison::is_same);
    let (state, exit) = match (summary.done, complete && same) {
        (false, _) => ("paused", Exit::Stopped),
        (true, true) => ("succeeded", Exit::Done),
        (true, false) => ("failed", Exit::Differs),
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
        printer.result(&result(state, summary, progress, compared).to_string());
    }
    exit
}

fn get(n: &AtomicU64) -> u64 {
    n.load(Ordering::Relaxed)
}

/// Prints what was not migrated, and why.
fn print_notes(summary: &Summary, printer: &Printer) {
    for note in &summary.notes {
        printer.note(&format!("note: {note}"));
    }
    if summary.full.empty > 0 {
        printer.note(&format!(
            "note: {} empty collections were skipped, as a server does when it loads a file",
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
}

fn result(state: &str, summary: &Summary, progress: &Progress, compared: Option<&Comparison>) -> Value {
    json!({
        "state": state,
        "full": {"keys": get(&progress.keys), "bytes": get(&progress.full_bytes), "seconds": summary.full_seconds,
            "skipped_existing": summary.skipped_existing, "unsupported": summary.full.unsupported,
            "empty": summary.full.empty, "functions": summary.full.functions},
        "incremental": {"commands": get(&progress.commands), "bytes": get(&progress.stream_bytes),
            "lag_bytes": get(&progress.lag_bytes), "lag_ms": get(&progress.lag_ms)},
        "resyncs": {"full": summary.full_syncs, "partial": summary.partial_syncs},
        "verify": compared.map(verify::shown),
        "refused": summary.refused,
        "failed": summary.failed,
        "notes": summary.notes,
        "error": null,
    })
}
