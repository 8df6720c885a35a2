//! The log line and the audit line of a request.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::response::Response;
use config::Role;
use control::identity::role_name;
use http::Method;
use http::request::Parts;
use model::printable::{Printable, beginning};
use store::AuditLine;

use super::AuthLayer;
use crate::body_limits;

/// The longest path that is written to a line, bytes.
const TARGET_MAX: usize = 512;

/// What the layer keeps of a request for its log and audit lines.
pub(super) struct RequestSummary {
    pub(super) id: String,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) from: Option<IpAddr>,
    /// The access key that it says it is signed with.
    pub(super) signed: Option<String>,
    /// Its body is sent only after `100 Continue`.
    pub(super) waits: bool,
    pub(super) chinese: bool,
}

impl RequestSummary {
    pub(super) fn of(parts: &Parts) -> Self {
        let language = parts.headers.get("x-language");
        Self {
            id: seal::random::<16>().map_or_else(|_| "0".repeat(32), |b| storage::checksum::hex(&b)),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            from: parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip()),
            signed: key_of(parts),
            waits: body_limits::waits_for_continue(&parts.headers),
            chinese: language.is_some_and(|l| l.as_bytes().eq_ignore_ascii_case(b"zh-cn")),
        }
    }

    /// Asks a store something on behalf of its caller.
    fn looks_up(&self) -> bool {
        self.path.contains("/objectstorage/buckets")
    }

    /// False for methods that change nothing.
    pub(super) fn may_change(&self) -> bool {
        self.method != Method::GET && self.method != Method::HEAD
    }
}

/// Logs a request and its status. The audit line: of a change, of a token that was issued, and of refusals up to their
/// limit.
pub(super) fn log_and_audit_line(
    gate: &AuthLayer,
    asked: RequestSummary,
    response: &Response,
    principal: Option<(String, Role)>,
    is_admitted: bool,
) -> Option<AuditLine> {
    let status = response.status();
    let claimed = response.extensions().get::<ClaimedName>().map(|c| c.0.clone());
    let signs_in = claimed.is_some() && status.is_success();
    let is_known = (is_admitted && principal.is_some()) || signs_in;
    // A look-up is a POST where it carries credentials, and what was refused changed nothing: anybody may repeat both.
    let changes = (is_known && asked.may_change() && !asked.looks_up() && status.as_u16() < 400) || signs_in;
    let calls = is_known && asked.may_change();
    let (who, role) = match principal {
        Some((name, role)) => (name, role_name(role)),
        None => (claimed.or(asked.signed).unwrap_or_else(|| "-".to_owned()), ""),
    };
    let RequestSummary { id, method, path, from, .. } = asked;
    let now = gate.control.clock.now_ms();
    let mut target = Printable(beginning(&path, TARGET_MAX)).to_string();
    // Callers without valid credentials fill no log.
    let skipped = if is_known { Some(0) } else { gate.log_limit.admit(from, now) };
    if let Some(skipped) = skipped {
        let (status, who) = (status.as_u16(), Printable(&who));
        tracing::info!(request_id = %id, %method, path = %target, status, principal = %who, "request");
        if skipped > 0 {
            tracing::warn!(count = skipped, "requests without valid credentials were not logged");
        }
    }
    let not_recorded = match (changes, status.as_u16()) {
        (true, _) => 0,
        (false, _) if calls => gate.call_limit.admit(from, now)?,
        (false, 401 | 403 | 429) => gate.control.directory.audit_limit.admit(from, now)?,
        _ => return None,
    };
    // A project of the path that does not exist is not recorded.
    let named = path.split('/').nth(2).filter(|_| path.starts_with("/v1/") || path.starts_with("/v2/"));
    let known = named.filter(|p| gate.control.directory.accounts().project(p).is_some());
    if not_recorded > 0 {
        target.push_str(&format!(
            " ({not_recorded} earlier {} were not recorded)",
            if calls { "calls" } else { "refusals" }
        ));
    }
    Some(AuditLine {
        at: now,
        request_id: id,
        project: known.unwrap_or_default().to_owned(),
        principal: who,
        action: method.to_string(),
        target,
        status: status.as_u16(),
        address: from.map(|ip| ip.to_canonical().to_string()).unwrap_or_default(),
        role: role.to_owned(),
    })
}

/// Who asks for a token, as a reply carries it to the audit trail.
#[derive(Clone, Debug)]
pub(crate) struct ClaimedName(pub(crate) String);

/// The longest name that is written down of somebody who was not recognised, characters.
const CLAIMED_MAX: usize = 64;

/// A name as somebody claims it: short, and one line.
pub(crate) fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(CLAIMED_MAX).collect()
}

/// The access key that a request says it is signed with.
fn key_of(parts: &Parts) -> Option<String> {
    let text = parts.headers.get("authorization")?.to_str().ok()?;
    let at = text.find("Access=").map(|at| at + 7).or_else(|| text.find("Credential=").map(|at| at + 11))?;
    text[at..].split([',', '/', ' ']).next().map(short)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use http::HeaderValue;

    use super::*;

    /// What a header claims is written down as one short line.
    #[test]
    fn fuzz_authorization() {
        let corpus = [
            &b"SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=00"[..],
            b"V11-HMAC-SHA256 Credential=AK/20260115/cn-north-1/oms, SignedHeaders=host, Signature=00",
            "Access=\u{e9}\u{4e2d}".as_bytes(),
        ];
        testkit::fuzz::fuzz("authorization", &corpus.map(<[u8]>::to_vec), |input, _| {
            let Ok(value) = HeaderValue::from_bytes(input) else { return };
            let mut request = Request::new(Body::empty());
            request.headers_mut().insert("authorization", value);
            if let Some(name) = key_of(&request.into_parts().0) {
                assert!(name.chars().count() <= CLAIMED_MAX && !name.chars().any(char::is_control), "{name}");
            }
        });
    }
}
