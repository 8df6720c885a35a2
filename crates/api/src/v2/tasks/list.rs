//! `GET /v2/{project_id}/tasks`

use axum::extract::{Path, Query, State};
use control::{Control, TaskError};
use model::task::{Desired, Observed};
use store::TaskFilter;
use wire::v2::TaskList;

use super::show::reply;
use crate::error::{ApiError, OmsVersion};
use crate::query::{Params, given, number};
use crate::reply::{Reply, json};

/// The stored states behind a visible one (oms.md §3.1).
pub(crate) fn states(code: u64) -> Option<Vec<(Option<Desired>, Observed)>> {
    let run = Some(Desired::Run);
    let pause = Some(Desired::Pause);
    Some(match code {
        1 => vec![(None, Observed::Waiting)],
        2 => vec![(run, Observed::Running)],
        3 => vec![(None, Observed::Paused)],
        4 => vec![(None, Observed::Failed)],
        5 => vec![(None, Observed::Succeeded)],
        6 => vec![(run, Observed::Retrying)],
        7 => vec![(pause, Observed::Running), (pause, Observed::Retrying)],
        _ => return None,
    })
}

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    Query(query): Query<Params>,
) -> Reply {
    let refused = |r: TaskError| ApiError::from_task_error(OmsVersion::V2, &r);
    let limit = number(&query, "limit", 10, (1, 100)).map_err(refused)?;
    let offset = number(&query, "offset", 0, (0, 2_147_483_647)).map_err(refused)?;
    let mut filter = TaskFilter { project, ..TaskFilter::default() };
    if let Some(text) = given(&query, "status") {
        let code = text.parse().ok().and_then(states);
        filter.states =
            code.ok_or_else(|| refused(TaskError::State(format!("status `{text}` is not 1 to 7"))))?;
    }
    filter.name_part = query.get("task_name").cloned().unwrap_or_default();
    if filter.name_part.chars().count() > 255 {
        return Err(refused(TaskError::TooLong("task_name".into(), 255)));
    }
    filter.member_of = query.get("group_id").cloned().unwrap_or_default();
    if filter.member_of.chars().count() > 100 {
        return Err(refused(TaskError::TooLong("group_id".into(), 100)));
    }
    let (tasks, count) = control.list(&filter, offset, limit).await.map_err(refused)?;
    let now = control.clock.now_ms();
    json(&TaskList { tasks: tasks.iter().map(|t| reply(t, now)).collect(), count })
}
