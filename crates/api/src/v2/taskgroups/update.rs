//! `PUT /v2/{project_id}/taskgroups/{group_id}/update`: the bandwidth of the whole group.

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use wire::fields::Fields;

use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, empty, object};
use crate::v2::tasks::windows;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let update = async { control.update_group(&project, &id, windows(&Fields::root(&map))?).await };
    update.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}
