//! `POST /v2/{project_id}/migration-task/{task_id}/stop`: answers at once (dcs-migration.md §2.5).

use axum::extract::{Path, State};
use control::Control;

use super::show::reply;
use crate::dcs::migration_error;
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let shown = control.stop_migration(&project, &id).await.map_err(migration_error)?;
    json(&reply(&shown))
}
