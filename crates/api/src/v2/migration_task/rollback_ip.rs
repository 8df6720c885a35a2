//! `POST /v2/{project_id}/migration-task/{task_id}/rollback-ip`: redirects clients to the source (rollback) (dcs-migration.md §2.15).

use axum::extract::{Path, State};
use control::Control;

use super::no_content;
use crate::dcs::migration_error;
use crate::reply::Reply;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    control.roll_back(&project, &id).await.map_err(migration_error)?;
    Ok(no_content())
}
