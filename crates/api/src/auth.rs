//! The layer in front of routing: collects the body, recognises the caller on raw bytes, numbers the request,
//! writes the audit line.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use config::Role;
use control::Control;
use control::identity::Principal;
use control::identity::signature::{Raw, verify};
use control::identity::token::TokenProblem;
use http::{HeaderName, HeaderValue, Method, StatusCode, request::Parts};
use http_body_util::{BodyExt, Limited};
use store::AuditLine;

use crate::error::Error;

/// Largest request body (auth.md §2.5).
const BODY_MAX: usize = 12 << 20;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn unauthorised(text: &str) -> Error {
    let m = format!("Incorrect IAM authentication information: {text}");
    Error::gateway(StatusCode::UNAUTHORIZED, "APIGW.0301", m)
}

/// Paths that answer without authentication: version discovery, health, and asking for a token.
fn is_open(method: &Method, path: &str) -> bool {
    match path {
        "/" | "/v1" | "/v2" | "/healthz" | "/readyz" => method == Method::GET,
        "/v3/auth/tokens" => method == Method::POST,
        _ => method == Method::GET && is_version(path),
    }
}

/// `/v9`, `/v2.0`: answered by version discovery, whatever the number.
fn is_version(path: &str) -> bool {
    let digits = path.strip_prefix("/v").unwrap_or_default();
    (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Metrics are open to this machine only (contract §3); through a proxy, every caller is somebody else.
fn scrapes_locally(parts: &Parts) -> bool {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip());
    let forwarded = ["x-forwarded-for", "forwarded"].iter().any(|h| parts.headers.contains_key(*h));
    parts.uri.path() == "/metrics" && peer.is_some_and(|ip| ip.to_canonical().is_loopback()) && !forwarded
}

/// The layer.
pub(crate) async fn layer(State(control): State<Control>, request: Request, next: Next) -> Response {
    let id = seal::random::<16>().map_or_else(|_| "0".repeat(32), |b| storage::checksum::hex(&b));
    let (parts, body) = request.into_parts();
    let audited = parts.method != Method::GET && parts.method != Method::HEAD;
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let chinese =
        parts.headers.get("x-language").is_some_and(|l| l.as_bytes().eq_ignore_ascii_case(b"zh-cn"));
    let (response, principal) = match admit(&control, &parts, body).await {
        Err(error) => (error.into_response(), None),
        Ok((bytes, principal)) => {
            let name = principal.as_ref().map(|p| p.name.clone());
            let mut request = Request::from_parts(parts, Body::from(bytes));
            if let Some(principal) = principal {
                request.extensions_mut().insert(principal);
            }
            (next.run(request).await, name)
        }
    };
    let response = finish(response, &id, chinese).await;
    let status = response.status();
    let who = principal.unwrap_or_else(|| "-".to_owned());
    tracing::info!(request_id = %id, %method, %path, status = status.as_u16(), principal = %who, "request");
    if audited && who != "-" {
        let project = path.split('/').nth(2).unwrap_or_default().to_owned();
        let line = AuditLine {
            at: control.clock.now_ms(),
            request_id: id,
            project,
            principal: who,
            action: method.to_string(),
            target: path,
            status: status.as_u16(),
        };
        if let Err(failure) = audit(&control, &line).await {
            tracing::error!("an audit line was lost: {failure}");
        }
    }
    response
}

async fn audit(control: &Control, line: &AuditLine) -> model::failure::Result<()> {
    let mut unit = control.engine.store().write().await?;
    unit.audit(line).await?;
    unit.save().await
}

async fn admit(control: &Control, parts: &Parts, body: Body) -> Result<(Bytes, Option<Principal>), Error> {
    let too_large =
        || Error::gateway(StatusCode::PAYLOAD_TOO_LARGE, "APIGW.0201", "Request entity too large.");
    let body = Limited::new(body, BODY_MAX).collect().await.map_err(|_| too_large())?.to_bytes();
    let path = parts.uri.path();
    if is_open(&parts.method, path) || scrapes_locally(parts) {
        return Ok((body, None));
    }
    if path.to_ascii_lowercase().contains("%7bproject_id%7d") {
        let m = "project_id is missing in the client's credentials";
        return Err(Error::gateway(StatusCode::BAD_REQUEST, "OMS.0064", m));
    }
    let principal = recognise(control, parts, &body).await?;
    authorise(control, parts, &principal)?;
    Ok((body, Some(principal)))
}

async fn recognise(control: &Control, parts: &Parts, body: &[u8]) -> Result<Principal, Error> {
    let from = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip());
    let now = control.clock.now_ms();
    let signed = parts.headers.get_all("authorization").iter().any(|v| !v.as_bytes().trim_ascii().is_empty());
    if signed {
        return by_signature(control, parts, body, from, now);
    }
    let token = parts.headers.get("x-auth-token").and_then(|v| v.to_str().ok()).filter(|t| !t.is_empty());
    let token = token.ok_or_else(|| unauthorised("x-auth-token not found"))?;
    if control.directory.failures.is_locked("token", from, now) {
        return Err(throttled());
    }
    let checked = control.check_token(token).await.map_err(|f| {
        tracing::error!("a token could not be checked: {f}");
        Error::gateway(StatusCode::INTERNAL_SERVER_ERROR, "APIGW.0601", "Internal server error.")
    })?;
    match checked {
        Ok((principal, _)) => {
            control.directory.failures.succeeded("token", from);
            Ok(principal)
        }
        Err(problem) => {
            control.directory.failures.failed("token", from, now);
            Err(match problem {
                TokenProblem::Unknown => unauthorised("decrypt token fail"),
                TokenProblem::Expired(at) => {
                    unauthorised(&format!("token expires, expires_at: {}", crate::iam::time_text(at)))
                }
            })
        }
    }
}

