//! The layer in front of all pages: who asks, whether a change may be made, what is written down, and the headers of every
//! answer.
//!
//! GET changes nothing. A POST must come from the same origin, carry the token of its session, and its role must permit changes;
//! it is completed also when the browser leaves, and has a line in the audit trail.

mod body;
mod trail;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use config::Role;
use control::identity::token::{principal, stamp};
use control::identity::{CallerKnown, Principal, Project, same};
use control::request_limits::RequestPermit;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use tokio::sync::watch;

use crate::Console;
use crate::form::Form;
use crate::outcome::PageError;
use crate::pages::frame;
use crate::prefs::{LANG_COOKIE, Prefs, THEME_COOKIE, Theme, cookie};
use crate::session::SessionId;
use crate::text::Lang;

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                   form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) use body::BODY_BUDGET;

/// Who looks at a page.
#[derive(Clone, Debug)]
pub(crate) struct Viewer {
    pub(crate) prefs: Prefs,
    pub(crate) session: SessionId,
    /// The token of every form.
    pub(crate) csrf: String,
    pub(crate) principal: Principal,
    pub(crate) project: Project,
}

impl Viewer {
    pub(crate) fn may_change(&self) -> bool {
        self.principal.role >= Role::Operator
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.principal.role == Role::Admin
    }

    /// Id of the project.
    pub(crate) fn project(&self) -> &str {
        &self.project.id
    }
}

/// Told when the connection of the request has ended.
#[derive(Clone)]
pub(crate) struct Gone(watch::Receiver<()>);

impl Gone {
    pub(crate) async fn gone(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

/// Who signs in, as an answer carries it to the audit trail: the name that was typed, and the project after a success.
#[derive(Clone, Debug)]
pub(crate) struct SignsIn {
    pub(crate) name: String,
    pub(crate) project: Option<String>,
}

/// What a change was about, as an answer carries it to the audit trail.
#[derive(Clone, Debug)]
pub(crate) struct Detail(pub(crate) String);

/// What is known of a request besides its session.
struct Asked {
    id: String,
    method: Method,
    path: String,
    from: IpAddr,
    prefs: Prefs,
}

impl Asked {
    fn of(parts: &Parts, zone: i32) -> Self {
        let from = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip());
        let hex = |bytes: [u8; 16]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        Self {
            id: seal::random::<16>().map_or_else(|_| "0".repeat(32), hex),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            from: from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            prefs: Prefs::of(&parts.headers, zone),
        }
    }

    fn changes(&self) -> bool {
        self.method != Method::GET && self.method != Method::HEAD
    }
}

/// The name of the session's cookie.
pub(crate) fn session_cookie(has_tls: bool) -> &'static str {
    if has_tls { "__Host-whimbrel" } else { "whimbrel_session" }
}

impl Console {
    /// Who a session belongs to now: its user may have been disabled, or have another password, role or projects. `used`:
    /// the session is prolonged.
    pub(crate) fn viewer(&self, id: SessionId, prefs: Prefs, used: bool) -> Option<Viewer> {
        let now = self.control.clock.now_ms();
        let session = if used { self.sessions.use_now(id, now)? } else { self.sessions.peek(id, now)? };
        let accounts = self.control.directory.accounts();
        let is_same = stamp(&accounts, &session.user).is_some_and(|s| same(&s, &session.stamp));
        let known = principal(&accounts, &session.user).filter(|_| is_same);
        let project = known.as_ref().and_then(|p| {
            let own = p.projects.contains(&session.project).then_some(&session.project);
            accounts.project(own.or(p.projects.first())?)
        });
        let (Some(principal), Some(project)) = (known, project.cloned()) else {
            self.sessions.end(id);
            return None;
        };
        Some(Viewer { prefs, session: id, csrf: session.csrf, principal, project })
    }
}

