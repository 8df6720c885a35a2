//! `whimbrel copy SRC DST`: the engine of the service in the foreground, with the same durable ledger.

mod delete;
mod dry_run;
mod foreground;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flow_control::clock::Clock;
use model::count::{Counters, Tally};
use model::error::{Error, Kind, Result, Side, split_hint};
use model::policy::{Check, MetadataRule, Overwrite, StoragePolicy};
use model::printable::Printable;
use model::selection::{ListFile, Selection};
use model::spec::{ApiVersion, Extensions, Location, ReportForm, TaskSpec};
use model::task::{Event, Priority, TaskId, Visible};
use object_migration::Progress;
use serde_json::json;
use store::{FailedObject, NewTask, Store, TaskRow};
use tokio_util::sync::CancellationToken;

use crate::args::Copy;
use crate::exit::Exit;
use crate::open_store::{CliUrl, EndPair};
use crate::printer::Printer;
use crate::report;
use delete::delete;
use dry_run::dry_run;
use foreground::{follow, start_engine};

/// The one task of a foreground ledger.
const TASK: TaskId = 1;
/// Failed objects named in the summary; all of them are in the report.
const SAMPLE_KEYS: u64 = 20;
/// Keys that the confirmation of a deletion names.
const ASKED_ABOUT: usize = 20;

/// What the summary shows in addition to the task.
struct Run {
    live: Option<Arc<Progress>>,
    failures: Vec<FailedObject>,
    took: Duration,
    interrupted: bool,
    deleted: Tally,
}

/// Removes the state of an earlier run, unless another process uses it: that would go on with files that have no name.
fn remove_state(dir: &Path) -> Result<()> {
    // The store holds this lock while it is open.
    let lock = std::fs::File::options().write(true).open(dir.join("lock"));
    if lock.is_ok_and(|lock| lock.try_lock().is_err()) {
        let m = format!(
            "{} is in use by another whimbrel process; hint: stop it or choose another directory",
            dir.display()
        );
        return Err(Error::new(Kind::Conflict, "state", m));
    }
    std::fs::remove_dir_all(dir)
        .map_err(|e| Error::new(Kind::ReadOnly, "state", format!("{}: {e}", dir.display())).caused_by(e))
}

pub(crate) async fn run(args: &Copy, printer: &Printer) -> Result<Exit> {
    let clock = flow_control::clock::system();
    let ends = EndPair::new(&args.source, &args.target, &args.ends, clock.clone())?;
    let ends = Arc::new(if args.all_versions { ends.with_versions() } else { ends });
    let spec = spec(args, &ends)?;
    let memory = size("--memory", &args.memory)?;
    check(args, memory)?;
    ends.check_apart()?;
    if args.dry_run {
        return dry_run(args, &ends, printer).await;
    }
    let dir = ledger_dir(args, &ends, &spec)?;
    if args.no_resume && dir.exists() {
        remove_state(&dir)?;
    }
    let store = Store::embedded(&dir).await?;
    if let Some(file) = &args.list_file {
        let sorted = dir.join("keys.list");
        // A list that was changed is another command; one that was not is sorted already.
        ends.only(storage::key_list::sorted_from_file(file, &sorted)?);
    }
    let resumed = prepare(&store, &spec, &*clock).await?;
    let urls = dir.join("urls.list");
    if !resumed {
        // A new run reads the list as it is now.
        let _ = std::fs::remove_file(&urls);
    }
    ends.read_urls(&urls).await?;
    if resumed {
        printer.note("Resuming an unfinished run of the same command.");
    }
    let engine = start_engine(&store, &clock, &ends, &dir, memory)?;
    if args.delete {
        engine.remember_keys();
    }
    let began = Instant::now();
    let stop = CancellationToken::new();
    let (interrupted, live) = follow(&engine, &store, &clock, stop, printer).await?;
    let task = store.read().await?.task(TASK).await?;
    let task =
        task.ok_or_else(|| Error::new(Kind::Internal, "copy", "the task is missing from the ledger"))?;
    if let Some(report) = &args.report {
        save_report(&dir, task.outcome_len, report, &args.report_format)?;
    }
    let failures = store.read().await?.failures(TASK, &model::key::Key::default(), SAMPLE_KEYS).await?;
    let mut run = Run { live, failures, took: began.elapsed(), interrupted, deleted: Tally::default() };
    let succeeded = task.state.visible() == Visible::Succeeded;
    if succeeded && task.counters.settled().objects == 0 {
        ends.check_selects().await?;
    }
    // Only a complete copy says what is superfluous.
    let mut refused = None;
    if args.delete && succeeded {
        let listed = run.live.as_ref().and_then(|live| live.listed.clone());
        match delete(args, &ends, listed, printer).await {
            Ok((deleted, failure)) => (run.deleted, refused) = (deleted, failure),
            Err(failure) => refused = Some(failure),
        }
    }
    let exit = finish(args, &task, &run, printer);
    refused.map_or(Ok(exit), Err)
}

