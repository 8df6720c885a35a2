//! `POST /v2/{project_id}/objectstorage/buckets/regions`: which region serves a bucket.

use axum::extract::State;
use bytes::Bytes;
use control::Control;
use wire::fields::Fields;
use wire::v2::BucketRegion;

use super::account;
use crate::body::{Reply, json, object};
use crate::error::{Error, Face, fault};

pub(crate) async fn handle(State(control): State<Control>, body: Bytes) -> Reply {
    let map = object(Face::V2, &body)?;
    let f = Fields::root(&map);
    let answer = async {
        let bucket = f.filled("bucket_name", 100).map_err(fault)?;
        let region = control.bucket_region(&account(&f)?, bucket).await?;
        Ok(BucketRegion { id: region.clone(), name: region, support: true })
    };
    json(&answer.await.map_err(|r| Error::of(Face::V2, &r))?)
}
