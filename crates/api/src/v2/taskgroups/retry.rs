//! `PUT /v2/{project_id}/taskgroups/{group_id}/retry`: every field may be missing, and so may the body.

use axum::extract::{Path, State};
use bytes::Bytes;
use control::secrets::GivenSecrets;
use control::{Control, TaskError};
use wire::fields::Fields;

use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, empty, object};
use crate::v2::taskgroups::start::read;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let f = Fields::root(&map);
    let retry = async {
        let (secrets, failed_only) = asked(&f)?;
        control.retry_group(&project, &id, secrets, failed_only).await
    };
    retry.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}

/// Credentials when there are any, and whether only failed objects are meant.
pub(crate) fn asked(f: &Fields<'_>) -> Result<(GivenSecrets, bool), TaskError> {
    Ok((read(f)?, f.opt_bool("migrate_failed_object").map_err(field_error)?.unwrap_or(false)))
}
