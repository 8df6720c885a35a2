//! `GET /v2/{project_id}/sync-tasks/{sync_task_id}?query_time=`, and the shape of a sync task in every reply.

use axum::extract::{Path, Query, State};
use control::{Control, TaskError};
use model::policy::MetadataRule;
use store::SyncRow;
use wire::v2::{SyncMonth, SyncTask};

use crate::error::{ApiError, OmsVersion};
use crate::query::Params;
use crate::reply::{Reply, json};
use crate::v2::tasks::extras::shown_cdn;
use crate::v2::tasks::show::{check_word, overwrite_word, policy_word};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    Query(query): Query<Params>,
) -> Reply {
    let show = async {
        let text = crate::query::given(&query, "query_time")
            .ok_or_else(|| TaskError::MissingQuery("query_time".into()))?;
        let at = text
            .parse()
            .map_err(|_| TaskError::Range(format!("`query_time`: `{text}` is not a time in milliseconds")))?;
        control.show_sync(&project, &id, at).await
    };
    let shown = show.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    let [request, success, failure, skip, size] = shown.sums;
    json(&SyncTask {
        month: Some(SyncMonth {
            monthly_acceptance_request: request,
            monthly_success_object: success,
            monthly_failure_object: failure,
            monthly_skip_object: skip,
            monthly_size: size,
        }),
        ..reply(&shown.sync)
    })
}

/// A sync task as v2 shows it.
pub(crate) fn reply(sync: &SyncRow) -> SyncTask {
    let spec = &sync.spec;
    SyncTask {
        sync_task_id: sync.id.clone(),
        src_cloud_type: spec.source.cloud_type.clone(),
        src_region: spec.source.region.clone(),
        src_bucket: spec.source.bucket.clone(),
        create_time: sync.created_at,
        last_start_time: sync.started_at,
        dst_bucket: spec.target.bucket.clone(),
        dst_region: spec.target.region.clone(),
        description: spec.description.clone(),
        status: if sync.running { "SYNCHRONIZING" } else { "STOPPED" }.to_owned(),
        enable_metadata_migration: spec.metadata == MetadataRule::All,
        enable_restore: spec.restore,
        enable_kms: spec.kms,
        app_id: spec.source.app_id.clone(),
        object_overwrite_mode: overwrite_word(spec).to_owned(),
        dst_storage_policy: policy_word(spec).to_owned(),
        consistency_check: check_word(spec).to_owned(),
        source_cdn: shown_cdn(spec),
        whimbrel: crate::v2::tasks::extensions::shown(spec),
        month: None,
    }
}
