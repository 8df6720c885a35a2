//! `POST /v3/auth/tokens`: a token for a password or an access key; `GET` validates one.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use control::Control;
use control::identity::token::{Subject, principal};
use control::identity::{People, User, id_of, password};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use wire::iam::{InDomain, Named, Token};

use super::{keystone, time_text};
use crate::body::with_status;

const WRONG: &str = "The username or password is wrong.";

enum Proof {
    Good(Subject),
    Wrong,
}

fn text<'v>(value: &'v Value, path: &[&str]) -> Option<&'v str> {
    path.iter().try_fold(value, |v, key| v.get(key))?.as_str()
}

pub(crate) async fn create(
    State(control): State<Control>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Response {
    let bad = || keystone(StatusCode::BAD_REQUEST, "The request body is invalid");
    let Ok(body) = serde_json::from_slice::<Value>(&body) else { return bad() };
    let Some(auth) = body.get("auth") else { return bad() };
    let methods: Vec<String> = match auth.pointer("/identity/methods").and_then(Value::as_array) {
        Some(methods) => methods.iter().filter_map(|m| m.as_str().map(str::to_owned)).collect(),
        None => return bad(),
    };
    let people = control.directory.people();
    let claimed = match methods.as_slice() {
        [m] if m == "password" => text(auth, &["identity", "password", "user", "name"])
            .or_else(|| text(auth, &["identity", "password", "user", "id"])),
        [m] if m == "hw_ak_sk" => text(auth, &["identity", "hw_ak_sk", "access", "key"]),
        _ => None,
    };
    // Counted apart from signatures, so that a guessed password does not lock out a signing client.
    let Some(claimed) = claimed.map(|name| format!("sign-in {name}")) else { return bad() };
    let now = control.clock.now_ms();
    let failures = &control.directory.failures;
    if failures.is_locked(&claimed, Some(from.ip()), now) {
        return keystone(StatusCode::UNAUTHORIZED, "The account is locked for five minutes.");
    }
    let proof =
        if methods[0] == "password" { by_password(&people, auth).await } else { by_key(&people, auth) };
    let Proof::Good(mut subject) = proof else {
        failures.failed(&claimed, Some(from.ip()), now);
        return keystone(StatusCode::UNAUTHORIZED, WRONG);
    };
    failures.succeeded(&claimed, Some(from.ip()));
    let scope = auth.get("scope").and_then(|s| s.get("project"));
    if let Some(wanted) = scope {
        let may = principal(&people, &subject.name).map(|p| p.projects).unwrap_or_default();
        let named = |key: &str| wanted.get(key).and_then(Value::as_str);
        let found = people.projects.iter().filter(|p| may.contains(&p.id)).find(|p| {
            match (named("id"), named("name")) {
                (Some(id), _) => p.id == id,
                (None, Some(name)) => p.name == name || p.names.iter().any(|n| n == name),
                _ => false,
            }
        });
        match found {
            Some(project) => subject.project = Some(project.id.clone()),
            None => return keystone(StatusCode::UNAUTHORIZED, "The project does not exist or is not yours."),
        }
    }
    match control.issue_token(&subject).await {
        Ok((token, issued, expires)) => {
            reply(&people, &subject, methods, issued, expires, &token, StatusCode::CREATED)
        }
        Err(failure) => {
            tracing::error!("no token could be issued: {failure}");
            keystone(StatusCode::INTERNAL_SERVER_ERROR, "No token could be issued.")
        }
    }
}

/// Argon2 costs tens of milliseconds by design, so it runs on a blocking thread.
async fn by_password(people: &People, auth: &Value) -> Proof {
    let user = auth.pointer("/identity/password/user").cloned().unwrap_or_default();
    let domain = text(&user, &["domain", "name"]);
    let found: Option<&User> =
        people.users.iter().filter(|u| u.enabled).find(|u| match text(&user, &["id"]) {
            Some(id) => u.id == id,
            None => {
                let by_id = text(&user, &["domain", "id"]).is_none_or(|id| id == id_of("domain", &u.domain));
                text(&user, &["name"]) == Some(&u.name) && domain.is_none_or(|d| d == u.domain) && by_id
            }
        });
    let hash = found.map(|u| u.hash.clone());
    let given = text(&user, &["password"]).unwrap_or_default().to_owned();
    #[expect(clippy::disallowed_methods, reason = "bounded by the lock-out of failing callers")]
    let good = tokio::task::spawn_blocking(move || password::matches(&given, hash.as_deref())).await;
    match found {
        Some(user) if good.unwrap_or(false) => {
            Proof::Good(Subject { name: user.name.clone(), project: None })
        }
        _ => Proof::Wrong,
    }
}

fn by_key(people: &People, auth: &Value) -> Proof {
    let (Some(ak), Some(sk)) = (
        text(auth, &["identity", "hw_ak_sk", "access", "key"]),
        text(auth, &["identity", "hw_ak_sk", "secret", "key"]),
    ) else {
        return Proof::Wrong;
    };
    let good =
        people.keys.get(ak).is_some_and(|k| k.enabled && control::identity::same(k.secret.expose(), sk));
    if good { Proof::Good(Subject { name: format!("ak:{ak}"), project: None }) } else { Proof::Wrong }
}

pub(crate) async fn show(State(control): State<Control>, headers: HeaderMap) -> Response {
    let subject = headers.get("x-subject-token").and_then(|v| v.to_str().ok()).unwrap_or_default();
    match control.check_token(subject).await {
        Ok(Ok((_, row))) => {
            let subject_of = Subject { name: row.user.clone(), project: row.project.clone() };
            let people = control.directory.people();
            let methods = vec!["password".to_owned()];
            reply(&people, &subject_of, methods, row.issued_at, row.expires_at, subject, StatusCode::OK)
        }
        _ => keystone(StatusCode::NOT_FOUND, "The token does not exist."),
    }
}

fn reply(
    people: &People,
    subject: &Subject,
    methods: Vec<String>,
    issued: i64,
    expires: i64,
    token: &str,
    status: StatusCode,
) -> Response {
    let user = people.users.iter().find(|u| u.name == subject.name);
    let domain_name = user.map_or_else(|| people.domain(), |u| u.domain.clone());
    let domain = Named { id: id_of("domain", &domain_name), name: domain_name };
    let in_domain = |id: String, name: String, expires: Option<String>| InDomain {
        domain: domain.clone(),
        id,
        name,
        password_expires_at: expires,
    };
    let project = subject.project.as_ref().and_then(|id| people.project(id));
    let user_id = user.map_or_else(|| id_of("user", &subject.name), |u| u.id.clone());
    let body = Token {
        catalog: vec![],
        expires_at: time_text(expires),
        issued_at: time_text(issued),
        methods,
        project: project.map(|p| in_domain(p.id.clone(), p.name.clone(), None)),
        domain: project.is_none().then(|| domain.clone()),
        roles: vec![Named { id: "0".into(), name: "te_admin".into() }],
        user: in_domain(user_id, subject.name.clone(), Some(String::new())),
    };
    let mut response =
        with_status(status, &serde_json::json!({"token": body})).unwrap_or_else(IntoResponse::into_response);
    if let Ok(mut value) = HeaderValue::from_str(token) {
        value.set_sensitive(true);
        response.headers_mut().insert("x-subject-token", value);
    }
    response
}
