//! `POST /v3/auth/tokens`: a token for a password, an access key or another token; `GET` validates one.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Extension;
use axum::extract::{ConnectInfo, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use config::Role;
use control::Control;
use control::identity::token::{Subject, principal, token_id};
use control::identity::{Account, Accounts, NAME_MAX, Principal, SignInRefused, User, id_of, same, user_id};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use store::TokenRow;
use wire::iam::{InDomain, Named, Token};

use super::{keystone, not_stored};
use crate::auth::{CallerGone, ClaimedName, short};
use crate::query::{Params, number};
use crate::reply::with_status;
use crate::time_text::time_text;

/// Keystone's sentence for who is not known (auth.md §3.7).
const UNKNOWN_CALLER: &str = "The request you have made requires authentication.";
const WRONG_PASSWORD: &str = "The username or password is wrong.";
const LOCKED: &str = "The account is locked for five minutes.";
const BUSY: &str = "Too many sign-ins at once; hint: retry in a few seconds.";

/// Tokens of one page of the list.
const LIST_MAX: u64 = 1000;

/// A sign-in as it was asked for.
struct SignInRequest {
    /// What failures are counted under: the one identity of an account, however it was written, whether it exists or not.
    account: String,
    /// Who it would be.
    subject: String,
    proof: Proof,
}

enum Proof {
    Password { given: String, hash: Option<String> },
    Key { good: bool },
}

fn text<'v>(value: &'v Value, path: &[&str]) -> Option<&'v str> {
    path.iter().try_fold(value, |v, key| v.get(key))?.as_str()
}

/// Reads a claim; none when the body has none, or names that cannot exist.
fn claim(accounts: &Accounts, auth: &Value, method: &str) -> Option<SignInRequest> {
    match method {
        "password" => by_password(accounts, auth.pointer("/identity/password/user")?),
        "hw_ak_sk" => by_key(accounts, auth),
        _ => None,
    }
}

fn by_password(accounts: &Accounts, user: &Value) -> Option<SignInRequest> {
    let (id, name) = (text(user, &["id"]), text(user, &["name"]));
    let (domain, domain_id) = (text(user, &["domain", "name"]), text(user, &["domain", "id"]));
    let mut all = [id, name, domain, domain_id].into_iter().flatten();
    if all.any(|t| t.len() > NAME_MAX) || (id.is_none() && name.is_none()) {
        return None;
    }
    let is_meant = |u: &User| match id {
        Some(id) => u.id == id,
        None => {
            name == Some(u.name.as_str())
                && domain.is_none_or(|d| d == u.domain)
                && domain_id.is_none_or(|d| d == id_of("domain", &u.domain))
        }
    };
    // A name that several domains have identifies a user only together with its domain.
    let found = accounts.only_user(is_meant);
    let account = match (found, id) {
        (Some(user), _) => user.id.clone(),
        (None, Some(id)) => id.to_owned(),
        (None, None) => {
            let of = domain.or(domain_id).map_or_else(|| accounts.domain(), str::to_owned);
            user_id(&of, name.unwrap_or_default())
        }
    };
    let given = text(user, &["password"]).unwrap_or_default().to_owned();
    let proof = Proof::Password { given, hash: found.map(|u| u.hash.clone()) };
    Some(SignInRequest { subject: account.clone(), account, proof })
}

fn by_key(accounts: &Accounts, auth: &Value) -> Option<SignInRequest> {
    let ak = text(auth, &["identity", "hw_ak_sk", "access", "key"])?;
    let sk = text(auth, &["identity", "hw_ak_sk", "secret", "key"])?;
    if ak.len() > NAME_MAX {
        return None;
    }
    let key = accounts.keys.get(ak);
    // Nothing is compared with an empty secret.
    let good = !sk.is_empty() && key.is_some_and(|k| k.enabled && same(k.secret.expose(), sk));
    // Unknown access keys count as one account: their secrets cannot be guessed.
    let account = key.map_or_else(|| "key".to_owned(), |_| format!("key {ak}"));
    Some(SignInRequest { account, subject: format!("ak:{ak}"), proof: Proof::Key { good } })
}

pub(crate) async fn create(
    State(control): State<Control>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Extension(gone): Extension<CallerGone>,
    body: Bytes,
) -> Response {
    let asks = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let names = [
        "/auth/identity/password/user/name",
        "/auth/identity/password/user/id",
        "/auth/identity/hw_ak_sk/access/key",
    ];
    let name = names.iter().find_map(|at| asks.pointer(at)?.as_str()).unwrap_or("-");
    let name = ClaimedName(short(name));
    let mut response = issue(&control, from, gone, asks).await;
    // A caller that was recognised is recorded under its own name, also when it used a token.
    if response.extensions().get::<ClaimedName>().is_none() {
        response.extensions_mut().insert(name);
    }
    response
}

