//! Migration tasks (oms.md §2.3).

pub(crate) mod bandwidth_policy;
pub(crate) mod batch_update;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod extensions;
pub(crate) mod extras;
pub(crate) mod list;
pub(crate) mod report;
pub(crate) mod show;
pub(crate) mod start;
pub(crate) mod stop;

use control::TaskError;
use model::policy::{Window, minute_of};
use model::task::TaskId;
use wire::fields::Fields;

use crate::error::{ApiError, OmsVersion, field_error};

/// The identity in a path: any decimal number that fits.
pub(crate) fn task_id(version: OmsVersion, text: &str) -> Result<TaskId, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let id = text.parse().ok().filter(|_| digits);
    id.ok_or_else(|| ApiError::from_task_error(version, &TaskError::TaskId(text.chars().take(40).collect())))
}

/// Windows of a request; malformed times are left for the check of the whole set.
pub(crate) fn windows(fields: &Fields<'_>) -> Result<Vec<Window>, TaskError> {
    let Some(list) = fields.opt_objects("bandwidth_policy", 1000).map_err(field_error)? else {
        return Ok(vec![]);
    };
    list.iter()
        .map(|w| {
            let minute = |field: &str| -> Result<u16, TaskError> {
                Ok(minute_of(w.text(field, 100).map_err(field_error)?).unwrap_or(u16::MAX))
            };
            let max = w.int("max_bandwidth").map_err(field_error)?;
            Ok(Window {
                start: minute("start")?,
                end: minute("end")?,
                max_bandwidth: u64::try_from(max).unwrap_or(0),
            })
        })
        .collect()
}

/// One of some words; none when absent or empty.
pub(crate) fn known_value<'w>(
    fields: &Fields<'_>,
    field: &str,
    words: &[&'w str],
) -> Result<Option<&'w str>, TaskError> {
    fields.opt_one_of(field, words).map_err(field_error)
}
