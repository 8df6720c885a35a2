//! `POST /v2/{project_id}/migration-tasks/batch-restart` (dcs-migration.md §2.8).

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use wire::fields::Fields;

use crate::dcs::{migration_error, object};
use crate::reply::{Reply, json};
use crate::v2::migration_task::batch_stop::{ids, results};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(&body)?;
    let ids = ids(&Fields::root(&map)).map_err(migration_error)?;
    let items = control.restart_migrations(&project, &ids).await.map_err(migration_error)?;
    json(&results(items))
}