async fn issue(control: &Control, from: SocketAddr, gone: CallerGone, body: Value) -> Response {
    let bad = || keystone(StatusCode::BAD_REQUEST, "The request body is invalid");
    let Some(auth) = body.get("auth") else { return bad() };
    let methods: Vec<String> = match auth.pointer("/identity/methods").and_then(Value::as_array) {
        Some(methods) => methods.iter().filter_map(|m| m.as_str().map(str::to_owned)).collect(),
        None => return bad(),
    };
    let accounts = control.directory.accounts();
    let [method] = methods.as_slice() else { return bad() };
    let proved = match method.as_str() {
        "token" => by_token(control, auth).await,
        method => match claim(&accounts, auth, method) {
            Some(claim) => prove(control, claim, from, gone).await,
            None => return bad(),
        },
    };
    let (mut subject, exchanged) = match proved {
        Ok(proved) => proved,
        Err(refused) => return refused,
    };
    let scope = |name: &str| auth.get("scope").and_then(|s| s.get(name)).filter(|v| !v.is_null());
    if scope("domain").is_some() {
        subject.project = None;
    }
    // Of both, the project wins (auth.md §3.1).
    if let Some(wanted) = scope("project") {
        let may = principal(&accounts, &subject.id).map(|p| p.projects).unwrap_or_default();
        let named = |key: &str| wanted.get(key).and_then(Value::as_str);
        let found = accounts.projects.iter().filter(|p| may.contains(&p.id)).find(|p| {
            match (named("id"), named("name")) {
                (Some(id), _) => p.id == id,
                (None, Some(name)) => p.name == name || p.names.iter().any(|n| n == name),
                _ => false,
            }
        });
        match found {
            Some(project) => subject.project = Some(project.id.clone()),
            None => {
                return keystone(
                    StatusCode::UNAUTHORIZED,
                    "The project does not exist or is not accessible.",
                );
            }
        }
    }
    match control.issue_token(&subject, exchanged.as_ref()).await {
        Ok((token, issued, expires)) => {
            let mut made = reply(&accounts, &subject, methods, issued, expires, &token, StatusCode::CREATED);
            if let Some(known) = principal(&accounts, &subject.id) {
                made.extensions_mut().insert(ClaimedName(short(&known.name)));
            }
            made
        }
        Err(failure) => {
            tracing::error!("cannot issue a token: {failure}");
            not_stored(&failure, "The token could not be issued.")
        }
    }
}

/// A token proves its holder. What it is exchanged for ends when it ends, and is for any project of the holder; without a
/// scope it is for the same.
async fn by_token(control: &Control, auth: &Value) -> Result<(Subject, Option<TokenRow>), Response> {
    let Some(token) = text(auth, &["identity", "token", "id"]) else {
        return Err(keystone(StatusCode::BAD_REQUEST, "The request body is invalid"));
    };
    match control.check_token(token).await {
        Ok(Ok((_, row))) => Ok((Subject { id: row.user.clone(), project: row.project.clone() }, Some(row))),
        Ok(Err(_)) => Err(keystone(StatusCode::UNAUTHORIZED, UNKNOWN_CALLER)),
        Err(failure) => {
            tracing::error!("cannot check a token: {failure}");
            Err(not_stored(&failure, "The token could not be issued."))
        }
    }
}

/// Checks a proof and counts it; who it is, and the token that it came with. Passwords can be guessed, so an account whose passwords fail is closed for a while; a right
/// key always passes, since none can be guessed. Counted apart from signatures.
async fn prove(
    control: &Control,
    claim: SignInRequest,
    from: SocketAddr,
    mut gone: CallerGone,
) -> Result<(Subject, Option<TokenRow>), Response> {
    let SignInRequest { account, subject, proof } = claim;
    let (failures, ip) = (&control.directory.failures, Some(from.ip()));
    let checked = match proof {
        Proof::Key { good: true } => {
            failures.succeeded(&account, ip);
            Ok(())
        }
        Proof::Key { good: false } => {
            let now = control.clock.now_ms();
            let was_locked = failures.is_locked(&account, ip, now);
            failures.failed(&account, ip, now);
            Err(if was_locked { SignInRefused::Locked } else { SignInRefused::Wrong })
        }
        Proof::Password { given, hash } => {
            let account = Account { id: account, hash };
            control.check_password(&account, given, from.ip(), gone.gone()).await
        }
    };
    match checked {
        Ok(()) => Ok((Subject { id: subject, project: None }, None)),
        Err(SignInRefused::Busy) => Err(keystone(StatusCode::TOO_MANY_REQUESTS, BUSY)),
        Err(SignInRefused::Locked) => Err(keystone(StatusCode::UNAUTHORIZED, LOCKED)),
        Err(SignInRefused::Wrong) => Err(keystone(StatusCode::UNAUTHORIZED, WRONG_PASSWORD)),
    }
}

