//! `DELETE /v1/{project_id}/objectstorage/task/{task_id}`

use axum::extract::{Path, State};
use control::Control;

use crate::body::{Reply, empty};
use crate::error::{Error, Face};
use crate::v2::tasks::task_id;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let id = task_id(Face::V1, &id)?;
    control.delete(&project, id).await.map_err(|r| Error::of(Face::V1, &r))?;
    empty()
}
