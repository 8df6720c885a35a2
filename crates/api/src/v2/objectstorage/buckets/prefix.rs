//! `POST /v2/{project_id}/objectstorage/buckets/prefix`: does any key begin so?

use axum::extract::{Path, State};
use bytes::Bytes;
use control::buckets::StoreAccount;
use control::{Control, TaskError};
use wire::fields::Fields;
use wire::v2::PrefixFound;

use super::account;
use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, json, object};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let f = Fields::root(&map);
    let answer = async {
        let (account, region, bucket, prefix) = read(&f)?;
        let exist = control.begin_outgoing(&project)?.prefix_exists(&account, region, bucket, prefix).await?;
        Ok(PrefixFound { exist })
    };
    json(&answer.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?)
}

/// Whose bucket, its region and name, and the prefix.
pub(crate) fn read<'a>(f: &Fields<'a>) -> Result<(StoreAccount, &'a str, &'a str, &'a str), TaskError> {
    let text = |name: &str, max| f.text(name, max).map_err(field_error);
    let bucket = f.filled("bucket_name", 1024).map_err(field_error)?;
    Ok((account(f)?, text("data_center", 100)?, bucket, text("file_name", 1024)?))
}
