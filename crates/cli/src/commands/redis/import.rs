//! `whimbrel redis import FILE… DST`.

use std::sync::Arc;

use model::error::{Error, Kind, Result, Side};
use redis_migration::import::Import;
use redis_migration::import::archive;
use redis_migration::{Progress, Until};
use tokio_util::sync::CancellationToken;

use super::{options, progress, summary};
use crate::args::RedisImport;
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) async fn run(args: &RedisImport, printer: &Printer) -> Result<Exit> {
    let Some((target, files)) = args.places.split_last() else {
        return Err(options::usage("usage: whimbrel redis import FILE… DST"));
    };
    let target = options::node(&target.to_string_lossy(), Side::Target)?.with_tls(args.target_tls.files())?;
    if target.db.is_some() {
        return Err(options::usage(
            "a database in the target URL is not supported for imports; hint: use --db-map",
        ));
    }
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let route = options::route(&args.routing, None, None)?;
    let conflict = options::conflict(args.existing);
    // Unpacked files live as long as the import.
    let unpacked = tempfile::tempdir().map_err(|e| Error::new(Kind::NoSpace, "unpack", e.to_string()))?;
    let mut ready = Vec::new();
    for (i, file) in files.iter().enumerate() {
        match archive::is_archive(file)? {
            true => ready.extend(archive::unpack(
                file,
                &unpacked.path().join(i.to_string()),
                archive::UNPACKED_MAX,
            )?),
            false => ready.push(file.clone()),
        }
    }
    let mut options = options::options(route, conflict, Until::Full, args.bandwidth.as_deref())?;
    options.skip_commands = options::skipped(&args.skip_command)?;
    options.functions = options::functions(&args.functions)?;
    let import = Import {
        files: ready,
        target,
        options,
        skip_unsafe_commands: args.leave_out_commands,
        clock: flow_control::clock::system(),
        progress: progress.clone(),
        stop: stop.clone(),
    };
    let summary = progress::run_with_progress(
        progress::on_io_thread(async move { import.run().await }),
        &progress,
        &stop,
        None,
        printer,
    )
    .await??;
    let exit = summary::finish(&summary, &progress, None, args.routing.json, printer);
    if exit == Exit::Stopped {
        printer.note("Interrupted. Running the same command again starts from the beginning.");
    }
    Ok(exit)
}
