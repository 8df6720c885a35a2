//! `GET /v2/{project_id}/taskgroups/{group_id}`, and the shape of a group in every reply.

use axum::extract::{Path, State};
use control::Control;
use control::groups::GroupView;
use control::tasks::TaskNumbers;
use model::count::Counters;
use model::group::{GroupKind, Phase};
use model::policy::MetadataRule;
use model::task::Visible;
use object_migration::report::records::Records;
use store::MemberTally;
use wire::v2::{ErrorReason, FailedObjectRecord, TaskGroup};

use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, json};
use crate::v2::tasks::extras::{delivery, shown_cdn};
use crate::v2::tasks::show::{
    check_word, dst_node, overwrite_word, policies, policy_word, since, src_node, trf,
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
    let (group, spec) = (&shown.group, &shown.group.spec);
    let running: Vec<_> = shown.running.iter().map(|m| m.numbers(now)).collect();
    let sum = |stored: fn(&MemberTally) -> u64, live: fn(&TaskNumbers) -> u64| {
        shown.tallies.iter().map(stored).sum::<u64>() + running.iter().map(live).sum::<u64>()
    };
    let count = |states: &[Visible]| {
        let live = shown.running.iter().filter(|m| states.contains(&m.task.state.visible())).count() as u64;
        let stored = shown.tallies.iter().filter(|t| states.contains(&t.state.visible()));
        live + stored.map(|t| t.tasks).sum::<u64>()
    };
    let members = shown.running.len() as u64 + shown.tallies.iter().map(|t| t.tasks).sum::<u64>();
    let mut counters = Counters::default();
    shown.tallies.iter().for_each(|t| counters += t.counters);
    shown.running.iter().for_each(|m| counters += m.settled().0);
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
        whimbrel: crate::v2::tasks::extensions::shown_with_results(spec, &counters, &shown.notes),
        migrate_since: since(spec),
        migrate_speed: sum(|t| t.speed, |n| n.speed),
        total_time: (ended - group.started_at).max(0),
        start_time: group.started_at,
        total_task_num: members,
        create_task_num: members,
        failed_task_num: count(&[Visible::Failed]),
        complete_task_num: count(&[Visible::Succeeded]),
        paused_task_num: count(&[Visible::Paused, Visible::Pausing]),
        executing_task_num: count(&[Visible::Running, Visible::Retrying]),
        waiting_task_num: count(&[Visible::Waiting]),
        total_num: sum(|t| t.total.objects, |n| n.total_num),
        create_complete_num: sum(|t| t.total.objects, |n| n.total_num),
        success_num: sum(|t| t.counters.copied.objects, |n| n.successful),
        fail_num: sum(|t| t.counters.failed.objects, |n| n.failed),
        skip_num: sum(|t| t.counters.skipped.objects, |n| n.skipped),
        total_size: sum(|t| t.total.bytes, |n| n.total_size),
        create_complete_size: sum(|t| t.total.bytes, |n| n.total_size),
        complete_size: sum(|t| t.counters.copied.bytes + t.counters.skipped.bytes, |n| n.complete_size),
        failed_object_record: failed_objects(&shown.records),
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
fn failed_objects(records: &[Records]) -> FailedObjectRecord {
    let listed = records.iter().find_map(|r| r.failed_key.clone());
    let complete = || records.iter().all(|r| r.failed_complete != Some(false));
    FailedObjectRecord {
        result: listed.is_some().then(complete),
        list_file_key: listed,
        error_code: records.iter().find_map(|r| r.failed_error.clone()),
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
            let first = shown.first_failed.as_ref().and_then(crate::v2::tasks::show::error_reason)?;
            let failed = shown.tallies.iter().filter(|t| t.state.visible() == Visible::Failed);
            let text = format!(
                "{} tasks of the group failed; {}",
                failed.map(|t| t.tasks).sum::<u64>(),
                first.error_msg
            );
            Some(ErrorReason { error_code: first.error_code, error_msg: cut(text) })
        }
        _ => None,
    }
}
