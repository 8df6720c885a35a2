//! `POST /v2/{project_id}/objectstorage/buckets/regions`: which region serves a bucket.

use axum::extract::{Path, State};
use bytes::Bytes;
use control::buckets::StoreAccount;
use control::{Control, TaskError};
use wire::fields::Fields;
use wire::v2::BucketRegion;

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
        let (account, bucket) = read(&f)?;
        let region = control.begin_outgoing(&project)?.bucket_region(&account, bucket).await?;
        Ok(BucketRegion { id: region.clone(), name: region, support: true })
    };
    json(&answer.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?)
}

/// Whose bucket.
pub(crate) fn read<'a>(f: &Fields<'a>) -> Result<(StoreAccount, &'a str), TaskError> {
    Ok((account(f)?, f.filled("bucket_name", 100).map_err(field_error)?))
}
