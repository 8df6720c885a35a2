//! `GET /healthz`, `/readyz`.

use axum::extract::State;
use control::Control;
use http::StatusCode;
use model::error::Kind;

use crate::error::ApiError;
use crate::reply::{Reply, json};

pub(crate) async fn healthz() -> Reply {
    json(&serde_json::json!({"status": "ok"}))
}

pub(crate) async fn readyz(State(control): State<Control>) -> Reply {
    match control.check_writable().await {
        Ok(()) => json(&serde_json::json!({"status": "ready"})),
        Err(failure) => {
            tracing::error!("not ready: {failure}");
            let m = match failure.kind {
                Kind::NoSpace | Kind::ReadOnly => "the service cannot write: the disk is full or read-only",
                _ => "the database does not answer",
            };
            Err(ApiError::gateway(StatusCode::SERVICE_UNAVAILABLE, "OMS.2004", m))
        }
    }
}
