//! Kinds of failures by the service's codes and statuses.

use http::StatusCode;
use model::error::{Error, Kind, Reason};

use crate::http::kind_of_status;
use crate::xml;

/// Kinds by error code (Azure "Blob Storage error codes"), else by status.
pub(super) fn failure(
    op: &'static str,
    what: &str,
    status: StatusCode,
    code: Option<String>,
    body: &[u8],
) -> Error {
    let [in_body, message] = xml::texts(body, ["Code", "Message"]).unwrap_or_default();
    let code = code.or(in_body).unwrap_or_default();
    let kind = match code.as_str() {
        "ContainerNotFound" | "ContainerBeingDeleted" => Kind::NoBucket,
        "BlobNotFound" | "ResourceNotFound" | "InvalidBlockList" => Kind::NotFound,
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => {
            Kind::BadCredentials
        }
        "AuthorizationFailure"
        | "AuthorizationPermissionMismatch"
        | "InsufficientAccountPermissions"
        | "AccountIsDisabled"
        | "PublicAccessNotPermitted" => Kind::Forbidden,
        "ServerBusy" => Kind::Throttled,
        "OperationTimedOut" => Kind::Timeout,
        "InternalError" => Kind::Unavailable,
        "ConditionNotMet" | "TargetConditionNotMet" | "SourceConditionNotMet" => Kind::Changed,
        "BlobArchived" | "BlobBeingRehydrated" => Kind::Archived,
        "RequestBodyTooLarge" => Kind::TooLarge,
        "InvalidResourceName" | "OutOfRangeInput" | "InvalidUri" => Kind::InvalidKey,
        "Md5Mismatch" | "Crc64Mismatch" => Kind::Mismatch,
        _ => kind_of_status(status),
    };
    let mut text = format!("{what}: HTTP {} {code}", status.as_u16()).trim_end().to_owned();
    if let Some(message) = message.filter(|m| !m.is_empty()) {
        text.push_str(": ");
        text.extend(message.lines().next().unwrap_or_default().chars().take(300));
    }
    let reason = match code.as_str() {
        "ContainerAlreadyExists" => Reason::AlreadyExists,
        _ => Reason::Unspecified,
    };
    Error::new(kind, op, text).because(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_code_takes_precedence_over_status() {
        let kind = |code: &str, status| failure("write", "k", status, Some(code.into()), b"").kind;
        assert_eq!(kind("Md5Mismatch", StatusCode::BAD_REQUEST), Kind::Mismatch);
        assert_eq!(kind("Crc64Mismatch", StatusCode::BAD_REQUEST), Kind::Mismatch);
        assert_eq!(kind("ContainerNotFound", StatusCode::NOT_FOUND), Kind::NoBucket);
        assert_eq!(kind("BlobArchived", StatusCode::CONFLICT), Kind::Archived);
        assert_eq!(kind("", StatusCode::NOT_FOUND), Kind::NotFound);
        assert_eq!(kind("", StatusCode::SERVICE_UNAVAILABLE), Kind::Throttled);
        let in_body =
            failure("write", "k", StatusCode::BAD_REQUEST, None, b"<Error><Code>Md5Mismatch</Code></Error>");
        assert_eq!(in_body.kind, Kind::Mismatch);
    }
}
