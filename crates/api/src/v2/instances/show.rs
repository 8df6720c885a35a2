//! `GET /v2/{project_id}/instances/{instance_id}` (dcs-migration.md §2.18).

use axum::extract::{Path, State};
use control::Control;
use wire::dcs::InstanceShown;

use super::listed;
use crate::dcs::migration_error;
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let seen = control.instance(&project, &id).await.map_err(migration_error)?;
    let cluster = seen.server.as_ref().is_some_and(|s| s.cluster);
    json(&InstanceShown {
        listed: listed(&seen),
        cache_mode: if cluster { "cluster" } else { "single" }.into(),
        db_number: if cluster { 1 } else { 256 },
        replica_count: 1,
        sharding_count: 1,
        product_type: "generic".into(),
        storage_type: "DRAM".into(),
        ..InstanceShown::default()
    })
}