/// `DELETE`: ends the token of `X-Subject-Token`, or the one with an id of the list.
pub(crate) async fn revoke(
    State(control): State<Control>,
    Extension(caller): Extension<Principal>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let subject = headers.get("x-subject-token").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let id = query.get("id").map(String::as_str).unwrap_or_default();
    if subject.is_empty() && id.is_empty() {
        return keystone(StatusCode::BAD_REQUEST, "X-Subject-Token or the query parameter `id` is required.");
    }
    match control.revoke_token(&caller, subject, id).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => keystone(StatusCode::NOT_FOUND, "The token does not exist or is not accessible."),
        Err(failure) => {
            tracing::error!("cannot revoke a token: {failure}");
            not_stored(&failure, "The token could not be revoked.")
        }
    }
}

async fn list(control: &Control, caller: &Principal, query: &Params) -> Response {
    let limit = number(query, "limit", LIST_MAX, (1, LIST_MAX));
    let (Ok(limit), Ok(offset)) = (limit, number(query, "offset", 0, (0, u32::MAX.into()))) else {
        let m = format!("`limit` must be a number from 1 to {LIST_MAX}, `offset` a number from 0.");
        return keystone(StatusCode::BAD_REQUEST, &m);
    };
    let shown = |t: &TokenRow| {
        json!({"id": token_id(t), "user": t.user, "project_id": t.project,
            "issued_at": time_text(t.issued_at), "expires_at": time_text(t.expires_at)})
    };
    match control.tokens(caller, offset, limit).await {
        Ok(all) => {
            let all: Vec<Value> = all.iter().map(shown).collect();
            with_status(StatusCode::OK, &json!({"tokens": all})).unwrap_or_else(IntoResponse::into_response)
        }
        Err(failure) => {
            tracing::error!("cannot list tokens: {failure}");
            not_stored(&failure, "The tokens could not be listed.")
        }
    }
}

pub(crate) async fn show(
    State(control): State<Control>,
    Extension(caller): Extension<Principal>,
    Query(query): Query<Params>,
    headers: HeaderMap,
) -> Response {
    let subject = headers.get("x-subject-token").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if subject.is_empty() {
        return list(&control, &caller, &query).await;
    }
    match control.check_token(subject).await {
        Ok(Ok((_, row))) => {
            let subject_of = Subject { id: row.user.clone(), project: row.project.clone() };
            let accounts = control.directory.accounts();
            let methods = vec!["password".to_owned()];
            reply(&accounts, &subject_of, methods, row.issued_at, row.expires_at, subject, StatusCode::OK)
        }
        _ => keystone(StatusCode::NOT_FOUND, "The token does not exist."),
    }
}

fn reply(
    accounts: &Accounts,
    subject: &Subject,
    methods: Vec<String>,
    issued: i64,
    expires: i64,
    token: &str,
    status: StatusCode,
) -> Response {
    let user = accounts.user(&subject.id);
    let domain_name = user.map_or_else(|| accounts.domain(), |u| u.domain.clone());
    let domain = Named { id: id_of("domain", &domain_name), name: domain_name };
    let in_domain = |id: String, name: String, expires: Option<String>| InDomain {
        domain: domain.clone(),
        id,
        name,
        password_expires_at: expires,
    };
    let project = subject.project.as_ref().and_then(|id| accounts.project(id));
    let (id, name) = match user {
        Some(user) => (user.id.clone(), user.name.clone()),
        None => (id_of("user", &subject.id), subject.id.clone()),
    };
    let role = principal(accounts, &subject.id).map_or(Role::Viewer, |p| p.role);
    let body = Token {
        catalog: vec![],
        expires_at: time_text(expires),
        issued_at: time_text(issued),
        methods,
        project: project.map(|p| in_domain(p.id.clone(), p.name.clone(), None)),
        domain: project.is_none().then(|| domain.clone()),
        roles: vec![Named { id: "0".into(), name: role_name(role).into() }],
        user: in_domain(id, name, Some(String::new())),
    };
    let mut response =
        with_status(status, &serde_json::json!({"token": body})).unwrap_or_else(IntoResponse::into_response);
    if let Ok(mut value) = HeaderValue::from_str(token) {
        value.set_sensitive(true);
        response.headers_mut().insert("x-subject-token", value);
    }
    response
}

