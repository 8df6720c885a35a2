//! `POST /v2/{project_id}/objectstorage/buckets/objects`: one level of a bucket, page by page.

use axum::extract::{Path, State};
use bytes::Bytes;
use control::buckets::StoreAccount;
use control::{Control, TaskError};
use wire::fields::Fields;
use wire::v2::{BucketObjects, BucketRecord};

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
        let ListObjectsRequest { account, bucket, region, folder, after, max } = read(&f)?;
        let level =
            control.begin_outgoing(&project)?.level(&account, region, bucket, folder, after, max).await?;
        let next_marker =
            level.names.last().filter(|_| level.more).map(|(n, _)| n.clone()).unwrap_or_default();
        let size = |s: Option<u64>| s.map_or_else(|| "--".to_owned(), |s| s.to_string());
        let records = level.names.into_iter().map(|(name, s)| BucketRecord { name, size: size(s) }).collect();
        Ok(BucketObjects { next_page: level.more, next_marker, records })
    };
    json(&answer.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?)
}

/// Which level, from where on, and how much of it.
pub(crate) struct ListObjectsRequest<'a> {
    account: StoreAccount,
    bucket: &'a str,
    region: &'a str,
    folder: &'a str,
    after: &'a str,
    max: u32,
}

pub(crate) fn read<'a>(f: &Fields<'a>) -> Result<ListObjectsRequest<'a>, TaskError> {
    let size = f.int("page_size").map_err(field_error)?;
    if !(0..=100).contains(&size) {
        return Err(TaskError::Range(format!("`page_size`: {size} is not in 0 to 100")));
    }
    Ok(ListObjectsRequest {
        bucket: f.filled("bucket_name", 1024).map_err(field_error)?,
        region: f.text("data_center", 100).map_err(field_error)?,
        folder: f.text("file_path", 1023).map_err(field_error)?,
        after: f.text("behind_filename", 1024).map_err(field_error)?,
        account: account(f)?,
        // 0 asks for the default.
        max: if size == 0 { 100 } else { u32::try_from(size).unwrap_or(100) },
    })
}
