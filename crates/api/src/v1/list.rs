//! `GET /v1/{project_id}/objectstorage/task`: a page of tasks, or with `totalcount=true` their number.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use control::{Control, TaskError};
use model::task::Observed;
use serde_json::json as value;
use store::TaskFilter;

use super::show::reply;
use crate::error::{ApiError, OmsVersion};
use crate::query::{given, number};
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Reply {
    let refused = |r: TaskError| ApiError::from_task_error(OmsVersion::V1, &r);
    let mut filter = TaskFilter { project, ..TaskFilter::default() };
    if let Some(text) = given(&query, "state") {
        filter.states = match text {
            "0" => vec![],
            "1" => vec![(None, Observed::Waiting)],
            "2" => vec![(None, Observed::Running), (None, Observed::Retrying)],
            "3" => vec![(None, Observed::Paused)],
            "4" => vec![(None, Observed::Failed)],
            "5" => vec![(None, Observed::Succeeded)],
            _ => return Err(refused(TaskError::State(format!("state `{text}` is not 0 to 5")))),
        };
        // No task is ever "initialising" here.
        if text == "0" {
            let counting = query.get("totalcount").is_some_and(|t| t == "true");
            return if counting { json(&value!({"taskcount": 0})) } else { json(&value!([])) };
        }
    }
    if query.get("totalcount").is_some_and(|t| t == "true") {
        let (_, count) = control.list(&filter, 0, 1).await.map_err(refused)?;
        return json(&value!({"taskcount": count}));
    }
    for name in ["start", "limit"] {
        if !query.contains_key(name) {
            return Err(refused(TaskError::Missing(name.into())));
        }
    }
    let start = number(&query, "start", 0, (0, 2_147_483_647)).map_err(refused)?;
    let limit = number(&query, "limit", 10, (1, 100)).map_err(refused)?;
    let (tasks, _) = control.list(&filter, start, limit).await.map_err(refused)?;
    let now = control.clock.now_ms();
    json(&tasks.iter().map(|t| reply(t, now)).collect::<Vec<_>>())
}
