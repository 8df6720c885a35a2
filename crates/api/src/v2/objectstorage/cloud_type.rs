//! `GET /v2/{project_id}/objectstorage/cloud-type?type=src|dst`: a bare array of vendor names.

use std::collections::HashMap;

use axum::extract::{Query, State};
use control::{Control, Refusal};

use crate::body::{Reply, json};
use crate::error::{Error, Face};
use crate::v2::tasks::create::URLS;

/// Vendors in the order of oms.md §5.1.
pub(crate) const VENDORS: [&str; 11] = [
    "AWS",
    "Azure",
    "Aliyun",
    "Tencent",
    "HuaweiCloud",
    "QingCloud",
    "KingsoftCloud",
    "Baidu",
    "Qiniu",
    "Google",
    "UCloud",
];

pub(crate) async fn handle(State(_): State<Control>, Query(query): Query<HashMap<String, String>>) -> Reply {
    match query.get("type").map(String::as_str) {
        Some("src") => json(&VENDORS.iter().copied().chain([URLS]).collect::<Vec<_>>()),
        Some("dst") => json(&["HEC"]),
        Some(other) => {
            let why = format!("`{other}` is neither `src` nor `dst`");
            Err(Error::of(Face::V2, &Refusal::Invalid("type".into(), why)))
        }
        None => Err(Error::of(Face::V2, &Refusal::Missing("type".into()))),
    }
}