/// A role as a token says it: the vendor's name for an administrator, our own for the others.
fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "te_admin",
        Role::Operator => "operator",
        Role::Viewer => "viewer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        let mut accounts = Accounts::default();
        for domain in ["da", "db"] {
            for name in ["alice", "bob"] {
                let only_there = name == "bob" && domain == "db";
                accounts.users.push(User {
                    name: name.into(),
                    id: user_id(domain, name),
                    domain: domain.into(),
                    hash: "x".into(),
                    role: Role::Viewer,
                    projects: vec![],
                    enabled: !only_there,
                });
            }
        }
        accounts
    }

    fn of(user: Value) -> Option<SignInRequest> {
        let auth = serde_json::json!({"identity": {"password": {"user": user}}});
        claim(&accounts(), &auth, "password")
    }

    #[test]
    fn sec_f10_lockout_counts_all_forms_of_an_account_name_together() {
        let bob = user_id("da", "bob");
        for user in [
            serde_json::json!({"name": "bob"}),
            serde_json::json!({"name": "bob", "domain": {"name": "da"}}),
            serde_json::json!({"name": "bob", "domain": {"id": id_of("domain", "da")}}),
            serde_json::json!({"id": bob}),
            serde_json::json!({"id": bob, "name": "invented-17", "domain": {"name": "x"}}),
        ] {
            let claim = of(user.clone()).unwrap();
            assert_eq!(
                (claim.account.as_str(), claim.subject.as_str()),
                (bob.as_str(), bob.as_str()),
                "{user}"
            );
            assert!(matches!(claim.proof, Proof::Password { hash: Some(_), .. }), "{user}");
        }
        // Who is not there, or is locked, has one name as well, so that an answer does not tell.
        let nobody = of(serde_json::json!({"name": "eve", "domain": {"name": "da"}})).unwrap();
        let same = of(serde_json::json!({"id": user_id("da", "eve")})).unwrap();
        assert_eq!(nobody.account, same.account);
        assert!(matches!(nobody.proof, Proof::Password { hash: None, .. }));
    }

    #[test]
    fn sec_f03_user_name_in_two_domains_requires_a_domain() {
        let claim = of(serde_json::json!({"name": "alice"})).unwrap();
        assert!(matches!(claim.proof, Proof::Password { hash: None, .. }));
        let claim = of(serde_json::json!({"name": "alice", "domain": {"name": "db"}})).unwrap();
        assert_eq!(claim.subject, user_id("db", "alice"));
    }

    /// Bodies of sign-ins: what they are counted under is bounded, whatever they hold.
    #[test]
    fn fuzz_sign_ins() {
        let corpus = [
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "alice",
                "password": "x", "domain": {"name": "da"}}}}, "scope": {"project": {"name": "p"}}}}),
            json!({"auth": {"identity": {"methods": ["hw_ak_sk"],
                "hw_ak_sk": {"access": {"key": "AK"}, "secret": {"key": "SK"}}}}}),
            json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"id": user_id("da", "bob")}}}}}),
        ];
        let accounts = accounts();
        testkit::fuzz::fuzz("sign-ins", &corpus.map(|v| v.to_string().into_bytes()), |input, _| {
            let Ok(body) = serde_json::from_slice::<Value>(input) else { return };
            let Some(auth) = body.get("auth") else { return };
            for method in ["password", "hw_ak_sk", "token", ""] {
                if let Some(claim) = claim(&accounts, auth, method) {
                    let longest = NAME_MAX + "key ".len();
                    assert!(claim.account.len() <= longest && claim.subject.len() <= longest);
                }
            }
        });
    }

    #[test]
    fn sec_f01_account_name_length_is_limited() {
        assert!(of(serde_json::json!({"name": "n".repeat(256)})).is_none());
        assert!(of(serde_json::json!({"id": "n".repeat(256)})).is_none());
        assert!(of(serde_json::json!({"name": "n".repeat(255)})).is_some());
        assert!(of(serde_json::json!({})).is_none());
    }

    #[test]
    fn sec_f32_role_names_match_the_roles() {
        assert_eq!(
            [role_name(Role::Admin), role_name(Role::Operator), role_name(Role::Viewer)],
            ["te_admin", "operator", "viewer"]
        );
    }
}
