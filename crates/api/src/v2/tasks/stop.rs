//! `POST /v2/{project_id}/tasks/{task_id}/stop`: answers at once, whatever the task is doing.

use axum::extract::{Path, State};
use control::Control;

use super::task_id;
use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, empty};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let id = task_id(OmsVersion::V2, &id)?;
    control.stop(&project, id).await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}
