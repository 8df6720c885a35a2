//! Replies of OMS v1 (oms.md §6).

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::v2::BandwidthPolicy;

/// A task.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[expect(missing_docs, non_snake_case, reason = "the fields are those of oms.md §6.4 by name")]
pub struct Task {
    pub id: i64,
    pub name: String,
    pub task_type: String,
    pub status: i32,
    pub description: String,
    pub src_node: Value,
    pub dst_node: Value,
    pub thread_num: i64,
    pub enableKMS: bool,
    pub auto_restore: bool,
    pub bandwidth_policy: Vec<BandwidthPolicy>,
    pub source_cdn: Option<Value>,
    pub smnInfo: Option<Value>,
    pub migrate_since: i64,
    pub enable_failed_object_recording: bool,
    pub progress: f64,
    pub migrate_speed: u64,
    pub total_size: u64,
    pub complete_size: u64,
    pub real_size: u64,
    pub start_time: Option<i64>,
    pub left_time: i64,
    pub total_time: i64,
    pub total_num: u64,
    pub success_num: u64,
    pub fail_num: u64,
    pub skip_num: u64,
    pub is_query_over: bool,
    pub error_reason: Value,
    pub failed_object_record: String,
}
