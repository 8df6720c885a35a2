//! The layer in front of routing: checks what the headers prove, then reads the body under bounds, recognises the caller
//! on raw bytes, numbers the request, writes the audit line.

mod error_body;
mod request_log;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use config::Role;
use control::Control;
use control::identity::signature::{RawRequest, SignatureRefused, check_head, verify};
use control::identity::token::TokenProblem;
use control::identity::{AuditLimit, CallerKnown, Principal};
use control::request_limits::RequestPermit;
use flow_control::caller_limit::caller_of;
use http::{HeaderValue, Method, StatusCode, request::Parts};
use tokio::sync::watch;

use crate::body_limits::{self, BodyLimits, BodySender, LimitedBody};
use crate::error::ApiError;
use crate::held_body::BodyBytes;

use self::error_body::finish;
pub(crate) use self::request_log::{ClaimedName, short};
use self::request_log::{RequestSummary, log_and_audit_line};

fn unauthorised(text: &str) -> ApiError {
    let m = format!("Incorrect IAM authentication information: {text}");
    ApiError::gateway(StatusCode::UNAUTHORIZED, "APIGW.0301", m)
}

/// What the layer works with.
#[derive(Clone)]
pub(crate) struct AuthLayer {
    control: Control,
    bodies: BodyLimits,
    responses: BodyBytes,
    /// Log lines about requests without valid credentials.
    log_limit: Arc<AuditLimit>,
    /// Audit lines about requests of known callers that change nothing.
    call_limit: Arc<AuditLimit>,
}

impl AuthLayer {
    pub(crate) fn new(control: Control) -> Self {
        Self {
            control,
            bodies: BodyLimits::default(),
            responses: BodyBytes::default(),
            log_limit: Arc::default(),
            call_limit: Arc::default(),
        }
    }
}

/// Paths that answer without authentication: version discovery, health, and asking for a token.
fn is_open(method: &Method, path: &str) -> bool {
    let looks = method == Method::GET || method == Method::HEAD;
    match path {
        "/" | "/v1" | "/v2" | "/healthz" | "/readyz" => looks,
        "/v3/auth/tokens" => method == Method::POST,
        _ => looks && is_version(path),
    }
}

