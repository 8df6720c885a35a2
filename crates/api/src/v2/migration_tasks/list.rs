//! `GET /v2/{project_id}/migration-tasks` (dcs-migration.md §2.2).

use axum::extract::{Path, Query, State};
use control::Control;
use control::migrations::{EndpointView, MigrationView};
use model::migration::Backup;
use wire::dcs::{MigrationList, MigrationListed};

use crate::dcs::{method_name, migration_error, mode_name, number, status, time_text};
use crate::query::Params;
use crate::reply::{Reply, json};
use crate::v2::migration_task::show::{egress, kind_word};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    Query(query): Query<Params>,
) -> Reply {
    let offset = number(&query, "offset", 0, (0, 2_147_483_647))?;
    let limit = number(&query, "limit", 10, (1, 1000))?;
    let part = query.get("name").map_or("", String::as_str);
    let (tasks, count) =
        control.list_migrations(&project, part, offset, limit).await.map_err(migration_error)?;
    json(&MigrationList { count, migration_tasks: tasks.iter().map(listed).collect() })
}

fn addrs(end: &Option<EndpointView>) -> String {
    let all = end.iter().flat_map(|e| &e.addrs);
    let all: Vec<String> = all.map(|(host, port)| format!("{host}:{port}")).collect();
    all.join(",")
}

fn listed(shown: &MigrationView) -> MigrationListed {
    let (row, spec) = (&shown.row, &shown.row.spec);
    let id = |end: &Option<EndpointView>| end.as_ref().and_then(|e| e.end.id.clone()).unwrap_or_default();
    let name = |end: &Option<EndpointView>| end.as_ref().and_then(|e| e.name.clone()).unwrap_or_default();
    let instance_status = |end: &Option<EndpointView>| {
        let registered = end.as_ref().is_some_and(|e| e.end.id.is_some());
        if registered { "RUNNING".to_owned() } else { String::new() }
    };
    MigrationListed {
        task_id: row.id.clone(),
        task_name: row.name.clone(),
        status: status(row.state).into(),
        migration_type: kind_word(row.state.kind).into(),
        migration_method: spec.method.map(|m| method_name(m).into()),
        ecs_tenant_private_ip: egress(&[&shown.source, &shown.target]),
        data_source: match &spec.backup {
            Some(Backup::Bucket { bucket, .. }) => bucket.clone(),
            Some(Backup::Record(id)) => id.clone(),
            None => addrs(&shown.source),
        },
        source_instance_name: name(&shown.source),
        source_instance_id: id(&shown.source),
        target_instance_addrs: addrs(&shown.target),
        target_instance_name: name(&shown.target),
        target_instance_id: id(&shown.target),
        created_at: time_text(row.created_at),
        description: row.description.clone(),
        source_instance_status: instance_status(&shown.source),
        target_instance_status: instance_status(&shown.target),
        source_instance_subnet_id: String::new(),
        target_instance_subnet_id: String::new(),
        source_instance_spec_code: String::new(),
        target_instance_spec_code: String::new(),
        error_message: row.error.clone(),
        released_at: row.released_at.map(time_text),
        version: env!("CARGO_PKG_VERSION").into(),
        resume_mode: mode_name(spec.resume).into(),
        supported_features: vec![],
    }
}
