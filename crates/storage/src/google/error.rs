//! Kinds of failures by the service's codes and statuses.

use http::StatusCode;
use model::error::{Error, Kind, Reason};
use serde_json::Value;

pub(super) fn failure(op: &'static str, what: &str, status: StatusCode, body: &[u8]) -> Error {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json["error"]["message"].as_str().unwrap_or_default();
    let reason = json["error"]["errors"][0]["reason"].as_str().unwrap_or_default();
    let kind = match (status.as_u16(), reason) {
        (_, "rateLimitExceeded" | "userRateLimitExceeded") => Kind::Throttled,
        (400, "invalid") if message.contains("name") => Kind::InvalidKey,
        (401, _) => Kind::BadCredentials,
        (403, _) => Kind::Forbidden,
        (404, _) if message.contains("bucket does not exist") || op == "list" || op == "probe" => {
            Kind::NoBucket
        }
        (404, _) => Kind::NotFound,
        (408, _) => Kind::Timeout,
        (412, _) => Kind::Changed,
        (413, _) => Kind::TooLarge,
        (429 | 503, _) => Kind::Throttled,
        (500..=599, _) => Kind::Unavailable,
        _ => Kind::Invalid,
    };
    let mut text = format!("{what}: HTTP {} {reason}", status.as_u16()).trim_end().to_owned();
    if !message.is_empty() {
        text.push_str(": ");
        text.extend(message.chars().take(300));
    }
    let exists = status == StatusCode::CONFLICT;
    Error::new(kind, op, text).because(if exists { Reason::AlreadyExists } else { Reason::Unspecified })
}
