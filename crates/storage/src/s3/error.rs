//! S3 error answers as failures: the code decides, the status where there is no body.

use http::StatusCode;
use model::failure::{Failure, Kind};

use crate::xml;

/// The kind of an answer by its S3 error code (AWS "Error responses") and status.
pub(super) fn kind_of(code: &str, status: StatusCode) -> Kind {
    match code {
        "NoSuchBucket" => Kind::NoBucket,
        "NoSuchKey" | "NoSuchUpload" | "NoSuchVersion" => Kind::NotFound,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "ExpiredToken"
        | "AuthorizationHeaderMalformed"
        | "InvalidSecurity" => Kind::BadCredentials,
        "RequestTimeTooSkewed" => Kind::ClockSkew,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => Kind::Forbidden,
        "SlowDown" | "TooManyRequests" | "Throttling" | "RequestLimitExceeded" => Kind::Throttled,
        "RequestTimeout" => Kind::Timeout,
        "InternalError" | "ServiceUnavailable" | "OperationAborted" => Kind::Unavailable,
        "PreconditionFailed" => Kind::Changed,
        "InvalidObjectState" => Kind::Archived,
        "EntityTooLarge" => Kind::TooLarge,
        "KeyTooLongError" | "KeyTooLong" | "InvalidObjectName" | "InvalidURI" => Kind::KeyRefused,
        "BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody" | "InvalidDigest" => Kind::Corrupt,
        "QuotaExceeded" | "InsufficientCapacity" | "XMinioStorageFull" | "BucketQuotaExceeded" => {
            Kind::NoSpace
        }
        "NotImplemented" | "MethodNotAllowed" => Kind::Unsupported,
        _ => match status.as_u16() {
            401 => Kind::BadCredentials,
            403 => Kind::Forbidden,
            404 => Kind::NotFound,
            405 | 501 => Kind::Unsupported,
            408 => Kind::Timeout,
            412 => Kind::Changed,
            429 => Kind::Throttled,
            503 => Kind::Throttled,
            507 => Kind::NoSpace,
            500..=599 => Kind::Unavailable,
            _ => Kind::Invalid,
        },
    }
}

/// The failure for an error answer; `what` names the object or bucket, `body` may be empty (HEAD).
pub(super) fn failure(op: &'static str, what: &str, status: StatusCode, body: &[u8]) -> Failure {
    let [code, message] = xml::texts(body, ["Code", "Message"]).unwrap_or_default();
    let code = code.unwrap_or_default();
    let kind = kind_of(&code, status);
    let mut text = format!("{what}: HTTP {}", status.as_u16());
    if !code.is_empty() {
        text.push(' ');
        text.push_str(&code);
    }
    if let Some(message) = message.filter(|m| !m.is_empty()) {
        text.push_str(": ");
        text.extend(message.chars().take(300));
    }
    Failure::new(kind, op, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_decides_before_the_status() {
        let body = b"<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>";
        let f = failure("list", "b", StatusCode::NOT_FOUND, body);
        assert_eq!((f.kind, f.message.as_str()), (Kind::NoBucket, "b: HTTP 404 NoSuchBucket: gone"));
        assert_eq!(failure("head", "k", StatusCode::NOT_FOUND, b"").kind, Kind::NotFound);
        assert_eq!(failure("put", "k", StatusCode::SERVICE_UNAVAILABLE, b"garbage <").kind, Kind::Throttled);
    }
}
