//! `POST /v2/{project_id}/sync-tasks/{sync_task_id}/start`

use axum::extract::{Path, State};
use bytes::Bytes;
use control::Control;
use control::secrets::TaskSecrets;
use wire::fields::Fields;

use super::create::secrets;
use crate::body::{Reply, empty, object};
use crate::error::{Error, Face};
use crate::v2::tasks::extras::cdn_key_again;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object(Face::V2, &body)?;
    let f = Fields::root(&map);
    let start = async {
        let shown = control.show_sync(&project, &id, control.clock.now_ms()).await?;
        let secrets = TaskSecrets { cdn: cdn_key_again(&f, &shown.sync.spec)?, ..secrets(&f)? };
        control.start_sync(&project, &id, &secrets).await
    };
    start.await.map_err(|r| Error::of(Face::V2, &r))?;
    empty()
}