/// Values that would be accepted and then hurt.
fn check(args: &Copy, memory: u64) -> Result<()> {
    let wrong = |m: String| Err(Error::new(Kind::Invalid, "usage", m));
    if memory < 16 << 20 {
        return wrong(format!("--memory: {} is less than 16MiB", args.memory));
    }
    if args.concurrency == Some(0) {
        return wrong("--concurrency: must be at least 1; hint: omit it for automatic tuning".into());
    }
    if let Some(text) = args.part_size.as_deref().filter(|t| config::bytes_of(t).is_some_and(|n| n < 5 << 20))
    {
        return wrong(format!("--part-size: {text} is less than 5MiB, the minimum of S3"));
    }
    if let Some(text) = args.bandwidth.as_deref().filter(|t| size("", t).is_ok_and(|n| n < 1024)) {
        return wrong(format!("--bandwidth: {text} is less than 1KiB/s"));
    }
    Ok(())
}

fn size(flag: &str, text: &str) -> Result<u64> {
    let bare = text.trim_end_matches("/s");
    config::bytes_of(bare).ok_or_else(|| {
        Error::new(Kind::Invalid, "usage", format!("{flag}: `{text}` is not a size such as 64MiB"))
    })
}

/// A list file by path, size and time, so that a changed one begins a new run.
fn stamped(file: &Path) -> Result<String> {
    let missing = |e: std::io::Error| {
        Error::new(Kind::ListMissing, "usage", format!("--list-file: {}: {e}", file.display())).caused_by(e)
    };
    let path = file.canonicalize().map_err(missing)?;
    let stat = path.metadata().map_err(missing)?;
    let at = stat.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    Ok(format!("{} {} {}", path.display(), stat.len(), at.unwrap_or_default().as_nanos()))
}

fn since(text: &str) -> Result<i64> {
    let seconds = text.parse::<i64>().ok().map(|s| s * 1000);
    let instant = || storage::s3::list_parser::instant(text.as_bytes());
    seconds.or_else(instant).ok_or_else(|| {
        let m = format!("--since: `{text}` is not YYYY-MM-DDTHH:MM:SSZ or seconds since 1970");
        Error::new(Kind::Invalid, "usage", m)
    })
}

fn spec(args: &Copy, ends: &EndPair) -> Result<TaskSpec> {
    let location = |side| Location { region: ends.url(side).identity(), ..Location::default() };
    Ok(TaskSpec {
        api_version: ApiVersion::Cli,
        selection: match &args.list_file {
            None if matches!(ends.url(Side::Source), CliUrl::Urls(_)) => {
                Selection::UrlList(ListFile { bucket: String::new(), key: args.source.clone() })
            }
            Some(file) => Selection::List(ListFile { bucket: String::new(), key: stamped(file)? }),
            None => Selection::Prefix(vec![String::new()]),
        },
        source: location(Side::Source),
        target: location(Side::Target),
        save_prefix: String::new(),
        description: String::new(),
        overwrite: match args.overwrite.as_str() {
            "never" => Overwrite::Never,
            "checksum" => Overwrite::Checksum,
            "always" => Overwrite::Always,
            _ => Overwrite::Newer,
        },
        check: match args.check.as_str() {
            "size" => Check::Size,
            "none" => Check::None,
            _ => Check::Digest,
        },
        metadata: if args.metadata == "all" { MetadataRule::All } else { MetadataRule::ContentType },
        storage: StoragePolicy::Standard,
        since_ms: args.since.as_deref().map_or(Ok(0), since)?,
        windows: vec![],
        record_failures: false,
        record_outcomes: args.report.is_some(),
        requester_pays: false,
        kms: false,
        restore: false,
        cdn: None,
        notify: None,
        include: args.ends.include.clone(),
        exclude: args.ends.exclude.clone(),
        part_size: args.part_size.as_deref().map_or(Ok(0), |s| size("--part-size", s))?,
        concurrency: args.concurrency.unwrap_or(0),
        bandwidth: args.bandwidth.as_deref().map_or(Ok(0), |s| size("--bandwidth", s))?,
        extensions: Extensions { versions: args.all_versions, acl: args.acl, ..Extensions::default() },
        echo: serde_json::Map::new(),
    })
}

