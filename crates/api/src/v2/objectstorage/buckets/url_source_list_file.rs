//! `POST /v2/{project_id}/objectstorage/buckets/url-source-list-file`: nothing when every line can be read.

use axum::extract::{Path, State};
use bytes::Bytes;
use control::secrets::StoreCredentials;
use control::{Control, TaskError};
use wire::fields::Fields;

use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, empty, object};
use crate::v2::credentials;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let f = Fields::root(&map);
    let check = async {
        let (keys, region, bucket, key) = read(&f)?;
        control.begin_outgoing(&project)?.check_url_list(&keys, region, bucket, key).await
    };
    check.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}

/// Credentials of the destination, its region and bucket, and the list's key.
pub(crate) fn read<'a>(f: &Fields<'a>) -> Result<(StoreCredentials, &'a str, &'a str, &'a str), TaskError> {
    let text = |name: &str, max| f.filled(name, max).map_err(field_error);
    Ok((credentials::node(f)?, text("region", 100)?, text("obs_bucket", 1024)?, text("list_file_key", 1024)?))
}
