//! `GET /v2/{project_id}/tasks/{task_id}`, and the shape of a task in every reply.

use axum::extract::{Path, State};
use control::Control;
use control::tasks::TaskView;
use model::error::{Kind, Side};
use model::parent::Parent;
use model::policy::{Check, MetadataRule, Overwrite, StoragePolicy, clock_text};
use model::selection::Selection;
use model::spec::TaskSpec;
use model::task::{Priority, Visible};
use wire::v2::{BandwidthPolicy, DstNode, ErrorReason, FailedObjectRecord, SrcNode, Task};

use super::create::{CHECKS, OVERWRITE, POLICIES};
use super::extras::{shown_cdn, smn_info};
use super::{extensions, task_id};
use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let id = task_id(OmsVersion::V2, &id)?;
    let shown =
        control.show(&project, id).await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    json(&reply(&shown, control.clock.now_ms()))
}

/// The code of a visible state (oms.md §3.1).
pub(crate) fn status(visible: Visible) -> i32 {
    match visible {
        Visible::Waiting => 1,
        Visible::Running => 2,
        Visible::Paused => 3,
        Visible::Failed => 4,
        Visible::Succeeded => 5,
        Visible::Retrying => 6,
        Visible::Pausing => 7,
    }
}

/// The code of a task's failure (oms.md §8.3).
pub(crate) fn trf(kind: Kind, side: Side) -> &'static str {
    match (side, kind) {
        (_, Kind::ListMissing) => "TRF.0013",
        (_, Kind::ListTooLarge) => "TRF.0014",
        (_, Kind::ListMalformed) => "TRF.0016",
        (_, Kind::ListEmpty) => "TRF.0017",
        (_, Kind::ListLineTooLong) => "TRF.0018",
        (_, Kind::ListMetadata) => "TRF.0019",
        (Side::Source, Kind::BadCredentials | Kind::ClockSkew) => "TRF.0151",
        (Side::Source, Kind::Forbidden) => "TRF.0152",
        (Side::Source, Kind::NoBucket) => "TRF.0155",
        (Side::Source, Kind::NotFound) => "TRF.0156",
        (Side::Source, Kind::Throttled) => "TRF.0159",
        (Side::Source, Kind::Archived) => "TRF.0202",
        (Side::Source, _) => "TRF.0157",
        (Side::Target, Kind::BadCredentials | Kind::ClockSkew) => "TRF.0057",
        (Side::Target, Kind::Forbidden | Kind::ReadOnly) => "TRF.0051",
        (Side::Target, Kind::NoBucket) => "TRF.0058",
        (Side::Target, Kind::NoSpace) => "TRF.0055",
        (Side::Target, Kind::InvalidKey) => "TRF.0060",
        (Side::Target, _) => "TRF.0061",
        (Side::Local, Kind::Timeout) => "TRF.0003",
        (Side::Local, Kind::NotFound) => "TRF.0012",
        (Side::Local, _) => "TRF.0001",
    }
}

/// Why a task failed, in the words of `error_reason`.
pub(crate) fn error_reason(shown: &TaskView) -> Option<ErrorReason> {
    if shown.task.state.visible() != Visible::Failed {
        return None;
    }
    let (code, message) = match &shown.task.error {
        Some(error) => (trf(error.kind, error.side), error.message.clone()),
        None => {
            let failed = shown.task.counters.failed.objects;
            let mut text = format!(
                "{failed} objects failed; hint: see the failed-object list, then start the task \
                 again"
            );
            if let Some(first) = &shown.first_failure {
                text.push_str(&format!("; the first one is `{}`: {}", first.key, first.failure));
            }
            ("TRF.0062", text)
        }
    };
    let error_msg = message.chars().take(1024).collect();
    Some(ErrorReason { error_code: code.to_owned(), error_msg })
}

pub(crate) fn policies(windows: &[model::policy::Window]) -> Vec<BandwidthPolicy> {
    let policy = |w: &model::policy::Window| BandwidthPolicy {
        start: clock_text(w.start),
        end: clock_text(w.end),
        max_bandwidth: w.max_bandwidth,
    };
    windows.iter().map(policy).collect()
}

pub(crate) fn task_type(selection: &Selection) -> &'static str {
    match selection {
        Selection::Object(_) => "object",
        Selection::Prefix(_) => "prefix",
        Selection::Keys(_) | Selection::List(_) => "list",
        Selection::UrlList(_) => "url_list",
    }
}

