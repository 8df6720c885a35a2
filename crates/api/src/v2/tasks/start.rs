//! `POST /v2/{project_id}/tasks/{task_id}/start`

use axum::extract::{Path, State};
use bytes::Bytes;
use control::secrets::{StoreCredentials, TaskSecrets};
use control::{Control, TaskError};
use model::selection::Selection;
use model::spec::TaskSpec;
use wire::fields::Fields;

use super::extras::cdn_key_again;
use super::task_id;
use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, empty, object};
use crate::v2::credentials;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let id = task_id(OmsVersion::V2, &id)?;
    let map = object(OmsVersion::V2, &body)?;
    let fields = Fields::root(&map);
    let start = async {
        // An unknown task is told before its missing credentials.
        let shown = control.show(&project, id).await?;
        let (secrets, failed_only) = asked(&fields, &shown.task.spec)?;
        control.start(&project, id, &secrets, failed_only).await
    };
    start.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}

/// Credentials, and whether only failed objects are meant.
pub(crate) fn asked(f: &Fields<'_>, spec: &TaskSpec) -> Result<(TaskSecrets, bool), TaskError> {
    let failed_only = f.opt_bool("migrate_failed_object").map_err(field_error)?.unwrap_or(false);
    Ok((read(f, spec)?, failed_only))
}

/// The credentials of a start of tasks and groups.
pub(crate) fn read(f: &Fields<'_>, spec: &TaskSpec) -> Result<TaskSecrets, TaskError> {
    let target = credentials::flat(f, "dst")?;
    let urls = matches!(spec.selection, Selection::UrlList(_));
    let source = if urls { StoreCredentials::default() } else { credentials::flat(f, "src")? };
    Ok(TaskSecrets { source, target, cdn: cdn_key_again(f, spec)? })
}
