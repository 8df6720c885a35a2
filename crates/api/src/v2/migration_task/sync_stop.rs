//! `POST /v2/{project_id}/migration-task/{task_id}/sync-stop`: answers when the task rests (dcs-migration.md §2.6).

use axum::extract::{Path, State};
use control::Control;

use super::no_content;
use crate::body::Reply;
use crate::dcs::denied;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    control.stop_migration_sync(&project, &id).await.map_err(denied)?;
    Ok(no_content())
}
