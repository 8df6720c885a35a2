//! Replies of OMS v2 (oms.md §2). Types are exactly as declared: numbers are numbers, and objects that are not
//! there are null.

use schemars::JsonSchema;
use serde::Serialize;

/// A bandwidth window.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BandwidthPolicy {
    /// `hh:mm`
    pub start: String,
    /// `hh:mm`
    pub end: String,
    /// Bytes per second.
    pub max_bandwidth: u64,
}

/// Why a task failed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorReason {
    /// `TRF.nnnn`
    pub error_code: String,
    /// Message, at most 1024 characters.
    pub error_msg: String,
}

/// The failed-object list.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct FailedObjectRecord {
    /// True if a complete list exists.
    pub result: Option<bool>,
    /// Key of the list.
    pub list_file_key: Option<String>,
    /// Code of why the list could not be stored.
    pub error_code: Option<String>,
}

/// Source of a task; never a secret.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SrcNode {
    /// Bucket.
    pub bucket: String,
    /// Vendor.
    pub cloud_type: String,
    /// Region as in the request.
    pub region: String,
    /// Application id; Tencent only.
    pub app_id: String,
    /// Keys or prefixes.
    pub object_key: Option<Vec<String>>,
    /// List file.
    pub list_file: Option<serde_json::Value>,
}

/// Destination of a task; never a secret.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DstNode {
    /// Bucket.
    pub bucket: String,
    /// Region as in the request.
    pub region: String,
    /// Prefix that is added to each key.
    pub save_prefix: String,
}

/// A task.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "the fields are those of oms.md §2.3, TaskResp, by name")]
pub struct Task {
    pub id: i64,
    pub name: String,
    pub task_type: String,
    pub group_id: String,
    pub group_type: String,
    pub status: i32,
    pub description: String,
    pub src_node: SrcNode,
    pub dst_node: DstNode,
    pub bandwidth_policy: Vec<BandwidthPolicy>,
    pub enable_metadata_migration: bool,
    pub enable_restore: bool,
    pub enable_failed_object_recording: bool,
    pub enable_requester_pays: bool,
    pub enable_kms: bool,
    pub object_overwrite_mode: String,
    pub consistency_check: String,
    pub dst_storage_policy: String,
    pub obs_system: String,
    pub task_priority: String,
    pub migrate_since: i64,
    pub error_reason: Option<ErrorReason>,
    pub failed_object_record: FailedObjectRecord,
    pub success_record_error_reason: Option<String>,
    pub skip_record_error_reason: Option<String>,
    pub total_num: u64,
    pub successful_num: u64,
    pub failed_num: u64,
    /// Equal to `failed_num`; read by the Terraform provider.
    pub fail_num: u64,
    pub skipped_num: u64,
    pub total_size: u64,
    pub complete_size: u64,
    pub real_size: u64,
    pub progress: f64,
    pub migrate_speed: u64,
    pub start_time: Option<i64>,
    pub left_time: i64,
    pub total_time: i64,
    pub is_query_over: bool,
    pub smn_info: Option<serde_json::Value>,
    pub source_cdn: Option<serde_json::Value>,
    pub whimbrel: serde_json::Value,
}

/// A page of tasks.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TaskList {
    /// Entries of this page.
    pub tasks: Vec<Task>,
    /// Number of entries of all pages.
    pub count: u64,
}

/// Response of a create request.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Created {
    /// Id of the task.
    pub id: i64,
    /// Unique name of the task.
    pub task_name: String,
}

/// A link of a version.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Link {
    /// URL.
    pub href: String,
    /// Always `self`.
    pub rel: &'static str,
}

/// An API version.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Version {
    /// `v1` or `v2`.
    pub id: &'static str,
    /// Links.
    pub links: Vec<Link>,
    /// `CURRENT` or `SUPPORTED`.
    pub status: &'static str,
    /// `yyyy-mm-ddThh:mm:ssZ`
    pub updated: &'static str,
}

/// A region that can be named.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Region {
    /// Vendor.
    pub cloud_type: String,
    /// Value for `region`.
    pub value: String,
    /// Display name.
    pub description: String,
}

/// The regions of one vendor.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RegionGroup {
    /// Vendor.
    pub service_name: String,
    /// Regions of the vendor.
    pub region_list: Vec<Region>,
}

/// Where a bucket is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BucketRegion {
    /// Value for `region`.
    pub id: String,
    /// Display name.
    pub name: String,
    /// True if tasks may use the region.
    pub support: bool,
}

/// Whether any key begins with a prefix.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PrefixFound {
    /// True if a key has this prefix.
    pub exist: bool,
}

/// An object or folder of one level.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BucketRecord {
    /// Full key; folders end in `/`.
    pub name: String,
    /// Bytes as text; `--` for folders.
    pub size: String,
}

/// A page of one level of a bucket.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BucketObjects {
    /// True if another page follows.
    pub next_page: bool,
    /// Value for `behind_filename` of the next request.
    pub next_marker: String,
    /// Entries of this page.
    pub records: Vec<BucketRecord>,
}

