//! `POST /v2/{project_id}/objectstorage/buckets/cdn-info`: does a domain serve what its bucket holds?

use axum::extract::{Path, State};
use bytes::Bytes;
use control::secrets::TaskSecrets;
use control::{Control, TaskError};
use model::spec::{Location, TaskSpec};
use wire::fields::Fields;
use wire::v2::{CdnInfo, CheckedKey};

use super::account;
use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, json, object};
use crate::v2::tasks::create::rules;
use crate::v2::tasks::extras::{cdn, cdn_key};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let f = Fields::root(&map);
    let ask = async {
        let (spec, secrets, keys) = read(&f)?;
        control.begin_outgoing(&project)?.cdn_info(&spec, &secrets, &keys).await
    };
    let info = ask.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    let checked = |(key, is_etag_matching, is_object_existing)| CheckedKey {
        key,
        is_etag_matching,
        is_object_existing,
    };
    json(&CdnInfo {
        is_same_cloud_type: info.same_vendor,
        is_download_available: info.available,
        checked_keys: info.keys.into_iter().map(checked).collect(),
    })
}

/// The source and its domain, credentials, and the keys to ask for.
pub(crate) fn read(f: &Fields<'_>) -> Result<(TaskSpec, TaskSecrets, Vec<String>), TaskError> {
    let account = account(f)?;
    let source = Location {
        cloud_type: account.cloud_type,
        region: f.filled("region", 100).map_err(field_error)?.to_owned(),
        bucket: f.filled("bucket", 100).map_err(field_error)?.to_owned(),
        app_id: account.app_id,
    };
    let keys = match f.opt_object("prefix").map_err(field_error)? {
        Some(prefix) => prefix.opt_texts("keys", 100, 2048).map_err(field_error)?.unwrap_or_default(),
        None => vec![],
    };
    // Only the domain and the source matter here; a destination is not asked about.
    let none = serde_json::Map::new();
    let rules = rules(&Fields::root(&none))?;
    let target = source.clone();
    let spec = TaskSpec { source, target, cdn: cdn(f)?, ..rules };
    let secrets = TaskSecrets { source: account.keys, cdn: cdn_key(f)?, ..TaskSecrets::default() };
    Ok((spec, secrets, keys))
}
