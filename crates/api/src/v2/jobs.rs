//! `GET /v2/{project_id}/jobs/{job_id}`: creations are done when they are answered (dcs-migration.md §2.16).

use axum::extract::{Path, State};
use control::Control;
use wire::dcs::Job;

use crate::dcs::migration_error;
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let row = control.job(&project, &id).await.map_err(migration_error)?;
    json(&Job {
        job_id: row.job,
        job_type: "createMigrationInstanceJob".into(),
        status: "SUCCESS".into(),
        begin_time: row.created_at.to_string(),
        end_time: row.created_at.to_string(),
        fail_reason: None,
    })
}
