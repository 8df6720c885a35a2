//! `DELETE /v2/{project_id}/taskgroups/{group_id}`

use axum::extract::{Path, State};
use control::Control;

use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, empty};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    control.delete_group(&project, &id).await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}
