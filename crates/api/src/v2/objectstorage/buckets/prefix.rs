//! `POST /v2/{project_id}/objectstorage/buckets/prefix`: does any key begin so?

use axum::extract::State;
use bytes::Bytes;
use control::Control;
use wire::fields::Fields;
use wire::v2::PrefixFound;

use super::account;
use crate::body::{Reply, json, object};
use crate::error::{Error, Face, fault};

pub(crate) async fn handle(State(control): State<Control>, body: Bytes) -> Reply {
    let map = object(Face::V2, &body)?;
    let f = Fields::root(&map);
    let answer = async {
        let bucket = f.filled("bucket_name", 1024).map_err(fault)?;
        let prefix = f.text("file_name", 1024).map_err(fault)?;
        let region = f.text("data_center", 100).map_err(fault)?;
        let exist = control.prefix_exists(&account(&f)?, region, bucket, prefix).await?;
        Ok(PrefixFound { exist })
    };
    json(&answer.await.map_err(|r| Error::of(Face::V2, &r))?)
}