/// One ledger for each pair of locations and set of rules: changed rules cannot resume by mistake.
fn ledger_dir(args: &Copy, ends: &EndPair, spec: &TaskSpec) -> Result<PathBuf> {
    let base = match &args.state_dir {
        Some(dir) => dir.clone(),
        None => {
            let home = |name: &str| std::env::var_os(name).map(PathBuf::from);
            let state = home("XDG_STATE_HOME").or_else(|| home("HOME").map(|h| h.join(".local/state")));
            let state = state.ok_or_else(|| {
                Error::new(
                    Kind::Invalid,
                    "state",
                    "no directory for the ledger; hint: set --state-dir or HOME",
                )
            })?;
            state.join("whimbrel")
        }
    };
    // Bandwidth and concurrency may change between runs.
    let rules = TaskSpec { bandwidth: 0, concurrency: 0, ..spec.clone() };
    let text = format!(
        "{}\n{}\n{}",
        ends.url(Side::Source).identity(),
        ends.url(Side::Target).identity(),
        serde_json::to_string(&rules).unwrap_or_default()
    );
    Ok(base.join(&storage::checksum::sha256_hex(text.as_bytes())[..24]))
}

/// Makes the task ready to run; true when an unfinished one goes on.
async fn prepare(store: &Store, spec: &TaskSpec, clock: &dyn Clock) -> Result<bool> {
    let now = clock.now_ms();
    let mut tx = store.write().await?;
    tx.end_all_leases().await?;
    let there = tx.task(TASK).await?;
    let error = there.as_ref().and_then(|t| t.error.clone());
    let resumed = match there.map(|t| t.state.visible()) {
        Some(Visible::Paused) => {
            tx.must_apply(TASK, Event::Start, now).await?;
            tx.reset_task(TASK, false, true, now).await?;
            true
        }
        Some(Visible::Pausing) => {
            tx.must_apply(TASK, Event::Drained, now).await?;
            tx.must_apply(TASK, Event::Start, now).await?;
            true
        }
        Some(Visible::Waiting | Visible::Running | Visible::Retrying) => true,
        // The ledger is exact: the task resumes after the cause was corrected.
        Some(Visible::Failed) if error.is_some_and(|e| e.kind.is_resumable()) => {
            tx.must_apply(TASK, Event::Start, now).await?;
            tx.reset_task(TASK, false, true, now).await?;
            true
        }
        Some(Visible::Failed | Visible::Succeeded) => {
            tx.delete_task(TASK).await?;
            false
        }
        None => false,
    };
    if resumed {
        tx.set_spec(TASK, spec).await?;
    } else {
        let task = NewTask {
            id: TASK,
            project: "cli".into(),
            name: "copy".into(),
            spec: spec.clone(),
            secrets: "{}".into(),
            priority: Priority::Medium,
            parent: model::parent::Parent::None,
            now,
        };
        tx.insert_task(task).await?;
    }
    tx.commit().await?;
    Ok(resumed)
}

/// Saves the outcomes that the ledger knows of: `len` bytes of them.
fn save_report(dir: &Path, len: u64, report: &Path, form: &str) -> Result<()> {
    let failed = |e: std::io::Error| {
        Error::new(Kind::ReadOnly, "report", format!("{}: {e}", report.display())).caused_by(e)
    };
    std::fs::create_dir_all(report).map_err(failed)?;
    let from = object_migration::ledger::outcome::path_in(dir, TASK);
    let form = match form {
        "csv" => ReportForm::Csv,
        "parquet" => ReportForm::Parquet,
        _ => {
            let mut lines = object_migration::ledger::outcome::lines(&from, len)?;
            let saved = std::fs::File::create(report.join("outcomes.tsv"))
                .and_then(|mut to| std::io::copy(&mut lines, &mut to));
            return saved.map(drop).map_err(failed);
        }
    };
    let to = report.join(format!("outcomes.{}", object_migration::report::table::extension(form)));
    object_migration::report::table::write(&from, len, &to, form)
}

