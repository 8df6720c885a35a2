//! `POST /v2/{project_id}/taskgroups`

use axum::extract::{Path, State};
use bytes::Bytes;
use control::secrets::TaskSecrets;
use control::{Control, TaskError};
use model::group::GroupKind;
use model::spec::TaskSpec;
use wire::fields::Fields;
use wire::v2::GroupCreated;

use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, json, object};
use crate::v2::tasks::create::{destination, echo, rules, selection, source};
use crate::v2::tasks::extras::cdn_key;
use crate::v2::tasks::known_value;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let create = async {
        let (kind, spec, secrets) = read(&Fields::root(&map))?;
        control.create_group(&project, kind, &spec, &secrets).await
    };
    let id = create.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    json(&GroupCreated { group_id: id })
}

/// As a task, with upper-case types and without a type for single objects.
pub(crate) fn read(f: &Fields<'_>) -> Result<(GroupKind, TaskSpec, TaskSecrets), TaskError> {
    let src = f.object("src_node").map_err(field_error)?;
    let dst = f.object("dst_node").map_err(field_error)?;
    let (kind, task_type) =
        match known_value(f, "task_type", &["PREFIX", "LIST", "URL_LIST"])?.unwrap_or("PREFIX") {
            "LIST" => (GroupKind::List, "list"),
            "URL_LIST" => (GroupKind::UrlList, "url_list"),
            _ => (GroupKind::Prefix, "prefix"),
        };
    let rules = rules(f)?;
    let (source, source_keys) = source(&src, kind == GroupKind::UrlList)?;
    let (target, target_keys, save_prefix) = destination(&dst)?;
    let (selection, echo) = (selection(task_type, &src)?, echo(task_type, &src)?);
    let spec = TaskSpec { selection, source, target, save_prefix, echo, ..rules };
    Ok((kind, spec, TaskSecrets { source: source_keys, target: target_keys, cdn: cdn_key(f)? }))
}
