//! `GET /v2/{project_id}/tasks`

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use control::{Control, TaskError};
use model::task::{Desired, Observed};
use store::TaskFilter;
use wire::v2::TaskList;

use super::show::reply;
use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, json};

pub(crate) type Params = HashMap<String, String>;

/// A parameter of the query; one without a value is as none.
pub(crate) fn given<'q>(query: &'q Params, name: &str) -> Option<&'q str> {
    query.get(name).map(String::as_str).filter(|text| !text.is_empty())
}

/// A number of the query within a range.
pub(crate) fn number(query: &Params, name: &str, default: u64, range: (u64, u64)) -> Result<u64, TaskError> {
    let Some(text) = given(query, name) else { return Ok(default) };
    text.parse()
        .ok()
        .filter(|n| (range.0..=range.1).contains(n))
        .ok_or_else(|| TaskError::Range(format!("`{name}` must be a number from {} to {}", range.0, range.1)))
}

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
    let (tasks, count) = control.list(&filter, offset, limit).await.map_err(refused)?;
    let now = control.clock.now_ms();
    json(&TaskList { tasks: tasks.iter().map(|t| reply(t, now)).collect(), count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cl_f10_a_parameter_without_a_value_is_as_none() {
        let query =
            Params::from([("limit".to_owned(), String::new()), ("offset".to_owned(), "7".to_owned())]);
        assert_eq!(given(&query, "limit"), None);
        assert!(matches!(number(&query, "limit", 10, (1, 100)), Ok(10)));
        assert!(matches!(number(&query, "offset", 0, (0, 9)), Ok(7)));
        assert!(number(&query, "offset", 0, (0, 6)).is_err());
    }
}
