//! `GET /v2/{project_id}/taskgroups`

use axum::extract::{Path, Query, State};
use control::{Control, TaskError};
use model::group::Phase;
use wire::v2::TaskGroupList;

use super::show::reply;
use crate::error::{ApiError, OmsVersion};
use crate::query::{Params, given, number};
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    Query(query): Query<Params>,
) -> Reply {
    let list = async {
        let limit = number(&query, "limit", 10, (1, 100))?;
        let offset = number(&query, "offset", 0, (0, 2_147_483_647))?;
        let phase = match given(&query, "status") {
            None => None,
            Some(text) => {
                let code = text.parse::<usize>().ok().filter(|n| *n <= 9);
                let code = code.ok_or_else(|| TaskError::State(format!("status `{text}` is not 0 to 9")))?;
                // 8 waits for deletion and 9 is deleted: here they are one.
                Some(Phase::ALL.get(code).copied().unwrap_or(Phase::Deleting))
            }
        };
        control.list_groups(&project, phase, offset, limit).await
    };
    let (groups, count) = list.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    let now = control.clock.now_ms();
    json(&TaskGroupList { taskgroups: groups.iter().map(|g| reply(g, now)).collect(), count })
}
