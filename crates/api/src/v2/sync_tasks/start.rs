//! `POST /v2/{project_id}/sync-tasks/{sync_task_id}/start`

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use wire::fields::Fields;

use super::create::secrets;
use crate::body::{Reply, empty, object};
use crate::error::{Error, Face};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object(Face::V2, &body)?;
    let start = async { control.start_sync(&project, &id, &secrets(&Fields::root(&map))?).await };
    start.await.map_err(|r| Error::of(Face::V2, &r))?;
    empty()
}
