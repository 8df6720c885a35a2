//! `GET /v2/{project_id}/taskgroups/{group_id}`, and the shape of a group in every reply.

use axum::extract::{Path, State};
use control::Control;
use control::groups::GroupView;
use control::tasks::TaskView;
use model::group::{GroupKind, Phase};
use model::policy::MetadataRule;
use model::task::Visible;
use wire::v2::{ErrorReason, FailedObjectRecord, TaskGroup};

use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, json};
use crate::v2::tasks::extras::{delivery, shown_cdn};
use crate::v2::tasks::show::{
    check_word, dst_node, numbers, overwrite_word, policies, policy_word, since, src_node, trf,
};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let shown =
        control.show_group(&project, &id).await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    json(&reply(&shown, control.clock.now_ms()))
}

/// A group as v2 shows it.
pub(crate) fn reply(shown: &GroupView, now: i64) -> TaskGroup {
    let (group, spec, members) = (&shown.group, &shown.group.spec, &shown.members);
    let all: Vec<_> = members.iter().map(|m| numbers(m, now)).collect();
    let sum = |of: fn(&crate::v2::tasks::show::Numbers) -> u64| all.iter().map(of).sum::<u64>();
    let count = |states: &[Visible]| {
        members.iter().filter(|m| states.contains(&m.task.state.visible())).count() as u64
    };
    let ended = group.ended_at.unwrap_or(now);
    let mut src_node = src_node(spec);
    // The one place where vendors are written in capitals (oms.md §2.4).
    src_node.cloud_type = src_node.cloud_type.to_ascii_uppercase();
    TaskGroup {
        group_id: group.id.clone(),
        status: group.phase as i32,
        error_reason: error_reason(shown),
        src_node,
        dst_node: dst_node(spec),
        description: spec.description.clone(),
        enable_metadata_migration: spec.metadata == MetadataRule::All,
        enable_failed_object_recording: spec.record_failures,
        enable_restore: spec.restore,
        enable_kms: spec.kms,
        enable_requester_pays: spec.requester_pays,
        task_type: task_type(group.kind).to_owned(),
        bandwidth_policy: policies(&spec.windows),
        // The key is `smn_config`, the shape is that of `smn_info`.
        smn_config: delivery(shown.notification.as_ref()).map(|(result, code, topic)| {
            serde_json::json!({"notify_result": result, "notify_error_message": code, "topic_name": topic})
        }),
        source_cdn: shown_cdn(spec),
        whimbrel: crate::v2::tasks::extensions::shown_with_results(spec, members),
        migrate_since: since(spec),
        migrate_speed: sum(|n| n.speed),
        total_time: (ended - group.started_at).max(0),
        start_time: group.started_at,
        total_task_num: members.len() as u64,
        create_task_num: members.len() as u64,
        failed_task_num: count(&[Visible::Failed]),
        complete_task_num: count(&[Visible::Succeeded]),
        paused_task_num: count(&[Visible::Paused, Visible::Pausing]),
        executing_task_num: count(&[Visible::Running, Visible::Retrying]),
        waiting_task_num: count(&[Visible::Waiting]),
        total_num: sum(|n| n.total_num),
        create_complete_num: sum(|n| n.total_num),
        success_num: sum(|n| n.successful),
        fail_num: sum(|n| n.failed),
        skip_num: sum(|n| n.skipped),
        total_size: sum(|n| n.total_size),
        create_complete_size: sum(|n| n.total_size),
        complete_size: sum(|n| n.complete_size),
        failed_object_record: failed_objects(members),
        object_overwrite_mode: overwrite_word(spec).to_owned(),
        dst_storage_policy: policy_word(spec).to_owned(),
        consistency_check: check_word(spec).to_owned(),
        obs_system: "BUCKET".to_owned(),
    }
}

fn task_type(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Prefix => "PREFIX",
        GroupKind::List => "LIST",
        GroupKind::UrlList => "URL_LIST",
    }
}

/// The list of failed objects of the first member that has one; complete when those of all members are.
fn failed_objects(members: &[TaskView]) -> FailedObjectRecord {
    let listed = members.iter().find_map(|m| m.records.failed_key.clone());
    let complete = || members.iter().all(|m| m.records.failed_complete != Some(false));
    FailedObjectRecord {
        result: listed.is_some().then(complete),
        list_file_key: listed,
        error_code: members.iter().find_map(|m| m.records.failed_error.clone()),
    }
}

/// Why its members could not be made, or that some of them failed.
fn error_reason(shown: &GroupView) -> Option<ErrorReason> {
    let cut = |text: String| text.chars().take(1024).collect();
    match (shown.group.phase, &shown.group.error) {
        (Phase::CreationFailed, Some(error)) => Some(ErrorReason {
            error_code: trf(error.kind, error.side).to_owned(),
            error_msg: cut(error.message.clone()),
        }),
        (Phase::Failed, _) => {
            let failed: Vec<_> =
                shown.members.iter().filter(|m| m.task.state.visible() == Visible::Failed).collect();
            let first = failed.first().and_then(|m| crate::v2::tasks::show::error_reason(m))?;
            let text = format!("{} tasks of the group failed; {}", failed.len(), first.error_msg);
            Some(ErrorReason { error_code: first.error_code, error_msg: cut(text) })
        }
        _ => None,
    }
}
