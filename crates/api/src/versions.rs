//! `GET /` and `GET /{version}`: which versions there are (oms.md §2.7).

use axum::extract::Path;
use http::{HeaderMap, StatusCode};
use wire::v2::{Link, Version};

use crate::error::ApiError;
use crate::reply::{Reply, json};

fn versions(headers: &HeaderMap) -> Vec<Version> {
    let host = headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or("localhost");
    let link = |id: &str| vec![Link { href: format!("http://{host}/{id}/"), rel: "self" }];
    vec![
        Version { id: "v1", links: link("v1"), status: "SUPPORTED", updated: "2016-12-09T00:00:00Z" },
        Version { id: "v2", links: link("v2"), status: "CURRENT", updated: "2020-01-01T12:00:00Z" },
    ]
}

pub(crate) async fn list(headers: HeaderMap) -> Reply {
    json(&serde_json::json!({"versions": versions(&headers)}))
}

/// What clients of Keystone ask for before they sign in; it stands in no list, because those are of OMS.
fn keystone(headers: &HeaderMap) -> serde_json::Value {
    let host = headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or("localhost");
    serde_json::json!({"version": {
        "id": "v3.0", "status": "stable", "updated": "2013-03-06T00:00:00Z",
        "links": [{"rel": "self", "href": format!("http://{host}/v3/")}],
        "media-types": [
            {"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}
        ]
    }})
}

pub(crate) async fn show(Path(version): Path<String>, headers: HeaderMap) -> Reply {
    if version == "v3" {
        return json(&keystone(&headers));
    }
    match versions(&headers).into_iter().find(|v| v.id == version) {
        Some(found) => json(&found),
        None => {
            let m = format!("API version `{version}` does not exist; supported versions are v1 and v2");
            Err(ApiError::gateway(StatusCode::NOT_FOUND, "S3M.0256", m))
        }
    }
}
