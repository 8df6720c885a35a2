//! The identity calls that SDKs and scripts make by themselves (auth.md §3).

pub(crate) mod domains;
pub(crate) mod projects;
pub(crate) mod tokens;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// `YYYY-MM-DDTHH:MM:SS.ffffffZ`: six digits of fraction, even when they are zero.
pub(crate) fn time_text(ms: i64) -> String {
    let t = time::OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        ms.rem_euclid(1000) * 1000
    )
}

/// An error in Keystone's shape.
pub(crate) fn keystone(status: StatusCode, message: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = serde_json::json!({"error": {"code": status.as_u16(), "message": message, "title": title}});
    let mut response = (status, body.to_string()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
