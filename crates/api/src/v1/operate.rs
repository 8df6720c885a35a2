//! `PUT /v1/{project_id}/objectstorage/task/{task_id}`: `{"operation": "start" | "stop" |
//! "change_bandwidthpolicy", …}` (oms.md §6.1).

use axum::extract::{Path, State};
use bytes::Bytes;
use control::bandwidth::RANGE_V1;
use control::secrets::{StoreCredentials, TaskSecrets};
use control::{Control, TaskError};
use model::selection::Selection;
use model::spec::TaskSpec;
use seal::Secret;
use wire::fields::Fields;

use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, empty, object};
use crate::v2::tasks::extras::cdn_key_again;
use crate::v2::tasks::{task_id, windows};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let id = task_id(OmsVersion::V1, &id)?;
    let map = object(OmsVersion::V1, &body)?;
    let fields = Fields::root(&map);
    let operate = async {
        match operation(&fields)? {
            "stop" => control.stop(&project, id).await,
            "start" => {
                let shown = control.show(&project, id).await?;
                let (secrets, failed_only) = start(&fields, &shown.task.spec)?;
                control.start(&project, id, &secrets, failed_only).await
            }
            _ => {
                control.show(&project, id).await?;
                control.set_windows(&project, id, windows(&fields)?, RANGE_V1).await
            }
        }
    };
    operate.await.map_err(|r| ApiError::from_task_error(OmsVersion::V1, &r))?;
    empty()
}

/// What is to be done.
pub(crate) fn operation(f: &Fields<'_>) -> Result<&'static str, TaskError> {
    f.one_of("operation", &["start", "stop", "change_bandwidthpolicy"]).map_err(field_error)
}

/// Credentials, and whether only failed objects are meant.
pub(crate) fn start(f: &Fields<'_>, spec: &TaskSpec) -> Result<(TaskSecrets, bool), TaskError> {
    let failed_only = f.opt_bool("migration_failed_object").map_err(field_error)?.unwrap_or(false);
    Ok((secrets(f, spec)?, failed_only))
}

fn secrets(f: &Fields<'_>, spec: &TaskSpec) -> Result<TaskSecrets, TaskError> {
    let keys = |side: &str| -> Result<StoreCredentials, TaskError> {
        Ok(StoreCredentials {
            ak: f.filled(&format!("{side}_ak"), 100).map_err(field_error)?.to_owned(),
            sk: Secret::new(f.filled(&format!("{side}_sk"), 100).map_err(field_error)?),
            ..StoreCredentials::default()
        })
    };
    let urls = matches!(spec.selection, Selection::UrlList(_));
    let source = if urls { StoreCredentials::default() } else { keys("source")? };
    Ok(TaskSecrets { source, target: keys("target")?, cdn: cdn_key_again(f, spec)? })
}
