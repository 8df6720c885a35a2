//! `whimbrel redis copy SRC DST`.

use std::sync::Arc;

use model::error::{Result, Side};
use redis_migration::checkpoint::keys::KeyNames;
use redis_migration::route::Route;
use redis_migration::session::scan::ScanMigration;
use redis_migration::verify::{Depth, compare};
use redis_migration::{EventSender, Migration, Node, Options, Progress, Summary, Until};
use tokio_util::sync::CancellationToken;

use super::{options, progress, summary, verify};
use crate::args::RedisCopy;
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) async fn run(args: &RedisCopy, printer: &Printer) -> Result<Exit> {
    let (source, target) = ends(args)?;
    let route = options::route(&args.routing, source.db, target.db)?;
    let until = match (args.full_only, args.until_caught_up) {
        (true, _) => Until::Full,
        (_, true) => Until::CaughtUp,
        _ => Until::Stopped,
    };
    let names = KeyNames::new(&id(&source.display_url(), &target.display_url(), &route));
    let (event_sender, events) = EventSender::channel();
    let options = Options { event_sender, ..options_of(args, route.clone(), until)? };
    let (counters, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let (clock, scan_mode) = (flow_control::clock::system(), args.mode == "scan");
    let scan = ScanMigration {
        source: source.clone(),
        target: target.clone(),
        options: options.clone(),
        clock: clock.clone(),
        progress: counters.clone(),
        stop: stop.clone(),
    };
    let migration = Migration {
        source: source.clone(),
        target: target.clone(),
        options,
        clock,
        progress: counters.clone(),
        stop: stop.clone(),
        finish: CancellationToken::new(),
        names: names.clone(),
        shard: None,
    };
    let work = async move { if scan_mode { scan.run().await } else { migration.run().await } };
    let work = progress::on_io_thread(work);
    let summary = progress::run_with_progress(work, &counters, &stop, Some(events), printer).await??;
    let compared = match depth(&args.verify).filter(|_| summary.done) {
        Some(depth) => Some(compare(&source, &target, &route, depth).await?),
        None => None,
    };
    if let Some(found) = &compared {
        verify::print_difference(found, printer);
    }
    let exit = summary::finish(&summary, &counters, compared.as_ref(), args.routing.json, printer);
    if let Some(note) = next_step(exit, &summary, until, scan_mode, &names) {
        printer.note(&note);
    }
    Ok(exit)
}

fn options_of(args: &RedisCopy, route: Route, until: Until) -> Result<Options> {
    let conflict = options::conflict(args.existing);
    Ok(Options {
        skip_commands: options::skipped(&args.skip_command)?,
        functions: options::functions(&args.functions)?,
        ..options::options(route, conflict, until, args.bandwidth.as_deref())?
    })
}

/// How much is compared after the copy, if anything.
fn depth(word: &str) -> Option<Depth> {
    match word {
        "full" => Some(Depth::Full),
        "sample" => Some(Depth::Sample),
        _ => None,
    }
}

/// What running the same command again does.
fn next_step(
    exit: Exit,
    summary: &Summary,
    until: Until,
    scan_mode: bool,
    names: &KeyNames,
) -> Option<String> {
    if exit == Exit::Stopped && scan_mode {
        return Some("Stopped. Running the same command again rescans all keys.".into());
    }
    if exit == Exit::Stopped && !summary.resumable {
        let note =
            "Stopped. The target has no checkpoint: running the same command again starts a full sync.";
        return Some(note.into());
    }
    if exit == Exit::Stopped {
        let note = "Paused; the checkpoint is saved at the target. Run the same command again to resume.";
        return Some(note.into());
    }
    let continues = until == Until::CaughtUp && !scan_mode && summary.resumable;
    continues.then(|| {
        let name = String::from_utf8_lossy(&names.checkpoint);
        format!("Run the same command again to continue from here (checkpoint key at the target: {name}).")
    })
}

/// Both ends as the arguments name them; they must not be the same server.
fn ends(args: &RedisCopy) -> Result<(Node, Node)> {
    let (source, target) =
        (options::node(&args.source, Side::Source)?, options::node(&args.target, Side::Target)?);
    let (mut source, target) =
        (source.with_tls(args.source_tls.files())?, target.with_tls(args.target_tls.files())?);
    source.renamed = Node::parse_renamed(&args.source_command)?;
    source.allow_uncovered = args.allow_uncovered_slots;
    if (&source.addrs, source.tls) == (&target.addrs, target.tls) {
        return Err(options::usage("source and target are the same server"));
    }
    Ok((source, target))
}

/// The same places and keys are the same migration.
fn id(source: &str, target: &str, route: &Route) -> String {
    let text = format!("{source}\n{target}\n{}", route.identity());
    storage::checksum::sha256_hex(text.as_bytes())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_identity_is_stable() {
        let (a, b) = ("redis://a:1/3", "redis://b:2");
        assert_eq!(id(a, b, &Default::default()), "95d01783ce742dba");
        let some = redis_route(Some(3));
        assert_eq!(id(a, b, &some), "0263c6d82e6686f1");
    }

    fn redis_route(only_db: Option<u32>) -> Route {
        Route { only_db, include: vec!["a*".into()], ..Default::default() }
    }
}