/// The list file as both versions show it.
pub(crate) fn list_file(spec: &TaskSpec) -> Option<serde_json::Value> {
    let file = spec.selection.list_file()?;
    let mut shown = serde_json::json!({"obs_bucket": file.bucket, "list_file_key": file.key});
    if let Some(num) = spec.echo.get("list_file_num") {
        shown["list_file_num"] = num.clone();
    }
    Some(shown)
}

/// Rules in OMS's words.
pub(crate) fn overwrite_word(spec: &TaskSpec) -> &'static str {
    match spec.overwrite {
        Overwrite::Newer => OVERWRITE[0],
        Overwrite::Never => OVERWRITE[1],
        Overwrite::Checksum | Overwrite::Crc64 => OVERWRITE[2],
        Overwrite::Always => OVERWRITE[3],
    }
}

pub(crate) fn check_word(spec: &TaskSpec) -> &'static str {
    match spec.check {
        Check::Crc64 => CHECKS[1],
        Check::None => CHECKS[2],
        Check::Digest | Check::Size => CHECKS[0],
    }
}

pub(crate) fn policy_word(spec: &TaskSpec) -> &'static str {
    match spec.storage {
        StoragePolicy::Standard => POLICIES[0],
        StoragePolicy::Ia => POLICIES[1],
        StoragePolicy::Archive => POLICIES[2],
        StoragePolicy::DeepArchive => POLICIES[3],
        StoragePolicy::SrcStorageMapping => POLICIES[4],
    }
}

/// The time to copy from, in seconds as requests give it (clients.md F3): Terraform compares the two.
pub(crate) fn since(spec: &TaskSpec) -> i64 {
    spec.since_ms / 1000
}

/// The nodes as every reply shows them.
pub(crate) fn src_node(spec: &TaskSpec) -> SrcNode {
    SrcNode {
        bucket: spec.source.bucket.clone(),
        cloud_type: spec.source.cloud_type.clone(),
        region: spec.source.region.clone(),
        app_id: spec.source.app_id.clone(),
        object_key: spec.selection.list_file().is_none().then(|| spec.selection.entries().to_vec()),
        list_file: list_file(spec),
    }
}

pub(crate) fn dst_node(spec: &TaskSpec) -> DstNode {
    DstNode {
        bucket: spec.target.bucket.clone(),
        region: spec.target.region.clone(),
        save_prefix: spec.save_prefix.clone(),
    }
}

fn group_type(parent: &Parent) -> &'static str {
    match parent {
        Parent::None => "NORMAL_TASK",
        Parent::Sync(_) => "SYNC_TASK",
        Parent::Group(_) => "GROUP_TASK",
    }
}

fn priority_word(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "HIGH",
        Priority::Medium => "MEDIUM",
        Priority::Low => "LOW",
    }
}

/// A task as v2 shows it.
pub(crate) fn reply(shown: &TaskView, now: i64) -> Task {
    let (task, spec, n) = (&shown.task, &shown.task.spec, shown.numbers(now));
    let records = &shown.records;
    Task {
        id: task.id,
        name: task.name.clone(),
        task_type: task_type(&spec.selection).to_owned(),
        group_id: task.parent.id().to_owned(),
        group_type: group_type(&task.parent).to_owned(),
        status: status(task.state.visible()),
        description: spec.description.clone(),
        src_node: src_node(spec),
        dst_node: dst_node(spec),
        bandwidth_policy: policies(&spec.windows),
        enable_metadata_migration: spec.metadata == MetadataRule::All,
        enable_restore: spec.restore,
        enable_failed_object_recording: spec.record_failures,
        enable_requester_pays: spec.requester_pays,
        enable_kms: spec.kms,
        object_overwrite_mode: overwrite_word(spec).to_owned(),
        consistency_check: check_word(spec).to_owned(),
        dst_storage_policy: policy_word(spec).to_owned(),
        obs_system: "BUCKET".to_owned(),
        task_priority: priority_word(task.priority).to_owned(),
        migrate_since: since(spec),
        error_reason: error_reason(shown),
        failed_object_record: FailedObjectRecord {
            result: records.failed_complete,
            list_file_key: records.failed_key.clone(),
            error_code: records.failed_error.clone(),
        },
        success_record_error_reason: records.success_error.clone(),
        skip_record_error_reason: records.skip_error.clone(),
        total_num: n.total_num,
        successful_num: n.successful,
        failed_num: n.failed,
        fail_num: n.failed,
        skipped_num: n.skipped,
        total_size: n.total_size,
        complete_size: n.complete_size,
        real_size: n.real_size,
        progress: n.progress,
        migrate_speed: n.speed,
        start_time: task.started_at,
        left_time: n.left_ms,
        total_time: n.total_ms,
        is_query_over: n.precount_done,
        smn_info: smn_info(shown),
        source_cdn: shown_cdn(spec),
        whimbrel: extensions::shown_with_results(spec, &shown.settled().0, std::slice::from_ref(&task.note)),
    }
}

