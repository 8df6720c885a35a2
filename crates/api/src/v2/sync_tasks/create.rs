//! `POST /v2/{project_id}/sync-tasks`: a flat body, where tasks have nodes.

use axum::extract::{Path, State};
use bytes::Bytes;
use control::secrets::TaskSecrets;
use control::{Control, TaskError};
use model::policy::MetadataRule;
use model::selection::Selection;
use model::spec::{Location, TaskSpec};
use seal::Secret;
use wire::fields::Fields;
use wire::v2::SyncCreated;

use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, json, object};
use crate::v2::credentials;
use crate::v2::tasks::create::{CHECKS, check_of, rules};
use crate::v2::tasks::extras::cdn_key;
use crate::v2::tasks::known_value;
use crate::v2::vendors::VENDORS;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let create = async {
        let (spec, secrets) = read(&Fields::root(&map))?;
        control.create_sync(&project, &spec, &secrets).await
    };
    let id = create.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    json(&SyncCreated { sync_task_id: id })
}

/// The credentials of a flat body.
pub(crate) fn secrets(f: &Fields<'_>) -> Result<TaskSecrets, TaskError> {
    let (source, target) = (credentials::flat(f, "src")?, credentials::flat(f, "dst")?);
    Ok(TaskSecrets { source, target, cdn: Secret::default() })
}

pub(crate) fn read(f: &Fields<'_>) -> Result<(TaskSpec, TaskSecrets), TaskError> {
    let known: Vec<&str> = VENDORS.iter().copied().filter(|v| *v != "Google").collect();
    let cloud_type = known_value(f, "src_cloud_type", &known)?.unwrap_or("Aliyun");
    let app_id = f.opt_text("app_id", 255).map_err(field_error)?.unwrap_or_default();
    if cloud_type == "Tencent" && app_id.is_empty() {
        return Err(TaskError::Source("app_id is required for Tencent".into()));
    }
    // The newest clients call the third check `transmission` here (oms.md §2.5).
    let checks: Vec<&str> = CHECKS.iter().copied().chain(["transmission"]).collect();
    let check = match known_value(f, "consistency_check", &checks)?.unwrap_or(CHECKS[0]) {
        "transmission" => "no_check",
        check => check,
    };
    let place = |side: &str, cloud_type: &str, app_id: &str| -> Result<Location, TaskError> {
        Ok(Location {
            cloud_type: cloud_type.to_owned(),
            region: f.filled(&format!("{side}_region"), 100).map_err(field_error)?.to_owned(),
            bucket: f.filled(&format!("{side}_bucket"), 1024).map_err(field_error)?.to_owned(),
            app_id: app_id.to_owned(),
        })
    };
    // What a sync task has of the rules of tasks.
    const OF_TASKS: [&str; 6] =
        ["description", "enable_restore", "dst_storage_policy", "enable_kms", "source_cdn", "whimbrel"];
    let rules = rules(&f.only(&OF_TASKS))?;
    let spec = TaskSpec {
        selection: Selection::Keys(vec![]),
        source: place("src", cloud_type, app_id)?,
        target: place("dst", "", "")?,
        check: check_of(check),
        metadata: match f.opt_bool("enable_metadata_migration").map_err(field_error)? {
            Some(true) => MetadataRule::All,
            _ => MetadataRule::ContentType,
        },
        ..rules
    };
    Ok((spec, TaskSecrets { cdn: cdn_key(f)?, ..secrets(f)? }))
}
