//! The body of error responses: request id, and the message in the language of the caller.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The error of a request that reached no handler: its path or query cannot be parsed.
fn shaped(path: &str, status: StatusCode, text: &str) -> serde_json::Map<String, serde_json::Value> {
    let code = match status {
        StatusCode::NOT_FOUND => "APIGW.0101",
        StatusCode::PAYLOAD_TOO_LARGE => "APIGW.0201",
        status if status.is_server_error() => "APIGW.0601",
        _ if crate::dcs::is_dcs(path) => "DCS.4063",
        _ if path.starts_with("/v1/") => "S3M.0064",
        _ => "OMS.0064",
    };
    let text = if text.is_empty() { status.canonical_reason().unwrap_or("Error") } else { text };
    let text: String = text.chars().take(1024).collect();
    serde_json::Map::from_iter([
        ("error_code".to_owned(), code.into()),
        ("error_msg".to_owned(), text.into()),
    ])
}

/// Adds the request id to headers and to error bodies, and the sentence in the caller's language.
pub(super) async fn finish(response: Response, id: &str, path: &str, chinese: bool) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Ok(value) = HeaderValue::from_str(id) {
        parts.headers.insert(REQUEST_ID, value);
    }
    if parts.status.as_u16() < 400 {
        return Response::from_parts(parts, body);
    }
    let bytes = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let mut map = match serde_json::from_slice(&bytes) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => {
            parts.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            shaped(path, parts.status, &String::from_utf8_lossy(&bytes))
        }
    };
    if map.contains_key("error_code") {
        map.insert("request_id".into(), id.into());
        let code = map["error_code"].as_str().unwrap_or_default();
        if let Some(sentence) = crate::i18n::zh::sentence(code).filter(|_| chinese) {
            let english = map.get("error_msg").and_then(serde_json::Value::as_str).unwrap_or_default();
            let both: String = format!("{sentence}: {english}").chars().take(1024).collect();
            map.insert("error_msg".into(), both.into());
        }
    }
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(serde_json::Value::Object(map).to_string()))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[tokio::test]
    async fn sec_f35_all_errors_have_the_same_body_shape() {
        for (path, status, code) in [
            ("/v2/p/tasks/%ff", StatusCode::BAD_REQUEST, "OMS.0064"),
            ("/v1/p/objectstorage/task/%ff", StatusCode::BAD_REQUEST, "S3M.0064"),
            ("/v2/p/instances/%ff", StatusCode::BAD_REQUEST, "DCS.4063"),
            ("/v2/p/tasks", StatusCode::PAYLOAD_TOO_LARGE, "APIGW.0201"),
        ] {
            let plain = (status, "Invalid UTF-8 in `id`").into_response();
            let (parts, body) = finish(plain, "0123", path, false).await.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (body["error_code"].as_str(), body["request_id"].as_str()),
                (Some(code), Some("0123")),
                "{path}"
            );
            assert_eq!(parts.headers["content-type"], "application/json");
        }
    }
}
