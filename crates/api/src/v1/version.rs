//! `GET /v1/{project_id}/objectstorage/version`

use std::collections::HashMap;

use axum::extract::Query;
use http::HeaderMap;
use serde_json::json as value;

use crate::reply::{Reply, json};

pub(crate) async fn handle(headers: HeaderMap, Query(query): Query<HashMap<String, String>>) -> Reply {
    let host = headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or("localhost");
    let all = [
        ("v1.0", "v1", "SUPPORTED", "2016-12-09T00:00:00Z"),
        ("v2.0", "v2", "CURRENT", "2020-01-01T12:00:00Z"),
    ];
    let wanted = crate::query::given(&query, "version");
    let versions: Vec<_> = all
        .into_iter()
        .filter(|(id, path, ..)| wanted.is_none_or(|w| w == *id || w == *path))
        .map(|(id, path, status, updated)| {
            value!({"id": id, "links": [{"href": format!("http://{host}/{path}/"), "rel": "self"}],
                "min_version": "", "status": status, "updated": updated, "version": ""})
        })
        .collect();
    json(&value!({"versions": versions}))
}
