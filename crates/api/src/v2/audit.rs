//! `GET /v2/{project_id}/audit`: who did what, newest first. Not part of the vendor's API.

use axum::Extension;
use axum::extract::{Path, Query, State};
use config::Role;
use control::identity::Principal;
use control::{Control, TaskError};
use http::StatusCode;
use serde_json::json as value;

use crate::dcs::number;
use crate::error::{ApiError, OmsVersion};
use crate::query::Params;
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Extension(caller): Extension<Principal>,
    Path(project): Path<String>,
    Query(query): Query<Params>,
) -> Reply {
    if caller.role == Role::Viewer {
        let m = "The role viewer cannot read the audit trail.";
        return Err(ApiError::gateway(StatusCode::FORBIDDEN, "APIGW.0302", m));
    }
    let limit = number(&query, "limit", 100, (1, 1000))?;
    let before = number(&query, "before", i64::MAX as u64, (0, i64::MAX as u64))?;
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    let read = control.audit_lines(&project, caller.role == Role::Admin, before, limit).await;
    let lines = read.map_err(|f| ApiError::from_task_error(OmsVersion::V2, &TaskError::Internal(f)))?;
    let shown = |l: &store::AuditLine| {
        value!({"at": l.at, "request_id": l.request_id, "project_id": l.project, "principal": l.principal, "role": l.role,
            "address": l.address, "action": l.action, "target": l.target, "status": l.status})
    };
    json(&value!({"lines": lines.iter().map(shown).collect::<Vec<_>>()}))
}
