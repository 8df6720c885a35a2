//! `POST /v2/{project_id}/migration-task/{task_id}/sync-stop`: responds when the task is stopped (dcs-migration.md §2.6).

use axum::extract::{Path, State};
use control::Control;

use super::no_content;
use crate::dcs::migration_error;
use crate::reply::Reply;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    control.stop_migration_sync(&project, &id).await.map_err(migration_error)?;
    Ok(no_content())
}
