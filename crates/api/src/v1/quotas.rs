//! `GET /v1/{domain_id}/objectstorage/quotas`

use axum::extract::State;
use control::Control;
use serde_json::json as value;

use crate::reply::{Reply, json};

pub(crate) async fn handle(State(control): State<Control>) -> Reply {
    let quota = control.limits.current().running_tasks;
    json(&value!({"quotas": {"resource": {"type": "MaxParallelTaskNum", "quota": quota}}}))
}
