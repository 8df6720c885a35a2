//! `DELETE /v2/{project_id}/sync-tasks/{sync_task_id}`

use axum::extract::{Path, State};
use control::Control;

use crate::body::{Reply, empty};
use crate::error::{Error, Face};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    control.delete_sync(&project, &id).await.map_err(|r| Error::of(Face::V2, &r))?;
    empty()
}
