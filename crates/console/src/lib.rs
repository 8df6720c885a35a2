//! The web console below `/console`: pages drawn by the server, for people. Every page and every change works without
//! script; script adds live numbers.
//!
//! ```text
//! request ─> gate (headers, session, CSRF, role, places, audit) ─> pages ─> control
//! live    ─> hub: one task for each topic draws it once a second for all viewers
//! ```
//!
//! Nothing here is durable: sessions end with the process (`session.rs`). Changes are those of `control`, with the same checks,
//! roles and audit trail as those of the API.

mod assets;
mod form;
mod format;
mod gate;
mod html;
mod live;
mod outcome;
mod pages;
mod pieces;
mod prefs;
mod session;
mod text;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use control::Control;
use flow_control::caller_limit::CallerLimit;
use tokio_util::sync::CancellationToken;

use crate::outcome::PageError;
use crate::pages::{audit, keys, new, overview, redis, signin, stores, syncs, task, tasks};

/// What the console is told by the program that serves it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Requests arrive over TLS: cookies are for TLS only.
    pub has_tls: bool,
    /// Live updates end with this.
    pub stop: CancellationToken,
}

/// What all requests share.
#[derive(Clone)]
pub(crate) struct Console(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) control: Control,
    pub(crate) settings: Settings,
    pub(crate) sessions: session::Sessions,
    pub(crate) hub: live::Hub,
    /// Memory of form bodies by address.
    pub(crate) bodies: CallerLimit<std::net::IpAddr>,
    /// Log lines about requests without a session.
    pub(crate) log_limit: control::identity::AuditLimit,
}

impl std::ops::Deref for Console {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

fn routes() -> Router<Console> {
    Router::new()
        .route("/console", get(|| async { Redirect::to("/console/") }))
        .route("/console/", get(overview::show))
        .route("/console/assets/{name}", get(assets::serve))
        .route("/console/signin", get(signin::form).post(signin::submit))
        .route("/console/signout", post(signin::sign_out))
        .route("/console/project", post(signin::change_project))
        .route("/console/live", get(live::stream))
        .route("/console/tasks", get(tasks::show))
        .route("/console/tasks/batch", post(tasks::batch))
        .route("/console/tasks/new", get(new::show).post(new::submit))
        .route("/console/tasks/{id}", get(task::show))
        .route("/console/tasks/{id}/failed", get(task::failed::show))
        .route("/console/tasks/{id}/report", get(task::report::show))
        .route("/console/tasks/{id}/{action}", post(task::act))
        .route("/console/redis", get(redis::list))
        .route("/console/redis/{id}", get(redis::show))
        .route("/console/redis/{id}/{action}", post(redis::act))
        .route("/console/syncs", get(syncs::show))
        .route("/console/stores", get(stores::show))
        .route("/console/keys", get(keys::show))
        .route("/console/tokens/{id}/revoke", post(keys::revoke))
        .route("/console/audit", get(audit::show))
        .route("/console/{*rest}", get(unknown))
        .method_not_allowed_fallback(unknown)
}

/// The console; its paths begin with `/console`.
pub fn router(control: Control, settings: Settings) -> Router {
    let console = Console(Arc::new(Shared {
        control,
        settings,
        sessions: session::Sessions::default(),
        hub: live::Hub::default(),
        bodies: CallerLimit::new(gate::BODY_BUDGET.0, gate::BODY_BUDGET.1),
        log_limit: control::identity::AuditLimit::default(),
    }));
    routes()
        // The gate has read the body under bounds of its own.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(console.clone(), gate::layer))
        .with_state(console)
}

async fn unknown() -> Response {
    PageError::NotFound.into_response()
}
