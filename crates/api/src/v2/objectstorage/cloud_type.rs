//! `GET /v2/{project_id}/objectstorage/cloud-type?type=src|dst`: a bare array of vendor names.

use std::collections::HashMap;

use axum::extract::{Query, State};
use control::{Control, TaskError};

use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, json};
use crate::v2::vendors::{URLS, VENDORS};

pub(crate) async fn handle(State(_): State<Control>, Query(query): Query<HashMap<String, String>>) -> Reply {
    let vendors = vendors(query.get("type").map(String::as_str));
    json(&vendors.map_err(|refusal| ApiError::from_task_error(OmsVersion::V2, &refusal))?)
}

/// What an end may be; a parameter without a value is as none (api-compat.md).
fn vendors(end: Option<&str>) -> Result<Vec<&'static str>, TaskError> {
    match end.filter(|end| !end.is_empty()) {
        Some("src") => Ok(VENDORS.iter().copied().chain([URLS]).collect()),
        Some("dst") => Ok(vec!["HEC"]),
        Some(other) => {
            let why = format!("`{other}` is neither `src` nor `dst`");
            Err(TaskError::Invalid("type".into(), why))
        }
        None => Err(TaskError::Missing("type".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_l9_empty_type_parameter_counts_as_missing() {
        assert_eq!(vendors(Some("src")).unwrap().len(), VENDORS.len() + 1);
        assert_eq!(vendors(Some("dst")).unwrap(), ["HEC"]);
        for none in [None, Some("")] {
            assert!(matches!(vendors(none), Err(TaskError::Missing(field)) if field == "type"), "{none:?}");
        }
        assert!(matches!(vendors(Some("x")), Err(TaskError::Invalid(..))));
    }
}
