//! What a task is to do, as accepted: everything but its secrets.

use serde::{Deserialize, Serialize};

use crate::policy::{Check, MetadataRule, Overwrite, StoragePolicy, Window};
use crate::selection::Selection;

/// One end of a migration, by the names that the client used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Vendor name as in OMS §5.1; empty at a destination.
    #[serde(default)]
    pub cloud_type: String,
    /// Region: a name of the catalogue or an inline endpoint. For the command line a place as written.
    pub region: String,
    /// Bucket.
    #[serde(default)]
    pub bucket: String,
    /// Tencent application id.
    #[serde(default)]
    pub app_id: String,
}

/// The version of the API through which a task was created; decides limits and defaults, never behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiVersion {
    /// OMS v1.
    V1,
    /// OMS v2.
    V2,
    /// The command line in the foreground.
    Cli,
}

/// A domain that the source's objects are downloaded through (OMS §2.2, SourceCdn). Its key is a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCdn {
    /// Host, with a port where it is not the usual one.
    pub domain: String,
    /// `http` or `https`.
    pub protocol: String,
    /// How its URLs are signed, in OMS's word.
    pub authentication_type: String,
}

/// Who is told when a task has ended (OMS §2.2, SmnConfig).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// The topic; its last component names a webhook of the configuration.
    pub topic_urn: String,
    /// Told of success.
    pub success: bool,
    /// Told of failure.
    pub failure: bool,
    /// `zh-cn` or `en-us`.
    pub language: String,
    /// Message template, when one is to be used.
    #[serde(default)]
    pub template: Option<String>,
}

impl Notify {
    /// The topic's own name.
    pub fn topic(&self) -> &str {
        self.topic_urn.rsplit(':').next().unwrap_or_default()
    }
}

/// A form of the per-object report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportForm {
    /// Comma-separated values (RFC 4180).
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// What goes beyond the compatible APIs: off unless asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extensions {
    /// Every version of each key is copied, oldest first, deletions included.
    pub versions: bool,
    /// Access rules of objects are copied if both stores support them.
    pub acl: bool,
    /// What the source does not have is removed from the target, below the selection.
    pub delete: bool,
    /// Removals are carried out even when they are more than half of what the target holds there.
    pub delete_most: bool,
    /// Nothing is written: only what would be is found out.
    pub dry_run: bool,
    /// Per-object reports at the target, in addition to the record lists.
    pub reports: Vec<ReportForm>,
    /// Of a sync task: interval of full scans of the bucket, minutes; 0: never.
    #[serde(rename = "sweep_minutes")]
    pub full_scan_interval_minutes: u32,
}

/// A task as accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The version of the API through which it was created.
    #[serde(rename = "face")]
    pub api_version: ApiVersion,
    /// What is selected at the source.
    pub selection: Selection,
    /// Where from.
    pub source: Location,
    /// Where to.
    pub target: Location,
    /// Put in front of each key (OMS §4.2).
    #[serde(default)]
    pub save_prefix: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// When to replace.
    #[serde(default)]
    pub overwrite: Overwrite,
    /// The weakest proof accepted.
    #[serde(default)]
    pub check: Check,
    /// Which metadata is copied.
    #[serde(default)]
    pub metadata: MetadataRule,
    /// Storage class at the target.
    #[serde(default)]
    pub storage: StoragePolicy,
    /// Only objects modified after this, milliseconds since the epoch; 0: all.
    #[serde(default)]
    pub since_ms: i64,
    /// Daily bandwidth windows.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// Write the failed-object list.
    #[serde(default)]
    pub record_failures: bool,
    /// Write the success and skip lists.
    #[serde(default)]
    pub record_outcomes: bool,
    /// The requester pays for source reads.
    #[serde(default)]
    pub requester_pays: bool,
    /// Encrypt at the target with its key service.
    #[serde(default)]
    pub kms: bool,
    /// Restore archived objects first.
    #[serde(default)]
    pub restore: bool,
    /// Download through this domain.
    #[serde(default)]
    pub cdn: Option<SourceCdn>,
    /// Tell somebody at the end.
    #[serde(default)]
    pub notify: Option<Notify>,
    /// Keep only keys that match one of these globs; empty: all.
    #[serde(default)]
    pub include: Vec<String>,
    /// Drop keys that match one of these globs.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Bytes per part of large objects; 0: chosen.
    #[serde(default)]
    pub part_size: u64,
    /// Most requests in flight; 0: adaptive.
    #[serde(default)]
    pub concurrency: u32,
    /// Bytes per second outside all windows; 0: no limit.
    #[serde(default)]
    pub bandwidth: u64,
    /// What goes beyond the compatible APIs.
    #[serde(default)]
    #[serde(rename = "beyond")]
    pub extensions: Extensions,
    /// What only one version of the API returns: v1's thread_num, both overwrite spellings, and so on.
    #[serde(default)]
    pub echo: serde_json::Map<String, serde_json::Value>,
}
