//! `PUT /v2/{project_id}/taskgroups/{group_id}/start`

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use wire::fields::Fields;

use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, empty, object};
use crate::v2::tasks::start::read;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let start = async {
        let (group, _) = control.group_members(&project, &id).await?;
        let secrets = read(&Fields::root(&map), &group.spec)?;
        control.start_group(&project, &id, &secrets).await
    };
    start.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}
