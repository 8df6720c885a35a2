//! `POST /v2/{project_id}/migration/instance`: creates a task that waits to be configured (dcs-migration.md §2.9).

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use control::migrations::{MigrationError, MigrationReply, MigrationRequest};
use model::migration::MigrationSpec;
use runtime::migrations::EndSecrets;
use wire::dcs::OnlineMigrationCreated;
use wire::fields::Fields;

use crate::dcs::{migration_error, object};
use crate::reply::{Reply, json};
use crate::v2::migration_task::create::{description, name};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(&body)?;
    let described = read(&Fields::root(&map)).map_err(migration_error)?;
    let row = control.create_online_migration(&project, described).await.map_err(migration_error)?;
    json(&OnlineMigrationCreated { instance_id: row.id, job_id: row.job })
}

pub(crate) fn read(f: &Fields<'_>) -> MigrationReply<MigrationRequest> {
    let network = |member: &'static str| match f.filled(member, 64) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(MigrationError::Network(member)),
    };
    let name = name(f, "name")?;
    let description = description(f)?;
    let spec = MigrationSpec {
        network: "vpc".into(),
        vpc: network("vpc_id")?,
        subnet: network("subnet_id")?,
        security_group: network("security_group_id")?,
        ..MigrationSpec::default()
    };
    Ok(MigrationRequest { name, description, spec, secrets: EndSecrets::default() })
}
