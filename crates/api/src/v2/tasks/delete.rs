//! `DELETE /v2/{project_id}/tasks/{task_id}`

use axum::extract::{Path, State};
use control::Control;

use super::task_id;
use crate::body::{Reply, empty};
use crate::error::{Error, Face};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let id = task_id(Face::V2, &id)?;
    control.delete(&project, id).await.map_err(|r| Error::of(Face::V2, &r))?;
    empty()
}
