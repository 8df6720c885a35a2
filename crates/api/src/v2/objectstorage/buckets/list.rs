//! `POST /v2/{project_id}/objectstorage/buckets`: a bare array of names.

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use wire::fields::Fields;

use super::account;
use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, json, object};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let answer = async { control.begin_outgoing(&project)?.buckets(&account(&Fields::root(&map))?).await };
    json(&answer.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?)
}
