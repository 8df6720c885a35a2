//! `whimbrel worker`: runs tasks and migrations of a PostgreSQL database that other processes share, and serves no API.

use std::sync::Arc;
use std::time::Duration;

use control::Catalogue;
use model::error::{Error, Kind, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::Serve;
use crate::commands::serve::{configure, disable_core_dumps, open_database, start_engine};
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) async fn run(args: &Serve, printer: &Printer) -> Result<Exit> {
    disable_core_dumps();
    let (config, _, env) = configure(args, printer)?;
    if config.database == "sqlite" {
        let m = "database: a worker needs a postgres:// URL; hint: use `whimbrel serve` with the embedded database";
        return Err(Error::new(Kind::Invalid, "configuration", m));
    }
    let opened = open_database(&config).await?;
    let catalogue = Arc::new(Catalogue::new(&config, opened.clock.clone()));
    catalogue.register(&config, &env, &opened.store.keys())?;
    let engine = start_engine(&config, &opened, &catalogue, true).await?;
    let stop = CancellationToken::new();
    let session = opened.keep_session(&engine, "worker", &stop);
    printer.note(&format!("Worker started, session {}", engine.session()));
    let mut working = tokio::spawn(engine.clone().serve(stop.clone()));
    let mut term = signal(SignalKind::terminate()).map_err(|e| failed(&e))?;
    let ended = tokio::select! {
        _ = term.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = &mut working => Err(Error::new(Kind::Internal, "worker", "the dispatcher has stopped")),
    };
    printer.note("Stopping. Other processes resume the running tasks.");
    stop.cancel();
    ended?;
    let _ = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(working, session) }).await;
    Ok(Exit::Done)
}

fn failed(e: &std::io::Error) -> Error {
    Error::new(Kind::Internal, "worker", format!("signals: {e}"))
}
