//! `GET /v2/{project_id}/migration-task/{task_id}/stats` (dcs-migration.md §2.12).

use axum::extract::{Path, State};
use control::Control;
use wire::dcs::MigrationNumbers;

use crate::dcs::migration_error;
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let (state, n) = control.migration_stats(&project, &id).await.map_err(migration_error)?;
    json(&MigrationNumbers {
        full_migration_progress: n.percent.to_string(),
        offset: n.lag_bytes.to_string(),
        source_dbsize: n.source_keys.to_string(),
        target_dbsize: n.target_keys.to_string(),
        target_input_kbps: n.kib_per_s.to_string(),
        target_ops: n.ops_per_s.to_string(),
        is_migrating: state.phase.is_open(),
    })
}
