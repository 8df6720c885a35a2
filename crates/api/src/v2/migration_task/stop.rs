//! `POST /v2/{project_id}/migration-task/{task_id}/stop`: answers at once (dcs-migration.md §2.5).

use axum::extract::{Path, State};
use control::Control;

use super::show::reply;
use crate::body::{Reply, json};
use crate::dcs::denied;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let shown = control.stop_migration(&project, &id).await.map_err(denied)?;
    json(&reply(&shown))
}
