//! `DELETE /v1/{project_id}/objectstorage/task/{task_id}`

use axum::extract::{Path, State};
use control::Control;

use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, empty};
use crate::v2::tasks::task_id;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let id = task_id(OmsVersion::V1, &id)?;
    control.delete(&project, id).await.map_err(|r| ApiError::from_task_error(OmsVersion::V1, &r))?;
    empty()
}
