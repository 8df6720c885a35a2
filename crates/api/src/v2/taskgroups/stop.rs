//! `PUT /v2/{project_id}/taskgroups/{group_id}/stop`

use axum::extract::{Path, State};
use control::Control;

use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, empty};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    control.stop_group(&project, &id).await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}
