//! `GET /v1/{project_id}/objectstorage/task/{task_id}`, and the shape of a task in every v1 reply.

use axum::extract::{Path, State};
use control::Control;
use control::tasks::TaskView;
use model::task::Visible;
use serde_json::{Value, json as value};
use wire::v1::Task;

use crate::error::{ApiError, OmsVersion};
use crate::reply::{Reply, json};
use crate::v2::tasks::extras::{delivery, shown_cdn};
use crate::v2::tasks::show::{error_reason, list_file, policies, since, task_type};
use crate::v2::tasks::task_id;

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
) -> Reply {
    let id = task_id(OmsVersion::V1, &id)?;
    let shown =
        control.show(&project, id).await.map_err(|r| ApiError::from_task_error(OmsVersion::V1, &r))?;
    json(&reply(&shown, control.clock.now_ms()))
}

/// v1's codes: a pausing or retrying task still executes (oms.md §6.4).
fn status(visible: Visible) -> i32 {
    match visible {
        Visible::Waiting => 1,
        Visible::Running | Visible::Retrying | Visible::Pausing => 2,
        Visible::Paused => 3,
        Visible::Failed => 4,
        Visible::Succeeded => 5,
    }
}

pub(crate) fn reply(shown: &TaskView, now: i64) -> Task {
    let (task, spec, n) = (&shown.task, &shown.task.spec, shown.numbers(now));
    let records = &shown.records;
    let keys: Vec<String> = spec.selection.entries().iter().map(|e| format!("/{e}")).collect();
    let folder = spec
        .echo
        .get("object_key")
        .and_then(Value::as_str)
        .map_or_else(|| format!("/{}", spec.save_prefix), str::to_owned);
    let error = error_reason(shown)
        .map_or(value!(""), |e| value!({"error_code": e.error_code, "error_msg": e.error_msg}));
    let list = list_file(spec).unwrap_or_else(|| value!(""));
    let record = value!({
        "result": records.failed_complete, "list_file_key": records.failed_key, "errorCode": records.failed_error
    });
    Task {
        id: task.id,
        name: task.name.clone(),
        task_type: task_type(&spec.selection).to_owned(),
        status: status(task.state.visible()),
        description: spec.description.clone(),
        src_node: value!({"region": spec.source.region, "bucket": spec.source.bucket,
            "cloud_type": spec.source.cloud_type, "object_key": keys, "list_file": list}),
        dst_node: value!({"region": spec.target.region, "bucket": spec.target.bucket, "object_key": folder,
            "cloud_type": "HEC"}),
        thread_num: spec.echo.get("thread_num").and_then(Value::as_i64).unwrap_or(10),
        enableKMS: spec.kms,
        auto_restore: spec.restore,
        bandwidth_policy: policies(&spec.windows),
        source_cdn: shown_cdn(spec),
        smnInfo: delivery(shown.notification.as_ref()).map(|(result, code, topic)| {
            value!({"notifyResult": result, "notifyErrorMessage": code.replace("OMS", "S3M"), "topicName": topic})
        }),
        migrate_since: since(spec),
        enable_failed_object_recording: spec.record_failures,
        progress: n.progress,
        migrate_speed: n.speed,
        total_size: n.total_size,
        complete_size: n.complete_size,
        real_size: n.real_size,
        start_time: task.started_at,
        left_time: n.left_ms,
        total_time: n.total_ms,
        total_num: n.total_num,
        success_num: n.successful,
        fail_num: n.failed,
        skip_num: n.skipped,
        is_query_over: n.precount_done,
        error_reason: error,
        failed_object_record: record.to_string(),
    }
}