/// The layer.
pub(crate) async fn layer(State(console): State<Console>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let asked = Asked::of(&parts, console.control.zone_minutes);
    if !asked.changes() && asked.path.starts_with("/console/assets/") {
        return harden(next.run(Request::from_parts(parts, Body::empty())).await);
    }
    if let Some(changed) = change_prefs(&parts, console.settings.has_tls) {
        return harden(changed);
    }
    // Dropped with this future, which the connection drops when it ends.
    let (_here, gone) = watch::channel(());
    parts.extensions.insert(Gone(gone));
    parts.extensions.insert(asked.prefs);
    if !asked.changes() {
        let admitted = admit(&console, &asked, &mut parts, Body::empty()).await;
        return harden(answer(console, asked, parts, admitted, next).await);
    }
    // A change and its audit line are completed also when the connection ends; the place of the request bounds their number.
    let answering = tokio::spawn(async move {
        let admitted = admit(&console, &asked, &mut parts, body).await;
        answer(console, asked, parts, admitted, next).await
    });
    harden(answering.await.unwrap_or_else(|failure| {
        tracing::error!("a request of the console failed: {failure}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }))
}

/// What every answer says to the browser.
fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// `?lang=` and `?theme=` of a page: a cookie, and the page without them.
fn change_prefs(parts: &Parts, has_tls: bool) -> Option<Response> {
    let query = parts.uri.query().filter(|_| parts.method == Method::GET)?;
    let form = Form::parse(query.as_bytes());
    let mut cookies = Vec::new();
    if let Some(lang) = Lang::parse(form.get("lang")) {
        cookies.push((LANG_COOKIE, lang.word()));
    }
    if let Some(theme) = Theme::parse(form.get("theme")) {
        cookies.push((THEME_COOKIE, theme.word()));
    }
    if cookies.is_empty() || parts.uri.path() == "/console/live" {
        return None;
    }
    let mut rest = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()).filter(|(n, _)| n != "lang" && n != "theme")
    {
        rest.append_pair(&name, &value);
    }
    let rest = rest.finish();
    let at =
        if rest.is_empty() { parts.uri.path().to_owned() } else { format!("{}?{rest}", parts.uri.path()) };
    // `//host` would be another site; no path of the console begins so.
    let mut response = see_other(&at);
    let secure = if has_tls { "; Secure" } else { "" };
    for (name, value) in cookies {
        let text = format!("{name}={value}; Path=/console; Max-Age=31536000; HttpOnly; SameSite=Lax{secure}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
    Some(response)
}

/// Goes to another page with GET.
pub(crate) fn see_other(to: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(value) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// True when a form was sent by a page of this service. Browsers say so themselves: scripts cannot write these headers.
fn is_same_origin(headers: &HeaderMap, has_tls: bool) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let (Some(origin), Some(host)) = (text(header::ORIGIN), text(header::HOST)) else { return false };
    // A proxy in front may speak TLS where this service does not.
    let plain = origin.strip_prefix("http://").filter(|_| !has_tls);
    let from = origin.strip_prefix("https://").or(plain);
    from.is_some_and(|from| from.eq_ignore_ascii_case(host))
}

/// A request that may be answered.
enum Admitted {
    /// The page of the sign-in.
    Open,
    Known(Box<Viewer>, RequestPermit),
}

async fn admit(
    console: &Console,
    asked: &Asked,
    parts: &mut Parts,
    body: Body,
) -> Result<Admitted, PageError> {
    let is_open = asked.path == "/console/signin";
    let has_tls = console.settings.has_tls;
    let id = cookie(&parts.headers, session_cookie(has_tls)).and_then(SessionId::of);
    let viewer = id.and_then(|id| console.viewer(id, asked.prefs, asked.path != "/console/live"));
    if let Some(viewer) = &viewer {
        if let Some(known) = parts.extensions.get::<CallerKnown>() {
            known.tell();
        }
        parts.extensions.insert(viewer.clone());
    }
    let place = match &viewer {
        Some(viewer) => {
            Some(console.control.requests.begin(viewer.project(), asked.from).ok_or(PageError::Busy)?)
        }
        None if is_open => None,
        None => return Err(PageError::NoSession),
    };
    if asked.changes() {
        if !is_same_origin(&parts.headers, has_tls) {
            return Err(PageError::Origin);
        }
        let form = body::read_form(console, asked.from, body).await?;
        if let Some(viewer) = viewer.as_ref().filter(|_| !is_open) {
            if !same(form.get("csrf"), &viewer.csrf) {
                return Err(PageError::Csrf);
            }
            // Who may only look may end the own session and choose what to look at.
            let own = matches!(asked.path.as_str(), "/console/signout" | "/console/project");
            if !viewer.may_change() && !own {
                return Err(PageError::Role);
            }
        }
        parts.extensions.insert(form);
    }
    Ok(match (viewer, place) {
        (Some(viewer), Some(place)) => Admitted::Known(Box::new(viewer), place),
        _ => Admitted::Open,
    })
}

async fn answer(
    console: Console,
    asked: Asked,
    parts: Parts,
    admitted: Result<Admitted, PageError>,
    next: Next,
) -> Response {
    let (response, viewer) = match admitted {
        Ok(Admitted::Open) => (next.run(Request::from_parts(parts, Body::empty())).await, None),
        Ok(Admitted::Known(viewer, place)) => {
            let response = next.run(Request::from_parts(parts, Body::empty())).await;
            drop(place);
            (response, Some(*viewer))
        }
        Err(error) => {
            let viewer = parts.extensions.get::<Viewer>().cloned();
            let is_page = asked.method == Method::GET && asked.path != "/console/live";
            let response = match error {
                PageError::NoSession if is_page => see_other(&signin_path(&parts)),
                error => error.into_response(),
            };
            (response, viewer)
        }
    };
    let mut response = match response.extensions().get::<PageError>() {
        Some(error) => {
            frame::error_page(&console, viewer.as_ref(), asked.prefs, error, &asked.id, response.status())
                .await
        }
        None => response,
    };
    if let Ok(value) = HeaderValue::from_str(&asked.id) {
        response.headers_mut().insert("x-request-id", value);
    }
    if let Some(line) = trail::line(&console, asked, &response, viewer.as_ref()) {
        console.control.record_audit(&line).await;
    }
    response
}

/// Where somebody without a session signs in, and comes back to the page that was asked for.
fn signin_path(parts: &Parts) -> String {
    let asked = parts.uri.path_and_query().map(|p| p.as_str()).unwrap_or_default();
    if asked == "/console/" {
        return "/console/signin".to_owned();
    }
    format!("/console/signin?{}", crate::form::query(&[("next", asked)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair =
            |(n, v): &(&'static str, &'static str)| (HeaderName::from_static(n), HeaderValue::from_static(v));
        all.iter().map(pair).collect()
    }

    #[test]
    fn forms_of_other_sites_are_refused() {
        for (sent, has_tls, want) in [
            (&[("sec-fetch-site", "same-origin")][..], false, true),
            (&[("sec-fetch-site", "same-site")], false, false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://h:1"), ("host", "h:1")], false, false),
            (&[("sec-fetch-site", "none")], false, false),
            (&[("origin", "http://h:1"), ("host", "h:1")], false, true),
            (&[("origin", "http://H:1"), ("host", "h:1")], false, true),
            (&[("origin", "https://h:1"), ("host", "h:1")], false, true),
            (&[("origin", "http://h:1"), ("host", "h:1")], true, false),
            (&[("origin", "http://h:2"), ("host", "h:1")], false, false),
            (&[("origin", "http://h:1.evil"), ("host", "h:1")], false, false),
            (&[("origin", "null"), ("host", "h:1")], false, false),
            (&[("host", "h:1")], false, false),
            (&[], false, false),
        ] {
            assert_eq!(is_same_origin(&headers(sent), has_tls), want, "{sent:?} {has_tls}");
        }
    }

    #[test]
    fn preferences_are_kept_and_the_page_is_asked_again_without_them() {
        let of = |uri: &str| {
            let (parts, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
            change_prefs(&parts, false)
        };
        let changed = of("/console/tasks?lang=zh&q=a%26b&theme=dark").unwrap();
        assert_eq!(changed.headers()[header::LOCATION], "/console/tasks?q=a%26b");
        assert_eq!(changed.headers().get_all(header::SET_COOKIE).iter().count(), 2);
        assert!(of("/console/tasks?lang=xx&q=1").is_none() && of("/console/tasks").is_none());
    }
}
