//! `POST /v2/{project_id}/migration/{task_id}/task`: configures and starts (dcs-migration.md §2.10).

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use control::migrations::{MigrationError, MigrationReply};
use model::migration::MigrationSpec;
use runtime::migrations::EndSecrets;
use wire::dcs::MigrationStarted;
use wire::fields::Fields;

use crate::dcs::{METHODS, MODES, field_error, method, migration_error, mode, object, status};
use crate::reply::{Reply, json};
use crate::v2::migration_task::create::end;
use crate::v2::migration_task::own;

/// Greatest limit, MiB per second.
const LIMIT_MAX: u32 = 10_240;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object(&body)?;
    let (spec, secrets) = read(&Fields::root(&map)).map_err(migration_error)?;
    let row = control.configure_migration(&project, &id, spec, secrets).await.map_err(migration_error)?;
    json(&MigrationStarted {
        id: row.id,
        name: row.name,
        status: status(row.state).into(),
        error: String::new(),
    })
}

pub(crate) fn read(f: &Fields<'_>) -> MigrationReply<(MigrationSpec, EndSecrets)> {
    let chosen = method(f.one_of("migration_method", &METHODS).map_err(field_error)?);
    let resume = mode(f.one_of("resume_mode", &MODES).map_err(field_error)?);
    let limit =
        f.opt_text_or_number("bandwidth_limit_mb", 20).map_err(field_error)?.filter(|t| !t.is_empty());
    let bandwidth_mb = match limit {
        None => None,
        Some(text) => {
            let plain = !text.starts_with(['0', '+']);
            let mb = text.parse().ok().filter(|_| plain).filter(|mb| (1..=LIMIT_MAX).contains(mb));
            let why = || format!("`{text}` is not an integer from 1 to {LIMIT_MAX} (MB/s)");
            Some(mb.ok_or_else(|| MigrationError::Field(f.name("bandwidth_limit_mb"), why()))?)
        }
    };
    let (source, source_secret) = end(&f.object("source_instance").map_err(field_error)?)?;
    let (target, target_secret) = end(&f.object("target_instance").map_err(field_error)?)?;
    let spec = MigrationSpec {
        method: Some(chosen),
        resume,
        bandwidth_mb,
        source: Some(source),
        target: Some(target),
        own: own::read(f)?,
        ..MigrationSpec::default()
    };
    Ok((spec, EndSecrets { source: source_secret, target: target_secret }))
}
