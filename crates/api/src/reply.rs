//! Reading request bodies and writing JSON replies.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{ApiError, OmsVersion};

/// What every handler answers.
pub(crate) type Reply = Result<Response, ApiError>;

/// The JSON object of a body; an empty body is an empty object.
pub(crate) fn object(version: OmsVersion, body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    parse_object(body).map_err(|why| ApiError::not_json(version, &why))
}

/// As [`object`], for all APIs: why a body is not a JSON object.
pub(crate) fn parse_object(body: &Bytes) -> Result<Map<String, Value>, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("not a JSON object".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// 200 with JSON.
pub(crate) fn json(value: &impl Serialize) -> Reply {
    with_status(StatusCode::OK, value)
}

/// Another status with JSON.
pub(crate) fn with_status(status: StatusCode, value: &impl Serialize) -> Reply {
    let text = serde_json::to_vec(value)
        .map_err(|e| ApiError::gateway(StatusCode::INTERNAL_SERVER_ERROR, "APIGW.0601", e.to_string()))?;
    let mut response = (status, text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// 200 without a body.
pub(crate) fn empty() -> Reply {
    let mut response = StatusCode::OK.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
