//! `/console/signin`, `/console/signout`, and the choice of a project.

use std::net::SocketAddr;

use askama::Template;
use axum::Extension;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::response::Response;
use control::identity::token::{principal, stamp};
use control::identity::{SignInRefused, same};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::frame::Frame;
use super::{page, page_with};
use crate::Console;
use crate::form::Form;
use crate::gate::{Detail, Gone, SignsIn, Viewer, see_other, session_cookie};
use crate::outcome::{PageError, Reply};
use crate::prefs::{Prefs, cookie};
use crate::session::{SessionId, random_text};
use crate::text::Text;

/// The cookie that a form of the sign-in belongs to.
const FORM_COOKIE: &str = "whimbrel_form";

#[derive(Template)]
#[template(path = "signin.html")]
struct SignInPage<'a> {
    f: Frame,
    user: &'a str,
    error: &'a str,
    next: &'a str,
}

/// Where the page goes after the sign-in: only a path of the console.
fn next_of(form: &Form) -> &str {
    let next = form.get("next");
    let is_own = next.starts_with("/console/")
        && !next.contains("..")
        && !next.contains(['\\', '\r', '\n'])
        && !next.contains("//");
    if is_own && next.is_ascii() { next } else { "" }
}

fn set_cookie(response: &mut Response, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

pub(crate) async fn form(
    State(console): State<Console>,
    Extension(prefs): Extension<Prefs>,
    viewer: Option<Extension<Viewer>>,
    RawQuery(query): RawQuery,
) -> Reply {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    if viewer.is_some() {
        return Ok(see_other("/console/"));
    }
    let token = random_text()?;
    let now = console.control.clock.now_ms();
    let f = Frame::outside(prefs, now, Text::new(prefs.lang).sign_in(), token.clone());
    let mut response = page(&SignInPage { f, user: "", error: "", next: next_of(&query) })?;
    set_form_cookie(&console, &mut response, &token);
    Ok(response)
}

/// Binds the form of the sign-in to the browser that got it.
fn set_form_cookie(console: &Console, response: &mut Response, token: &str) {
    let secure = if console.settings.has_tls { "; Secure" } else { "" };
    let text = format!("{FORM_COOKIE}={token}; Path=/console/signin; HttpOnly; SameSite=Strict{secure}");
    set_cookie(response, &text);
}

/// A session for a right password: its number and its project.
async fn sign_in(
    console: &Console,
    form: &Form,
    from: SocketAddr,
    mut gone: Gone,
) -> Result<(String, String), SignInRefused> {
    let control = &console.control;
    let accounts = control.directory.accounts();
    let account = accounts.typed(form.text("user")).ok_or(SignInRefused::Wrong)?;
    control.check_password(&account, form.get("password").to_owned(), from.ip(), gone.gone()).await?;
    // The account may have been disabled while the password was compared.
    let accounts = control.directory.accounts();
    let (stamp, known) = (stamp(&accounts, &account.id), principal(&accounts, &account.id));
    let (Some(stamp), Some(known)) = (stamp, known) else { return Err(SignInRefused::Wrong) };
    let project =
        known.projects.iter().find(|id| accounts.project(id).is_some()).ok_or(SignInRefused::Wrong)?;
    let begun = console.sessions.begin(&account.id, &stamp, project, control.clock.now_ms());
    begun.map(|number| (number, project.clone())).map_err(|failure| {
        tracing::error!("cannot begin a session: {failure}");
        SignInRefused::Busy
    })
}

pub(crate) async fn submit(
    State(console): State<Console>,
    Extension(prefs): Extension<Prefs>,
    Extension(form): Extension<Form>,
    Extension(gone): Extension<Gone>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    viewer: Option<Extension<Viewer>>,
    headers: HeaderMap,
) -> Reply {
    let token = cookie(&headers, FORM_COOKIE).unwrap_or_default();
    if token.is_empty() || !same(token, form.get("csrf")) {
        return Err(PageError::Csrf);
    }
    let name = form.text("user").to_owned();
    let (number, project) = match sign_in(&console, &form, from, gone).await {
        Ok(begun) => begun,
        Err(refused) => return refusal(&console, prefs, &form, token, refused),
    };
    // Another number with each sign-in: what was known of the old session is worth nothing.
    if let Some(Extension(viewer)) = viewer {
        console.sessions.end(viewer.session);
    }
    let next = next_of(&form);
    let mut response = see_other(if next.is_empty() { "/console/" } else { next });
    let cookie = session_cookie(console.settings.has_tls);
    let text = match console.settings.has_tls {
        true => format!("{cookie}={number}; Path=/; Secure; HttpOnly; SameSite=Strict"),
        false => format!("{cookie}={number}; Path=/console; HttpOnly; SameSite=Strict"),
    };
    set_cookie(&mut response, &text);
    response.extensions_mut().insert(SignsIn { name, project: Some(project) });
    Ok(response)
}

/// The form again, with one sentence for every wrong pair.
fn refusal(console: &Console, prefs: Prefs, form: &Form, token: &str, refused: SignInRefused) -> Reply {
    let t = Text::new(prefs.lang);
    let (status, error) = match refused {
        SignInRefused::Wrong => (StatusCode::UNAUTHORIZED, t.wrong_password()),
        SignInRefused::Locked => (StatusCode::TOO_MANY_REQUESTS, t.account_locked()),
        SignInRefused::Busy => (StatusCode::TOO_MANY_REQUESTS, t.error_busy_why()),
    };
    let f = Frame::outside(prefs, console.control.clock.now_ms(), t.sign_in(), token.to_owned());
    let user = form.text("user");
    let mut response = page_with(status, &SignInPage { f, user, error, next: next_of(form) })?;
    response.extensions_mut().insert(SignsIn { name: user.to_owned(), project: None });
    Ok(response)
}

pub(crate) async fn sign_out(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
) -> Response {
    console.sessions.end(viewer.session);
    let mut response = see_other("/console/signin");
    let has_tls = console.settings.has_tls;
    let (path, secure) = if has_tls { ("/", "; Secure") } else { ("/console", "") };
    let cookie = session_cookie(has_tls);
    set_cookie(
        &mut response,
        &format!("{cookie}=; Path={path}; Max-Age=0; HttpOnly; SameSite=Strict{secure}"),
    );
    response
}

pub(crate) async fn change_project(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    Extension(form): Extension<Form>,
) -> Reply {
    let wanted = form.get("project");
    if !viewer.principal.projects.iter().any(|p| p == wanted) {
        return Err(PageError::NotFound);
    }
    let id: SessionId = viewer.session;
    console.sessions.set_project(id, wanted);
    let mut response = see_other("/console/");
    response.extensions_mut().insert(Detail(wanted.to_owned()));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_leads_to_pages_of_the_console_only() {
        let of =
            |next: &str| next_of(&Form::parse(crate::form::query(&[("next", next)]).as_bytes())).to_owned();
        assert_eq!(of("/console/tasks?state=failed"), "/console/tasks?state=failed");
        for bad in [
            "",
            "https://evil",
            "//evil",
            "/console",
            "/console/../v2",
            "/console//evil",
            "/console/\\evil",
            "/v2/p",
        ] {
            assert_eq!(of(bad), "", "{bad}");
        }
    }
}
