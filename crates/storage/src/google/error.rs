//! Kinds of failures by the service's codes and statuses.

use http::StatusCode;
use model::error::{Error, Kind, Reason};
use serde_json::Value;

use crate::http::kind_of_status;

pub(super) fn failure(op: &'static str, what: &str, status: StatusCode, body: &[u8]) -> Error {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = json["error"]["message"].as_str().unwrap_or_default();
    let reason = json["error"]["errors"][0]["reason"].as_str().unwrap_or_default();
    let kind = match (status.as_u16(), reason) {
        (_, "rateLimitExceeded" | "userRateLimitExceeded") => Kind::Throttled,
        (400, "invalid") if message.contains("name") => Kind::InvalidKey,
        (404, _) if message.contains("bucket does not exist") || op == "list" || op == "probe" => {
            Kind::NoBucket
        }
        _ => kind_of_status(status),
    };
    let mut text = format!("{what}: HTTP {} {reason}", status.as_u16()).trim_end().to_owned();
    if !message.is_empty() {
        text.push_str(": ");
        text.extend(message.chars().take(300));
    }
    let exists = status == StatusCode::CONFLICT;
    Error::new(kind, op, text).because(if exists { Reason::AlreadyExists } else { Reason::Unspecified })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_and_operation_take_precedence_over_status() {
        let kind = |op, status: u16, message: &str, reason: &str| {
            let body = serde_json::json!({"error": {"message": message, "errors": [{"reason": reason}]}});
            failure(op, "k", StatusCode::from_u16(status).unwrap(), body.to_string().as_bytes()).kind
        };
        assert_eq!(kind("read", 403, "", "rateLimitExceeded"), Kind::Throttled);
        assert_eq!(kind("write", 400, "invalid object name", "invalid"), Kind::InvalidKey);
        assert_eq!(kind("read", 404, "The specified bucket does not exist.", ""), Kind::NoBucket);
        assert_eq!(kind("list", 404, "", ""), Kind::NoBucket);
        assert_eq!(kind("read", 404, "", ""), Kind::NotFound);
        assert_eq!(kind("read", 503, "", ""), Kind::Throttled);
    }
}
