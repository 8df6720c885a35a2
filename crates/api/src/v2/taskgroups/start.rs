//! `PUT /v2/{project_id}/taskgroups/{group_id}/start`

use axum::extract::{Path, State};
use bytes::Bytes;
use control::secrets::GivenSecrets;
use control::{Control, TaskError};
use wire::fields::Fields;

use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, empty, object};
use crate::v2::credentials;
use crate::v2::tasks::extras::cdn_key_given;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let start = async { control.start_group(&project, &id, read(&Fields::root(&map))?).await };
    start.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    empty()
}

/// The credentials that a start or retry of a group gives. Which of them are needed is decided with the state of the group,
/// which is told first.
pub(crate) fn read(f: &Fields<'_>) -> Result<GivenSecrets, TaskError> {
    Ok(GivenSecrets {
        source: credentials::flat_given(f, "src")?,
        target: credentials::flat_given(f, "dst")?,
        cdn: cdn_key_given(f)?,
    })
}

#[cfg(test)]
mod tests {
    use control::secrets::TaskSecrets;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn m5_credentials_of_the_source_may_be_left_out() {
        let given = |body: Value| read(&Fields::root(body.as_object().unwrap()));
        let target = given(json!({"dst_ak": "d", "dst_sk": "s"})).unwrap();
        assert!(target.source.is_none() && target.target.is_some());
        let mut held = TaskSecrets::default();
        held.source.ak = "held".into();
        let all = target.clone().over(Some(held.clone())).unwrap();
        assert_eq!((all.source.ak.as_str(), all.target.ak.as_str()), ("held", "d"));
        assert!(target.over(None).is_none(), "nothing is stored any more");
        let none = given(json!({})).unwrap().over(Some(held)).unwrap();
        assert_eq!(none.source.ak, "held");
        assert!(given(json!({"src_ak": "a"})).is_err(), "half a pair");
    }
}