fn by_signature(
    control: &Control,
    parts: &Parts,
    body: &[u8],
    from: Option<IpAddr>,
    now: i64,
) -> Result<Principal, Error> {
    // An empty Authorization beside a real one does not count (auth.md §2.2).
    let headers = parts
        .headers
        .iter()
        .filter(|(n, v)| *n != "authorization" || !v.as_bytes().trim_ascii().is_empty())
        .map(|(n, v)| (n.as_str(), v.as_bytes()))
        .collect();
    let raw = Raw {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers,
        body,
    };
    let failures = &control.directory.failures;
    match verify(&raw, &control.directory.people(), now) {
        Ok(principal) if failures.is_locked(&principal.name, from, now) => Err(throttled()),
        Ok(principal) => {
            failures.succeeded(&principal.name, from);
            Ok(principal)
        }
        Err(refused) => {
            if let Some(ak) = &refused.access_key {
                failures.failed(ak, from, now);
            }
            Err(unauthorised(&refused.text))
        }
    }
}

fn throttled() -> Error {
    Error::gateway(StatusCode::UNAUTHORIZED, "APIGW.0301", "AK access failed to reach the limit,forbidden")
}

/// The project of the path must be the caller's, and the role must suffice.
fn authorise(control: &Control, parts: &Parts, principal: &Principal) -> Result<(), Error> {
    let forbidden = |m: &str| Error::gateway(StatusCode::FORBIDDEN, "APIGW.0302", m);
    let mut segments = parts.uri.path().split('/').skip(1);
    let (version, project) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    // An empty project (`/v2//tasks`) is nobody's.
    if matches!(version, "v1" | "v2") {
        // The quota of v1 names the domain instead (oms.md §6.1).
        let domain = control::identity::id_of("domain", &control.directory.people().domain());
        let is_quota = parts.uri.path().ends_with("/objectstorage/quotas") && project == domain;
        if !is_quota && !principal.projects.iter().any(|p| p == project) {
            return Err(forbidden("The IAM user is not authorized to access the API."));
        }
    }
    let named = parts.headers.get("x-project-id").and_then(|v| v.to_str().ok());
    if named.is_some_and(|n| {
        !n.is_empty() && !project.is_empty() && matches!(version, "v1" | "v2") && n != project
    }) {
        return Err(forbidden("X-Project-Id is not the project of the path."));
    }
    // Some reads are POSTs because they carry credentials: a viewer may make them.
    let reads = parts.method == Method::GET || parts.uri.path().contains("/objectstorage/buckets");
    if principal.role == Role::Viewer && !reads && version != "v3" {
        let code = if crate::dcs::is_dcs(parts.uri.path()) { "DCS.2003" } else { "OMS.0205" };
        return Err(Error::gateway(StatusCode::FORBIDDEN, code, "This key may look but not change."));
    }
    Ok(())
}

/// Adds the request id to headers and to error bodies, and the sentence in the caller's language.
async fn finish(response: Response, id: &str, chinese: bool) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Ok(value) = HeaderValue::from_str(id) {
        parts.headers.insert(REQUEST_ID, value);
    }
    if parts.status.as_u16() < 400 {
        return Response::from_parts(parts, body);
    }
    let bytes = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let Ok(serde_json::Value::Object(mut map)) = serde_json::from_slice(&bytes) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    if map.contains_key("error_code") {
        map.insert("request_id".into(), id.into());
        let code = map["error_code"].as_str().unwrap_or_default();
        if let Some(sentence) = crate::zh::sentence(code).filter(|_| chinese) {
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
    use super::*;

    #[test]
    fn only_the_promised_paths_are_open() {
        for (method, path, open) in [
            (Method::GET, "/", true),
            (Method::GET, "/v2", true),
            (Method::GET, "/v9", true),
            (Method::GET, "/healthz", true),
            (Method::POST, "/v3/auth/tokens", true),
            (Method::GET, "/v3/auth/tokens", false),
            (Method::GET, "/v2/p/tasks", false),
            (Method::POST, "/v2", false),
            (Method::GET, "/v3/projects", false),
            (Method::GET, "/metrics", false),
        ] {
            assert_eq!(is_open(&method, path), open, "{method} {path}");
        }
    }
}
