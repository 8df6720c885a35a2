//! The identity calls that SDKs and scripts make by themselves (auth.md §3).

pub(crate) mod domains;
pub(crate) mod projects;
pub(crate) mod tokens;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use model::error::Error;

/// The answer when the store fails: 503 while the disk is full or read-only, as of the other APIs.
pub(crate) fn not_stored(failure: &Error, message: &str) -> Response {
    let status = match crate::error::is_full(failure) {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    };
    keystone(status, message)
}

/// An error in Keystone's shape.
pub(crate) fn keystone(status: StatusCode, message: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = serde_json::json!({"error": {"code": status.as_u16(), "message": message, "title": title}});
    let mut response = (status, body.to_string()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
