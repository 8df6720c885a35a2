//! `POST /v2/{project_id}/migration-task/batch-stop` (dcs-migration.md §2.7).

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use control::migrations::{BatchItem, MigrationError, MigrationReply};
use wire::dcs::{MigrationResult, MigrationResults};
use wire::fields::Fields;

use crate::dcs::{field_error, migration_error, object};
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(&body)?;
    let ids = ids(&Fields::root(&map)).map_err(migration_error)?;
    let items = control.stop_migrations(&project, &ids).await.map_err(migration_error)?;
    json(&results(items))
}

/// The tasks of a call for several.
pub(crate) fn ids(f: &Fields<'_>) -> MigrationReply<Vec<String>> {
    let ids = f.opt_texts("migration_tasks", 10_000, 128).map_err(field_error)?;
    ids.ok_or_else(|| MigrationError::TooManyIds("`migration_tasks` is missing".into()))
}

pub(crate) fn results(items: Vec<BatchItem>) -> MigrationResults {
    let result = |item: BatchItem| {
        let error = item.error.map(migration_error);
        MigrationResult {
            result: if error.is_some() { "failed" } else { "success" }.into(),
            task_id: item.id,
            error_msg: error.as_ref().map(|e| e.message.clone()),
            error_code: error.map(|e| e.code),
        }
    };
    MigrationResults { migration_tasks: items.into_iter().map(result).collect() }
}
