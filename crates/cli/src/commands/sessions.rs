//! `whimbrel sessions`: the processes that share a PostgreSQL database.

use std::collections::BTreeMap;
use std::path::Path;

use model::error::{Error, Kind, Result};
use store::{Session, Store};

use crate::args::{Sessions, SessionsAction};
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) async fn run(args: &Sessions, printer: &Printer) -> Result<Exit> {
    let mut env: BTreeMap<String, String> = std::env::vars().collect();
    if let Some(dir) = &args.data_dir {
        env.insert("WHIMBREL_DATA_DIR".into(), dir.display().to_string());
    }
    let config = config::load(&args.config, &env)?;
    if config.database == "sqlite" {
        let m = "database: an embedded database has one process and no sessions";
        return Err(Error::new(Kind::Invalid, "configuration", m));
    }
    let store =
        Store::shared(&config.database, config.database_direct.as_deref(), Path::new(&config.data_dir))
            .await?;
    match &args.action {
        SessionsAction::List => list(&store, args.json, printer).await,
        SessionsAction::Drain { id } => drain(&store, id, args.json, printer).await,
    }
}

async fn list(store: &Store, json: bool, printer: &Printer) -> Result<Exit> {
    let now = store.database_time().await?.unwrap_or(0);
    let sessions = store.read().await?.sessions().await?;
    if json {
        let rows: Vec<_> = sessions.iter().map(|s| as_json(s, now)).collect();
        printer.result(&serde_json::json!({ "sessions": rows }).to_string());
        return Ok(Exit::Done);
    }
    printer.result(&format!("{:<18}{:<8}{:<10}{:<10}{}", "ID", "ROLE", "STATE", "VERSION", "HOST"));
    for s in &sessions {
        printer.result(&format!("{:<18}{:<8}{:<10}{:<10}{}", s.id, s.role, state(s, now), s.version, s.host));
    }
    Ok(Exit::Done)
}

fn state(s: &Session, now: i64) -> &'static str {
    match (s.lease_until >= now, s.draining) {
        (false, _) => "lost",
        (true, true) => "draining",
        (true, false) => "live",
    }
}

fn as_json(s: &Session, now: i64) -> serde_json::Value {
    serde_json::json!({
        "id": s.id, "role": s.role, "host": s.host, "version": s.version, "state": state(s, now),
        "started_at": s.started_at,
    })
}

async fn drain(store: &Store, id: &str, json: bool, printer: &Printer) -> Result<Exit> {
    let mut tx = store.write().await?;
    if !tx.drain_session(id).await? {
        let m = format!("session {id} does not exist; hint: list them with `whimbrel sessions list`");
        return Err(Error::new(Kind::NotFound, "session", m));
    }
    tx.commit().await?;
    if json {
        printer.result(&serde_json::json!({ "id": id, "state": "draining" }).to_string());
    } else {
        printer.note(&format!("Session {id} is draining; other processes resume its tasks."));
    }
    Ok(Exit::Done)
}
