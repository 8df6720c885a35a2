//! `/console/keys`: access keys, users and tokens. Keys and users are sections of the configuration; tokens end here.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use control::identity::role_name;
use control::identity::token::{principal, token_id};

use super::frame::{Frame, Nav};
use super::page;
use crate::Console;
use crate::gate::{Viewer, see_other};
use crate::html::plain;
use crate::outcome::{PageError, Reply};
use crate::text::Text;

/// Tokens of the page.
const TOKENS: u64 = 200;

/// A key or user: name, role, whether it is enabled.
struct Holder {
    name: String,
    role: &'static str,
    enabled: bool,
}

struct Token {
    id: String,
    holder: String,
    issued: i64,
    expires: i64,
}

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage {
    f: Frame,
    keys: Vec<Holder>,
    users: Vec<Holder>,
    tokens: Vec<Token>,
}

/// True for tokens of a project, and for those of no project.
fn is_of(project: &str, scope: &Option<String>) -> bool {
    scope.as_deref().is_none_or(|p| p == project)
}

pub(crate) async fn show(State(console): State<Console>, Extension(viewer): Extension<Viewer>) -> Reply {
    let accounts = console.control.directory.accounts();
    let f = Frame::of(&console, &viewer, Nav::Keys, Text::new(viewer.prefs.lang).keys_and_users()).await?;
    let project = viewer.project();
    // Who else there is is for admins; everybody sees the own account.
    let is_shown = |id: &str| viewer.is_admin() || id == viewer.principal.subject;
    let mut keys: Vec<Holder> = accounts
        .keys
        .iter()
        .filter(|(ak, k)| k.project == project && is_shown(&format!("ak:{ak}")))
        .map(|(ak, k)| Holder { name: plain(ak), role: role_name(k.role), enabled: k.enabled })
        .collect();
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    let users = accounts
        .users
        .iter()
        .filter(|u| u.projects.iter().any(|p| p == project) && is_shown(&u.id))
        .map(|u| Holder { name: plain(&u.name), role: role_name(u.role), enabled: u.enabled })
        .collect();
    let holder = |id: &str| principal(&accounts, id).map_or_else(|| "–".to_owned(), |p| plain(&p.name));
    let tokens = console.control.tokens(&viewer.principal, 0, TOKENS).await?;
    let tokens = tokens
        .iter()
        .filter(|t| is_of(project, &t.project))
        .map(|t| Token {
            id: token_id(t).to_owned(),
            holder: holder(&t.user),
            issued: t.issued_at,
            expires: t.expires_at,
        })
        .collect();
    page(&KeysPage { f, keys, users, tokens })
}

pub(crate) async fn revoke(
    State(console): State<Console>,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
) -> Reply {
    // Only tokens that the page shows: an admin of several projects changes one at a time.
    let shown = console.control.tokens(&viewer.principal, 0, TOKENS).await?;
    if !shown.iter().any(|t| token_id(t) == id && is_of(viewer.project(), &t.project)) {
        return Err(PageError::NotFound);
    }
    match console.control.revoke_token(&viewer.principal, "", &id).await? {
        true => Ok(see_other("/console/keys")),
        false => Err(PageError::NotFound),
    }
}
