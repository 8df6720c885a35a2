//! Options of the Redis commands, from their arguments.

use std::collections::BTreeSet;
use std::sync::Arc;

use flow_control::backoff::Backoff;
use flow_control::budget::Bandwidth;
use model::error::{Error, Kind, Result, Side};
use redis_migration::route::Route;
use redis_migration::snapshot::restore::Conflict;
use redis_migration::source::spool::SpoolLimits;
use redis_migration::{EventSender, FunctionPolicy, Node, Options, Until};

use crate::args::{Existing, Routing};

pub(super) fn usage(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "usage", message)
}

/// A server by its place; a password that is not written there comes from the environment.
pub(super) fn node(place: &str, side: Side) -> Result<Node> {
    let mut node = Node::parse(place).map_err(|f| f.at(side))?;
    if node.password.is_empty() {
        let word = if side == Side::Source { "SOURCE" } else { "TARGET" };
        node.password = std::env::var(format!("WHIMBREL_{word}_PASSWORD")).unwrap_or_default();
    }
    Ok(node)
}

/// Which keys are migrated, and to which database. `/DB` of the source selects that database; `/DB` of the target is its new number.
pub(super) fn route(routing: &Routing, source: Option<u32>, target: Option<u32>) -> Result<Route> {
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

pub(super) fn conflict(existing: Existing) -> Conflict {
    match existing {
        Existing { skip_existing: true, .. } => Conflict::Skip,
        Existing { fail_on_existing: true, .. } => Conflict::Fail,
        _ => Conflict::Replace,
    }
}

/// Names of commands to skip. Those that divide a stream into transactions and databases cannot be skipped.
pub(super) fn skipped(names: &[String]) -> Result<Arc<BTreeSet<String>>> {
    let names: BTreeSet<String> = names.iter().map(|name| name.to_ascii_uppercase()).collect();
    match model::migration::KEPT_COMMANDS.iter().find(|name| names.contains(**name)) {
        Some(name) => Err(usage(format!("--skip-command: {name} cannot be excluded"))),
        None => Ok(Arc::new(names)),
    }
}

/// What happens to libraries that the target refuses.
pub(super) fn functions(word: &str) -> Result<FunctionPolicy> {
    FunctionPolicy::parse(word)
        .ok_or_else(|| usage(format!("--functions: `{word}` is not stop, replace or skip")))
}

pub(super) fn options(
    route: Route,
    conflict: Conflict,
    until: Until,
    bandwidth: Option<&str>,
) -> Result<Options> {
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
