//! `DELETE /v2/{project_id}/migration-tasks/delete`, with a body (dcs-migration.md §2.4).

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use control::migrations::{IDS_MAX, MigrationError, MigrationReply};
use wire::dcs::MigrationsDeleted;
use wire::fields::Fields;

use crate::dcs::{field_error, migration_error, object};
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(&body)?;
    let ids = read(&Fields::root(&map)).map_err(migration_error)?;
    control.delete_migrations(&project, &ids).await.map_err(migration_error)?;
    json(&MigrationsDeleted { task_id_list: ids })
}

pub(crate) fn read(f: &Fields<'_>) -> MigrationReply<Vec<String>> {
    let ids = f.texts("task_id_list", IDS_MAX, 128).map_err(field_error)?;
    if ids.is_empty() {
        return Err(MigrationError::Field(
            f.name("task_id_list"),
            "it must contain at least one task id".into(),
        ));
    }
    Ok(ids)
}
