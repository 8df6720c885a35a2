//! `PUT /v2/{project_id}/tasks/{task_id}/bandwidth-policy`: in force at once; an absent list removes all.

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use control::bandwidth::RANGE_V2;
use wire::fields::Fields;

use super::{task_id, windows};
use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, empty, object};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let id = task_id(OmsVersion::V2, &id)?;
    let map = object(OmsVersion::V2, &body)?;
    let change = async {
        control.show(&project, id).await?;
        control.set_windows(&project, id, windows(&Fields::root(&map))?, RANGE_V2).await
    };
    change.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}
