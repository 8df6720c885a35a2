//! S3 error answers as failures: the code decides, the status where there is no body.

use http::StatusCode;
use model::error::{Error, Kind, Reason};

use crate::http::kind_of_status;
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
        "KeyTooLongError" | "KeyTooLong" | "InvalidObjectName" | "InvalidURI" => Kind::InvalidKey,
        "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "InvalidDigest" => {
            Kind::Mismatch
        }
        "IncompleteBody" => Kind::Corrupt,
        "MissingUploadObjectWithObjectLockHeaders" | "MissingContentMD5" => Kind::ChecksumRequired,
        "PermanentRedirect" | "TemporaryRedirect" | "IllegalLocationConstraintException" => Kind::WrongRegion,
        "QuotaExceeded" | "InsufficientCapacity" | "XMinioStorageFull" | "BucketQuotaExceeded" => {
            Kind::NoSpace
        }
        "NotImplemented" | "MethodNotAllowed" => Kind::Unsupported,
        _ => match status.as_u16() {
            301 | 302 | 307 | 308 => Kind::WrongRegion,
            _ => kind_of_status(status),
        },
    }
}

/// The failure for an error answer; `what` names the object or bucket, `body` may be empty (HEAD). `elsewhere` is
/// the bucket's region where it is not the one that requests are signed for.
pub(super) fn failure(
    op: &'static str,
    what: &str,
    status: StatusCode,
    body: &[u8],
    elsewhere: Option<&str>,
) -> Error {
    let [code, message, endpoint] = xml::texts(body, ["Code", "Message", "Endpoint"]).unwrap_or_default();
    let code = code.unwrap_or_default();
    let mut kind = kind_of(&code, status);
    if code == "InvalidRequest" && message.as_deref().is_some_and(names_checksum) {
        kind = Kind::ChecksumRequired;
    }
    let mut text = format!("{what}: HTTP {}", status.as_u16());
    if let Some(region) = elsewhere {
        kind = Kind::WrongRegion;
        text = format!("{what}: the bucket is in region `{region}`: HTTP {}", status.as_u16());
    } else if kind == Kind::WrongRegion {
        let place = endpoint.as_deref().map_or("another region or endpoint", |e| e);
        text = format!("{what}: the bucket is served by {place}: HTTP {}", status.as_u16());
    }
    if !code.is_empty() {
        text.push(' ');
        text.push_str(&code);
    }
    if let Some(message) = message.filter(|m| !m.is_empty()) {
        text.push_str(": ");
        text.extend(message.chars().take(300));
    }
    let reason = match code.as_str() {
        "BucketAlreadyOwnedByYou" | "BucketAlreadyExists" => Reason::AlreadyExists,
        "RestoreAlreadyInProgress" => Reason::RestoreInProgress,
        _ => Reason::Unspecified,
    };
    Error::new(kind, op, text).because(reason)
}

/// True for a message that asks for a checksum. AWS and others say so under a general code, in words of their own.
fn names_checksum(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("content-md5") || message.contains("x-amz-checksum")
}

/// The region of the bucket, where an answer tells it (AWS "Buckets are Regional": header, or `Region` of the error).
pub(super) fn region_in(headers: &http::HeaderMap, body: &[u8]) -> Option<String> {
    let named = headers.get("x-amz-bucket-region").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let region = named.or_else(|| xml::texts(body, ["Region"]).ok().and_then(|[region]| region))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (!region.is_empty() && region.len() <= 64 && region.chars().all(plain)).then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_code_takes_precedence_over_status() {
        let body = b"<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>";
        let f = failure("list", "b", StatusCode::NOT_FOUND, body, None);
        assert_eq!((f.kind, f.message.as_str()), (Kind::NoBucket, "b: HTTP 404 NoSuchBucket: gone"));
        assert_eq!(failure("head", "k", StatusCode::NOT_FOUND, b"", None).kind, Kind::NotFound);
        let garbage = failure("put", "k", StatusCode::SERVICE_UNAVAILABLE, b"garbage <", None);
        assert_eq!(garbage.kind, Kind::Throttled);
    }

    #[test]
    fn existing_bucket_and_running_restore_are_reasons() {
        let reason = |code: &str| {
            let body = format!("<Error><Code>{code}</Code></Error>");
            failure("create_bucket", "b", StatusCode::CONFLICT, body.as_bytes(), None).reason
        };
        assert_eq!(reason("BucketAlreadyOwnedByYou"), Reason::AlreadyExists);
        assert_eq!(reason("BucketAlreadyExists"), Reason::AlreadyExists);
        assert_eq!(reason("RestoreAlreadyInProgress"), Reason::RestoreInProgress);
        assert_eq!(reason("OperationAborted"), Reason::Unspecified);
    }

    #[test]
    fn obj_02_missing_checksum_errors_are_recognised() {
        for body in [
            "<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is required</Message></Error>",
            "<Error><Code>InvalidRequest</Code><Message>Missing required header for this request: Content-MD5</Message></Error>",
            "<Error><Code>MissingContentMD5</Code></Error>",
            "<Error><Code>MissingUploadObjectWithObjectLockHeaders</Code></Error>",
        ] {
            let f = failure("write", "k", StatusCode::BAD_REQUEST, body.as_bytes(), None);
            assert_eq!(f.kind, Kind::ChecksumRequired, "{body}");
        }
        let other = b"<Error><Code>InvalidRequest</Code><Message>no</Message></Error>";
        assert_eq!(failure("write", "k", StatusCode::BAD_REQUEST, other, None).kind, Kind::Invalid);
    }

    #[test]
    fn obj_15_error_of_another_region_names_it() {
        let f = failure("head", "b", StatusCode::BAD_REQUEST, b"", Some("eu-central-1"));
        assert_eq!(f.kind, Kind::WrongRegion);
        assert!(f.message.contains("`eu-central-1`"), "{}", f.message);
        let body = b"<Error><Code>PermanentRedirect</Code><Endpoint>b.s3.example</Endpoint></Error>";
        let f = failure("list", "b", StatusCode::MOVED_PERMANENTLY, body, None);
        assert!(f.kind == Kind::WrongRegion && f.message.contains("b.s3.example"), "{}", f.message);
    }
}