/// `/v9`, `/v2.0`: answered by version discovery, whatever the number.
fn is_version(path: &str) -> bool {
    let digits = path.strip_prefix("/v").unwrap_or_default();
    (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// A request for metrics from this machine without credentials reads sums (contract §3).
fn scrapes_locally(parts: &Parts) -> bool {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip());
    let says_who = ["x-forwarded-for", "forwarded", "authorization", "x-auth-token"];
    let says_who = says_who.iter().any(|h| parts.headers.contains_key(*h));
    parts.uri.path() == "/metrics" && peer.is_some_and(|ip| ip.to_canonical().is_loopback()) && !says_who
}

/// Ends, through the extensions of a request, when its connection has ended.
#[derive(Clone)]
pub(crate) struct CallerGone(watch::Receiver<()>);

impl CallerGone {
    /// Waits until nobody reads the answer any more.
    pub(crate) async fn gone(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

/// The layer.
pub(crate) async fn layer(State(gate): State<AuthLayer>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let asked = RequestSummary::of(&parts);
    let admitted = authenticate(&gate, &parts, body).await;
    // Dropped with this future, which the connection drops when it ends.
    let (_here, gone) = watch::channel(());
    parts.extensions.insert(CallerGone(gone));
    if admitted.is_ok() && !asked.may_change() {
        return answer(gate, asked, parts, admitted, next).await;
    }
    // A change and its audit line are completed also when the connection ends. The permit of the request bounds how many of
    // these tasks there are; refusals and sign-ins have bounds of their own.
    let (id, path, chinese) = (asked.id.clone(), asked.path.clone(), asked.chinese);
    match tokio::spawn(answer(gate, asked, parts, admitted, next)).await {
        Ok(response) => response,
        Err(failure) => {
            tracing::error!(request_id = %id, "a request failed: {failure}");
            finish(StatusCode::INTERNAL_SERVER_ERROR.into_response(), &id, &path, chinese).await
        }
    }
}

/// Runs the handler of an admitted request; writes the log line and the audit line.
async fn answer(
    gate: AuthLayer,
    asked: RequestSummary,
    parts: Parts,
    admitted: Result<Admitted, Refused>,
    next: Next,
) -> Response {
    let is_admitted = admitted.is_ok();
    let (response, principal) = match admitted {
        Err(Refused { error, caller }) => (refusal(error, asked.waits), caller),
        Ok(Admitted { body: held, principal, permit }) => {
            let name = principal.as_ref().map(|p| (p.name.clone(), p.role));
            let caller = principal.as_ref().map(|p| share_of(&asked.path, p).to_owned()).unwrap_or_default();
            let mut request = Request::from_parts(parts, Body::from(held.bytes.clone()));
            if let Some(principal) = principal {
                if let Some(recognised) = request.extensions().get::<CallerKnown>() {
                    recognised.tell();
                }
                request.extensions_mut().insert(principal);
            }
            // Only reads are answered from the store alone; others wait for servers, and have bounds of their own.
            let reads = permit.is_some() && !asked.may_change() && !asked.path.ends_with("/report");
            let turn = if reads { Some(gate.control.requests.begin_read(&caller).await) } else { None };
            let response = next.run(request).await;
            // The body of the request has its part of the budget until it is answered.
            drop((held, turn));
            let response = match permit {
                Some(permit) => gate.responses.hold(response, &caller, permit),
                None => response,
            };
            (response, name)
        }
    };
    let response = finish(response, &asked.id, &asked.path, asked.chinese).await;
    let line = log_and_audit_line(&gate, asked, &response, principal, is_admitted);
    if let Some(line) = line {
        gate.control.record_audit(&line).await;
    }
    response
}

/// The answer to a refused request; `waits`: its body is sent only after `100 Continue`, which it is not told.
fn refusal(error: ApiError, waits: bool) -> Response {
    let mut response = error.into_response();
    // A body that is not sent cannot be told from the next request.
    if waits {
        response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Who asks, as far as the headers tell.
enum HeaderCheck {
    /// Known, and permitted what the path says.
    Known(Principal),
    /// The headers are in order; the signature is about the body too.
    Signed,
}

fn peer(parts: &Parts) -> IpAddr {
    let from = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip());
    from.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
}

/// A request that may be answered.
struct Admitted {
    body: LimitedBody,
    /// None on open paths.
    principal: Option<Principal>,
    permit: Option<RequestPermit>,
}

/// A request that is refused before its handler.
struct Refused {
    error: ApiError,
    /// Who sent it, where that is known: a name and a role.
    caller: Option<(String, Role)>,
}

impl Refused {
    /// Refuses a caller that is known.
    fn known(principal: &Principal) -> impl Fn(ApiError) -> Self {
        let caller = (principal.name.clone(), principal.role);
        move |error| Self { error, caller: Some(caller.clone()) }
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self { error, caller: None }
    }
}

impl Admitted {
    fn open(body: LimitedBody) -> Self {
        Self { body, principal: None, permit: None }
    }
}

/// Whose share of the requests a request takes: its project's, or its caller's where the path names none.
fn share_of<'a>(path: &'a str, principal: &'a Principal) -> &'a str {
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next()) {
        (Some("v1" | "v2"), Some(project)) => project,
        _ => &principal.name,
    }
}

async fn authenticate(gate: &AuthLayer, parts: &Parts, body: Body) -> Result<Admitted, Refused> {
    let (control, path, from) = (&gate.control, parts.uri.path(), peer(parts));
    let max = body_limits::max_of(&parts.method, path);
    if is_open(&parts.method, path) || scrapes_locally(parts) {
        if parts.method != Method::POST {
            // A body has no meaning here and takes no memory, but one that is left unread would end the connection.
            body_limits::skip(body).await?;
            return Ok(Admitted::open(LimitedBody::default()));
        }
        let sender = BodySender::Unknown(caller_of(from));
        return Ok(Admitted::open(gate.bodies.read(sender, &parts.headers, max, body).await?));
    }
    let head = match check_headers(control, parts, from).await {
        Ok(head) => head,
        Err(refused) => {
            body_limits::refuse(&parts.headers, body);
            return Err(refused);
        }
    };
    let sender = match &head {
        HeaderCheck::Known(principal) => BodySender::Verified(principal.subject.clone()),
        HeaderCheck::Signed => BodySender::Signed(caller_of(from)),
    };
    let held = gate.bodies.read(sender, &parts.headers, max, body).await?;
    let principal = match head {
        HeaderCheck::Known(principal) => principal,
        HeaderCheck::Signed => {
            let verified =
                verify(&raw(parts, &held.bytes), &control.directory.accounts(), control.clock.now_ms());
            let principal = verified.map_err(|refused| refuse_signature(control, &refused, from))?;
            control.directory.failures.succeeded(&signing(&principal.name), Some(from));
            let unsigned = parts.headers.get("x-sdk-content-sha256").map(HeaderValue::as_bytes);
            if unsigned == Some(control::identity::signature::UNSIGNED.as_bytes()) && !held.bytes.is_empty() {
                control.directory.unprotected.call_once(|| {
                    tracing::warn!(
                        "{} uses UNSIGNED-PAYLOAD: only TLS protects its request bodies",
                        principal.name
                    );
                });
            }
            authorise(control, parts, &principal).map_err(Refused::known(&principal))?;
            principal
        }
    };
    let permit = control.requests.begin(share_of(path, &principal), from).ok_or_else(busy);
    let permit = permit.map_err(Refused::known(&principal))?;
    Ok(Admitted { body: held, principal: Some(principal), permit: Some(permit) })
}

fn busy() -> ApiError {
    let m =
        "The throttling threshold has been reached: too many requests at once; hint: retry in a few seconds.";
    ApiError::gateway(StatusCode::TOO_MANY_REQUESTS, "APIGW.0308", m)
}

/// What can be said of the caller before the body is read.
async fn check_headers(control: &Control, parts: &Parts, from: IpAddr) -> Result<HeaderCheck, Refused> {
    let path = parts.uri.path();
    if path.to_ascii_lowercase().contains("%7bproject_id%7d") {
        let m = "project_id is missing in the client's credentials";
        return Err(ApiError::gateway(StatusCode::BAD_REQUEST, "OMS.0064", m).into());
    }
    let signed = parts.headers.get_all("authorization").iter().any(|v| !v.as_bytes().trim_ascii().is_empty());
    if signed {
        let checked = check_head(&raw(parts, b""), &control.directory.accounts(), control.clock.now_ms());
        return checked
            .map(|()| HeaderCheck::Signed)
            .map_err(|refused| refuse_signature(control, &refused, from).into());
    }
    if parts.headers.get_all("x-auth-token").iter().count() > 1 {
        // Another server in front of this one may have looked at the other.
        return Err(unauthorised("x-auth-token is present more than once").into());
    }
    let token = parts.headers.get("x-auth-token").and_then(|v| v.to_str().ok()).filter(|t| !t.is_empty());
    let token = token.ok_or_else(|| unauthorised("x-auth-token not found"))?;
    let checked = control.check_token(token).await.map_err(|f| {
        tracing::error!("cannot check a token: {f}");
        ApiError::gateway(StatusCode::INTERNAL_SERVER_ERROR, "APIGW.0601", "Internal server error.")
    })?;
    // 256 random bits are not guessed: bad tokens lock nobody out, least of all those with good ones from the same address.
    let (principal, _) = checked.map_err(|problem| match problem {
        TokenProblem::Unknown => unauthorised("decrypt token fail"),
        TokenProblem::Expired(at) => {
            unauthorised(&format!("token expires, expires_at: {}", crate::time_text::time_text(at)))
        }
    })?;
    authorise(control, parts, &principal).map_err(Refused::known(&principal))?;
    Ok(HeaderCheck::Known(principal))
}

/// The request as its signature sees it.
fn raw<'a>(parts: &'a Parts, body: &'a [u8]) -> RawRequest<'a> {
    // An empty Authorization in addition to a real one does not count (auth.md §2.2).
    let headers = parts
        .headers
        .iter()
        .filter(|(n, v)| *n != "authorization" || !v.as_bytes().trim_ascii().is_empty())
        .map(|(n, v)| (n.as_str(), v.as_bytes()))
        .collect();
    RawRequest {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers,
        body,
    }
}

/// What failed signatures of an access key are counted under.
fn signing(ak: &str) -> String {
    format!("signature {ak}")
}

/// The answer to a signature that proves nothing. A right one always passes, whatever failed before it (auth.md §2.5); who
/// fails again and again with a known key is no longer told why.
fn refuse_signature(control: &Control, refused: &SignatureRefused, from: IpAddr) -> ApiError {
    let known =
        refused.access_key.as_deref().filter(|ak| control.directory.accounts().keys.contains_key(*ak));
    if let Some(ak) = known {
        let (failures, now, account) = (&control.directory.failures, control.clock.now_ms(), signing(ak));
        let locked = failures.is_locked(&account, Some(from), now);
        failures.failed(&account, Some(from), now);
        if locked {
            return throttled();
        }
    }
    unauthorised(&refused.text)
}

fn throttled() -> ApiError {
    ApiError::gateway(StatusCode::UNAUTHORIZED, "APIGW.0301", "AK access failed to reach the limit,forbidden")
}

/// The project of the path must be the caller's, and the role must suffice.
fn authorise(control: &Control, parts: &Parts, principal: &Principal) -> Result<(), ApiError> {
    let forbidden = |m: &str| ApiError::gateway(StatusCode::FORBIDDEN, "APIGW.0302", m);
    let mut segments = parts.uri.path().split('/').skip(1);
    let (version, project) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
    // An empty project (`/v2//tasks`) does not exist.
    if matches!(version, "v1" | "v2") {
        // The quota of v1 names the domain instead (oms.md §6.1).
        let domain = control::identity::id_of("domain", &control.directory.accounts().domain());
        let is_quota = parts.uri.path().ends_with("/objectstorage/quotas") && project == domain;
        if !is_quota && !principal.projects.iter().any(|p| p == project) {
            return Err(forbidden("The IAM user is not authorized to access the API."));
        }
    }
    let named = parts.headers.get("x-project-id").and_then(|v| v.to_str().ok());
    if named.is_some_and(|n| {
        !n.is_empty() && !project.is_empty() && matches!(version, "v1" | "v2") && n != project
    }) {
        return Err(forbidden("X-Project-Id does not match the project in the path."));
    }
    // Some reads are POSTs because they carry credentials: a viewer may make them.
    let looks = parts.method == Method::GET || parts.method == Method::HEAD;
    let reads = looks || parts.uri.path().contains("/objectstorage/buckets");
    if principal.role == Role::Viewer && !reads && version != "v3" {
        let code = if crate::dcs::is_dcs(parts.uri.path()) { "DCS.2003" } else { "OMS.0205" };
        return Err(ApiError::gateway(StatusCode::FORBIDDEN, code, "This access key is read-only."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unauthenticated_paths_are_exactly_the_documented_ones() {
        for (method, path, open) in [
            (Method::GET, "/", true),
            (Method::HEAD, "/healthz", true),
            (Method::HEAD, "/v2/p/tasks", false),
            (Method::POST, "/healthz", false),
            (Method::GET, "/v3", true),
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
