//! `GET /v2/{project_id}/migration-task/{task_id}/logs` (dcs-migration.md §2.13).

use axum::extract::{Path, Query, State};
use control::Control;
use control::migrations::MigrationError;
use store::Level;
use wire::dcs::{MigrationLog, MigrationLogs};

use crate::dcs::{migration_error, number, time_text};
use crate::query::Params;
use crate::reply::{Reply, json};

const LEVELS: [&str; 4] = ["INFO", "ERROR", "WARN", "DEBUG"];

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    Query(query): Query<Params>,
) -> Reply {
    let offset = number(&query, "offset", 0, (0, 2_147_483_647))?;
    let limit = number(&query, "limit", 10, (0, 1000))?;
    let level = query.get("log_level").map_or("", String::as_str);
    if !level.is_empty() && !LEVELS.contains(&level) {
        let why = format!("`{level:.20}` is not one of {}", LEVELS.join(", "));
        return Err(migration_error(MigrationError::Field("log_level".into(), why)));
    }
    let (lines, log_num) =
        control.migration_logs(&project, &id, level, offset, limit).await.map_err(migration_error)?;
    let log = |line: store::LogLine| MigrationLog {
        created_at: time_text(line.at),
        log_level: match line.level {
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        }
        .into(),
        message: line.message,
        log_code: line.code,
        keyword: line.keywords,
    };
    json(&MigrationLogs { log_num, migration_logs: lines.into_iter().map(log).collect() })
}
