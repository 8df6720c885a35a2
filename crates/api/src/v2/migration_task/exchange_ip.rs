//! `POST /v2/{project_id}/migration-task/{task_id}/exchange-ip`: leads clients to the target (dcs-migration.md §2.14).

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use control::migrations::MigrationReply;
use wire::fields::Fields;

use super::no_content;
use crate::body::Reply;
use crate::dcs::{denied, fault, object_or_nothing};

/// Addresses of one call.
const ADDRESSES_MAX: usize = 1000;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object_or_nothing(&body)?;
    let (addresses, domain) = read(&Fields::root(&map)).map_err(denied)?;
    control.cut_over(&project, &id, &addresses, domain).await.map_err(denied)?;
    Ok(no_content())
}

pub(crate) fn read(f: &Fields<'_>) -> MigrationReply<(Vec<String>, bool)> {
    let addresses = f.opt_texts("exchanged_ip", ADDRESSES_MAX, 255).map_err(fault)?.unwrap_or_default();
    let domain = f.opt_bool_or_text("is_exchange_domain").map_err(fault)?.unwrap_or(false);
    Ok((addresses, domain))
}