/// A task group.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "the fields are those of oms.md §2.4, TaskGroupResp, by name")]
pub struct TaskGroup {
    pub group_id: String,
    pub status: i32,
    pub error_reason: Option<ErrorReason>,
    pub src_node: SrcNode,
    pub dst_node: DstNode,
    pub description: String,
    pub enable_metadata_migration: bool,
    pub enable_failed_object_recording: bool,
    pub enable_restore: bool,
    pub enable_kms: bool,
    pub enable_requester_pays: bool,
    pub task_type: String,
    pub bandwidth_policy: Vec<BandwidthPolicy>,
    pub smn_config: Option<serde_json::Value>,
    pub source_cdn: Option<serde_json::Value>,
    pub migrate_since: i64,
    pub migrate_speed: u64,
    pub total_time: i64,
    pub start_time: i64,
    pub total_task_num: u64,
    pub create_task_num: u64,
    pub failed_task_num: u64,
    pub complete_task_num: u64,
    pub paused_task_num: u64,
    pub executing_task_num: u64,
    pub waiting_task_num: u64,
    pub total_num: u64,
    pub create_complete_num: u64,
    pub success_num: u64,
    pub fail_num: u64,
    pub skip_num: u64,
    pub total_size: u64,
    pub create_complete_size: u64,
    pub complete_size: u64,
    pub failed_object_record: FailedObjectRecord,
    pub object_overwrite_mode: String,
    pub dst_storage_policy: String,
    pub consistency_check: String,
    pub obs_system: String,
    pub whimbrel: serde_json::Value,
}

/// A sync task; `month` only where one task is shown.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "the fields are those of oms.md §2.5, SyncTaskInfo, by name")]
pub struct SyncTask {
    pub sync_task_id: String,
    pub src_cloud_type: String,
    pub src_region: String,
    pub src_bucket: String,
    pub create_time: i64,
    pub last_start_time: i64,
    pub dst_bucket: String,
    pub dst_region: String,
    pub description: String,
    pub status: String,
    pub enable_metadata_migration: bool,
    pub enable_restore: bool,
    pub enable_kms: bool,
    pub app_id: String,
    pub object_overwrite_mode: String,
    pub dst_storage_policy: String,
    pub consistency_check: String,
    pub source_cdn: Option<serde_json::Value>,
    pub whimbrel: serde_json::Value,
    #[serde(flatten)]
    pub month: Option<SyncMonth>,
}

/// Sums of one calendar month.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "the fields are those of oms.md §2.5, ShowSyncTaskResponse, by name")]
pub struct SyncMonth {
    pub monthly_acceptance_request: u64,
    pub monthly_success_object: u64,
    pub monthly_failure_object: u64,
    pub monthly_skip_object: u64,
    pub monthly_size: u64,
}

/// Response to the creation of a group.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GroupCreated {
    /// Id, a UUID.
    pub group_id: String,
}

/// A page of groups.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TaskGroupList {
    /// Entries of this page.
    pub taskgroups: Vec<TaskGroup>,
    /// Number of entries of all pages.
    pub count: u64,
}

/// Response to the creation of a sync task.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SyncCreated {
    /// Id, a UUID.
    pub sync_task_id: String,
}

/// A page of sync tasks.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SyncTaskList {
    /// Entries of this page.
    pub tasks: Vec<SyncTask>,
    /// Number of entries of all pages.
    pub count: u64,
}

/// Counts of a sync task over time.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SyncStatistic {
    /// Id of the sync task.
    pub sync_task_id: String,
    /// Width of a point: `FIVE_MINUTES` or `ONE_HOUR`.
    pub statistic_time_type: &'static str,
    /// One entry for each requested kind.
    pub statistic_datas: Vec<StatisticData>,
}

/// One kind of count.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct StatisticData {
    /// `REQUEST`, `SUCCESS`, `FAILURE`, `SKIP` or `SIZE`.
    pub data_type: &'static str,
    /// Points, oldest first, without empty ones.
    pub data: Vec<StatisticPoint>,
}

/// Count in one interval.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct StatisticPoint {
    /// Start of the interval, milliseconds since the epoch.
    pub time_stamp: i64,
    /// Count.
    pub statistic_num: u64,
}

/// Result of a check of a CDN domain.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CdnInfo {
    /// True if the domain's responses are those of the source's vendor.
    pub is_same_cloud_type: bool,
    /// True if at least one key was downloaded and none was refused.
    pub is_download_available: bool,
    /// Result for each key.
    pub checked_keys: Vec<CheckedKey>,
}

/// One key at the bucket and through the domain.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CheckedKey {
    /// Key.
    pub key: String,
    /// True if both ETags are equal.
    pub is_etag_matching: bool,
    /// True if bucket and domain have the object.
    pub is_object_existing: bool,
}

/// The versions of the API.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct VersionList {
    /// Supported versions.
    pub versions: Vec<Version>,
}
