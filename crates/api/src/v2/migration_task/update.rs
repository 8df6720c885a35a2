//! `PUT /v2/{project_id}/migration-task/{task_id}`: what follows a lost connection (dcs-migration.md §2.11).

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use control::migrations::MigrationReply;
use model::migration::ResumeMode;
use wire::fields::Fields;

use crate::dcs::{MODES, field_error, migration_error, mode, object_or_nothing};
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object_or_nothing(&body)?;
    let resume = read(&Fields::root(&map)).map_err(migration_error)?;
    control.update_migration(&project, &id, resume).await.map_err(migration_error)?;
    json(&serde_json::json!({}))
}

pub(crate) fn read(f: &Fields<'_>) -> MigrationReply<ResumeMode> {
    Ok(mode(f.opt_one_of("resume_mode", &MODES).map_err(field_error)?.unwrap_or(MODES[0])))
}
