//! `POST /v2/{project_id}/migration-task/{task_id}/exchange-ip`: redirects clients to the target (cut-over) (dcs-migration.md §2.14).

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use control::migrations::MigrationReply;
use wire::fields::Fields;

use super::no_content;
use crate::dcs::{field_error, migration_error, object_or_nothing};
use crate::reply::Reply;

/// Addresses of one call.
const ADDRESSES_MAX: usize = 1000;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object_or_nothing(&body)?;
    let (addresses, domain) = read(&Fields::root(&map)).map_err(migration_error)?;
    control.cut_over(&project, &id, &addresses, domain).await.map_err(migration_error)?;
    Ok(no_content())
}

pub(crate) fn read(f: &Fields<'_>) -> MigrationReply<(Vec<String>, bool)> {
    let addresses = f.opt_texts("exchanged_ip", ADDRESSES_MAX, 255).map_err(field_error)?.unwrap_or_default();
    let domain = f.opt_bool_or_text("is_exchange_domain").map_err(field_error)?.unwrap_or(false);
    Ok((addresses, domain))
}
