//! `whimbrel db`: the schema of a PostgreSQL database.

use std::collections::BTreeMap;

use model::error::{Error, Kind, Result};
use store::postgres::schema;

use crate::args::{Db, DbAction};
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) async fn run(args: &Db, printer: &Printer) -> Result<Exit> {
    let url = url(args)?;
    let (version, done) = match args.action {
        DbAction::Status => (schema::version(&url).await?, false),
        DbAction::Migrate => (schema::migrate(&url).await?, true),
    };
    let now = if done { version.program } else { version.database };
    if args.json {
        printer.result(
            &serde_json::json!({
                "schema": now, "before": version.database, "program": version.program,
                "current": done || version.is_current(),
            })
            .to_string(),
        );
    } else if done && version.database < version.program {
        printer.note(&format!("Schema version {now}, was {}.", version.database));
    } else if now == version.program {
        printer.note(&format!("Schema version {now} is current."));
    } else {
        printer.note(&format!("Schema version {now}; this program needs {}.", version.program));
    }
    let behind = now < version.program;
    Ok(if behind { Exit::Differs } else { Exit::Done })
}

fn url(args: &Db) -> Result<String> {
    let mut env: BTreeMap<String, String> = std::env::vars().collect();
    if let Some(database) = &args.database {
        env.insert("WHIMBREL_DATABASE".into(), database.clone());
    }
    let config = config::load(&args.config, &env)?;
    if config.database == "sqlite" {
        let m =
            "database: the embedded database has no separate schema commands; it migrates itself at start";
        return Err(Error::new(Kind::Invalid, "configuration", m));
    }
    Ok(config.database)
}