fn finish(args: &Copy, task: &TaskRow, run: &Run, printer: &Printer) -> Exit {
    let (c, took, live) = (&task.counters, run.took, run.live.as_deref());
    let state = match task.state.visible() {
        Visible::Succeeded => "succeeded",
        Visible::Failed => "failed",
        _ => "paused",
    };
    let total = c.settled();
    let speed =
        live.map_or(0, |l| l.moved.load(std::sync::atomic::Ordering::Relaxed)) as f64 / took.as_secs_f64();
    printer.note(&format!(
        "{state}: {} copied ({}), {} skipped, {} failed{} of {} found; {}; {}/s",
        c.copied.objects,
        report::bytes(c.copied.bytes as f64),
        c.skipped.objects,
        c.failed.objects,
        if c.gone.objects > 0 { format!(", {} gone", c.gone.objects) } else { String::new() },
        total.objects,
        report::duration(took.as_secs_f64()),
        report::bytes(speed),
    ));
    if let Some(error) = &task.error {
        let (what, hint) = split_hint(&error.message);
        printer.error(&Printable(what).to_string(), Some(hint.unwrap_or_else(|| error.kind.remedy())));
    }
    for object in run.failures.iter().take(5) {
        printer.note(&format!("  failed {}: {}", object.key, object.failure));
    }
    if c.failed.objects > 5 && !run.failures.is_empty() {
        printer.note("  … --report DIR lists all of them, --json the first 20");
    }
    if c.proof[3] > 0 && args.check == "digest" {
        printer.note(&format!("note: {} objects were verified by size only", c.proof[3]));
    }
    if !task.note.is_empty() {
        printer.note(&format!("note: {}", task.note));
    }
    if args.ends.json {
        printer.result(&summary(task, c, state, run).to_string());
    }
    match task.state.visible() {
        Visible::Succeeded => Exit::Done,
        Visible::Failed if task.error.is_some() => Exit::NotStarted,
        Visible::Failed => Exit::Differs,
        _ if run.interrupted => {
            printer.note("Paused; the state is saved. Run the same command again to resume.");
            Exit::Stopped
        }
        _ => Exit::NotStarted,
    }
}

fn summary(task: &TaskRow, c: &Counters, state: &str, run: &Run) -> serde_json::Value {
    let (live, took) = (run.live.as_deref(), run.took);
    let code = |kind| serde_json::to_value(kind).unwrap_or_default();
    let failures: Vec<_> = run
        .failures
        .iter()
        .map(|o| json!({"key": o.key.to_text(), "code": code(o.failure.kind), "message": o.failure.message}))
        .collect();
    let [list, head, get, put] = live.map_or([0; 4], Progress::request_counts);
    let [digest, etag, crc64, size] = c.proof;
    let error = task.error.as_ref().map(|e| json!({"code": code(e.kind), "message": e.message}));
    json!({
        "state": state,
        "objects": {"found": c.settled().objects, "copied": c.copied.objects, "skipped": c.skipped.objects,
            "failed": c.failed.objects, "gone": c.gone.objects, "deleted": run.deleted.objects},
        "bytes": {"found": c.settled().bytes, "copied": c.copied.bytes},
        "requests": {"list": list, "head": head, "get": get, "put": put},
        "seconds": took.as_secs_f64(),
        "proof": {"digest": digest, "etag": etag, "crc64": crc64, "size": size},
        "failures": failures,
        "error": error,
    })
}

fn tempdir() -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("whimbrel-{:016x}", u64::from_le_bytes(seal::random()?)));
    std::fs::create_dir(&dir)
        .map_err(|e| Error::new(Kind::ReadOnly, "dry-run", format!("{}: {e}", dir.display())).caused_by(e))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn state_of_a_running_copy_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let store = Store::embedded(&state).await.unwrap();
        assert_eq!(remove_state(&state).unwrap_err().kind, Kind::Conflict);
        assert!(state.join("whimbrel.db").exists());
        drop(store);
        remove_state(&state).unwrap();
        assert!(!state.exists());
    }
}
