//! `GET /v2/{project_id}/sync-tasks`

use axum::extract::{Path, Query, State};
use control::{Control, TaskError};
use wire::v2::SyncTaskList;

use super::show::reply;
use crate::error::{ApiError, OmsVersion};
use crate::query::{Params, number};
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    Query(query): Query<Params>,
) -> Reply {
    let list = async {
        let limit = number(&query, "limit", 10, (1, 100))?;
        let offset = number(&query, "offset", 0, (0, 2_147_483_647))?;
        let running = match query.get("status").map(String::as_str) {
            None | Some("") => None,
            Some("SYNCHRONIZING") => Some(true),
            Some("STOPPED") => Some(false),
            Some(other) => {
                return Err(TaskError::State(format!(
                    "status `{other}` is neither SYNCHRONIZING nor STOPPED"
                )));
            }
        };
        control.list_syncs(&project, running, offset, limit).await
    };
    let (tasks, count) = list.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    json(&SyncTaskList { tasks: tasks.iter().map(reply).collect(), count })
}
