//! `POST /v2/{project_id}/tasks/batch-update`: bandwidth and priority of several tasks, all or none.

use axum::extract::{Path, State};
use bytes::Bytes;
use control::{Control, TaskError};
use model::policy::Window;
use model::task::{Priority, TaskId};
use wire::fields::Fields;

use super::create::priority_of;
use super::{known_value, windows};
use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, empty, object};

/// Tasks of one request.
const MAX: usize = 1000;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let fields = Fields::root(&map);
    let change = async {
        let (targets, windows, priority) = read(&fields)?;
        let ids = match targets {
            Targets::Tasks(ids) => ids,
            Targets::Group(group) => control.group_members(&project, &group).await?,
        };
        control.set_many(&project, &ids, windows, priority).await
    };
    change.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}

/// Which tasks, and what is to be of them.
pub(crate) fn read(f: &Fields<'_>) -> Result<(Targets, Vec<Window>, Option<Priority>), TaskError> {
    let priority = known_value(f, "task_priority", &["HIGH", "MEDIUM", "LOW"])?.map(priority_of);
    if !f.has("bandwidth_policy") {
        return Err(TaskError::Missing("bandwidth_policy".into()));
    }
    let windows = windows(f)?;
    Ok((ids(f)?, windows, priority))
}

/// Which tasks are meant.
pub(crate) enum Targets {
    Tasks(Vec<TaskId>),
    Group(String),
}

fn ids(fields: &Fields<'_>) -> Result<Targets, TaskError> {
    let group = fields.opt_text("group_id", 100).map_err(field_error)?.filter(|g| !g.is_empty());
    let list = fields.opt_list("ids", MAX).map_err(field_error)?;
    match (group, list) {
        (Some(group), None) => Ok(Targets::Group(group.to_owned())),
        (None, Some(list)) if !list.is_empty() => {
            let id = |v: &serde_json::Value| {
                v.as_i64().ok_or(TaskError::WrongType("ids".into(), "an array of numbers"))
            };
            list.iter().map(id).collect::<Result<_, _>>().map(Targets::Tasks)
        }
        _ => Err(TaskError::Invalid("ids".into(), "exactly one of `ids` and `group_id` is required".into())),
    }
}