#[cfg(test)]
mod tests {
    use model::count::{Counters, Tally};
    use model::task::{Lifecycle, TaskId};
    use serde_json::{Value, json};
    use store::TaskRow;
    use wire::fields::Fields;

    use super::*;

    /// A task as `POST …/tasks` would have made it, as its reply shows it.
    fn shown(body: Value, counters: Counters) -> Value {
        let Value::Object(map) = body else { panic!("an object") };
        let request = crate::v2::tasks::create::read("p".into(), &Fields::root(&map)).unwrap();
        let id: TaskId = 260_111_968_184_000;
        let task = TaskRow {
            id,
            project: request.project,
            name: "a-b-1".into(),
            spec: request.spec,
            priority: request.priority,
            state: Lifecycle::NEW,
            created_at: 1,
            queued_at: 1,
            run_began_at: 0,
            started_at: None,
            ended_at: None,
            running_ms: 0,
            failed_only: false,
            precount_done: false,
            attempts: 0,
            error: None,
            note: String::new(),
            records: json!({}),
            counters,
            precounted: Tally::default(),
            parent: Parent::None,
            fence: 0,
            outcome_len: 0,
        };
        let records = serde_json::from_value(json!({})).unwrap();
        let shown = TaskView { task, live: None, records, first_failure: None, notification: None };
        serde_json::to_value(reply(&shown, 2)).unwrap()
    }

    fn body(src: Value, more: &[(&str, Value)]) -> Value {
        let keys = json!({"ak": "AK", "sk": "SK", "region": "r", "bucket": "b"});
        let (mut src_node, dst_node) = (keys.clone(), keys);
        src_node["cloud_type"] = "AWS".into();
        for (name, value) in src.as_object().unwrap() {
            src_node[name.as_str()] = value.clone();
        }
        let mut body = json!({"src_node": src_node, "dst_node": dst_node});
        for (name, value) in more {
            body[*name] = value.clone();
        }
        body
    }

    #[test]
    fn cl_f03_migrate_since_is_returned_unchanged() {
        let of = |since: i64| {
            let body = body(json!({"object_key": [""]}), &[("migrate_since", since.into())]);
            shown(body, Counters::default())["migrate_since"].as_i64().unwrap()
        };
        assert_eq!(of(1_672_671_845), 1_672_671_845);
        assert_eq!(of(0), 0);
        assert_eq!(of(1_672_671_845_000), 1_672_671_845, "milliseconds are understood");
    }

    #[test]
    fn cl_f07_task_response_has_the_fields_that_terraform_reads() {
        let failed = Tally { objects: 3, ..Tally::default() };
        let counters = Counters { failed, ..Counters::default() };
        let body_of = |num: Value| {
            let file = json!({"obs_bucket": "b", "list_file_key": "k.txt", "list_file_num": num});
            body(json!({"list_file": file}), &[("task_type", "list".into())])
        };
        let task = shown(body_of("2".into()), counters);
        assert_eq!((&task["failed_num"], &task["fail_num"]), (&json!(3), &json!(3)));
        assert_eq!(
            task["src_node"]["list_file"],
            json!({"obs_bucket": "b", "list_file_key": "k.txt", "list_file_num": "2"})
        );
        // Some write a number; who says nothing reads nothing.
        let of = |num: Value| shown(body_of(num), counters)["src_node"]["list_file"]["list_file_num"].clone();
        assert_eq!((of(2.into()), of(Value::Null)), (json!("2"), Value::Null));
    }
}
