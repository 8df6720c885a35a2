//! `POST /v2/{project_id}/sync-tasks/{sync_task_id}/start`

use axum::extract::{Path, State};
use bytes::Bytes;
use control::secrets::TaskSecrets;
use control::{Control, TaskError};
use model::spec::TaskSpec;
use wire::fields::Fields;

use super::create::secrets;
use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, empty, object};
use crate::v2::tasks::extras::cdn_key_again;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let f = Fields::root(&map);
    let start = async {
        let shown = control.show_sync(&project, &id, control.clock.now_ms()).await?;
        let secrets = read(&f, &shown.sync.spec)?;
        control.start_sync(&project, &id, &secrets).await
    };
    start.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}

/// The credentials.
pub(crate) fn read(f: &Fields<'_>, spec: &TaskSpec) -> Result<TaskSecrets, TaskError> {
    Ok(TaskSecrets { cdn: cdn_key_again(f, spec)?, ..secrets(f)? })
}
