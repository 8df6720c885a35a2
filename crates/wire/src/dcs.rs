//! Replies of the DCS migration API (dcs-migration.md §2). Types are exactly as declared: what looks like a number and is
//! declared as a string is a string.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// A task that was created or configured.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationStarted {
    /// Task id.
    pub id: String,
    /// Task name.
    pub name: String,
    /// Status.
    pub status: String,
    /// Empty if there is no error.
    pub error: String,
}

/// A task that waits to be configured.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OnlineMigrationCreated {
    /// Task id, despite the name.
    pub instance_id: String,
    /// Id of the job that created the task.
    pub job_id: String,
}

/// A page of tasks.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationList {
    /// Number of entries of all pages.
    pub count: u64,
    /// Entries of this page.
    pub migration_tasks: Vec<MigrationListed>,
}

/// A task in a list.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationListed {
    /// Task id.
    pub task_id: String,
    /// Name.
    pub task_name: String,
    /// Status.
    pub status: String,
    /// `backupfile_import` or `online_migration`.
    pub migration_type: String,
    /// `full_amount_migration` or `incremental_migration`; null before it is configured.
    pub migration_method: Option<String>,
    /// Address of this service, as seen by source and target.
    pub ecs_tenant_private_ip: String,
    /// Source addresses, bucket or backup id.
    pub data_source: String,
    /// Name of a registered source.
    pub source_instance_name: String,
    /// Id of a registered source.
    pub source_instance_id: String,
    /// Target addresses.
    pub target_instance_addrs: String,
    /// Name of a registered target.
    pub target_instance_name: String,
    /// Id of a registered target.
    pub target_instance_id: String,
    /// ISO 8601.
    pub created_at: String,
    /// Description.
    pub description: String,
    /// Status of the instance.
    pub source_instance_status: String,
    /// Status of the instance.
    pub target_instance_status: String,
    /// Always empty.
    pub source_instance_subnet_id: String,
    /// Always empty.
    pub target_instance_subnet_id: String,
    /// Always empty.
    pub source_instance_spec_code: String,
    /// Always empty.
    pub target_instance_spec_code: String,
    /// Reason of the failure.
    pub error_message: Option<String>,
    /// Time at which an import ended.
    pub released_at: Option<String>,
    /// Version of this service.
    pub version: String,
    /// `auto` or `manual`.
    pub resume_mode: String,
    /// Always empty.
    pub supported_features: Vec<String>,
}

/// An end of a task.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationInstance {
    /// As in the request; else null.
    pub addrs: Option<String>,
    /// As in the request; else null.
    pub id: Option<String>,
    /// Name of the registered instance.
    pub name: Option<String>,
    /// Addresses without ports, separated by commas.
    pub ip: Option<String>,
    /// Port.
    pub port: Option<String>,
    /// As in the request.
    pub proxy_multi_db: bool,
    /// Never returned.
    pub password: Option<String>,
    /// Status of this side.
    pub task_status: String,
    /// Database.
    pub db: Option<String>,
}

/// A file of a backup.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationFile {
    /// Key in the bucket.
    pub file_name: String,
    /// As in the request.
    pub size: Option<String>,
    /// As in the request.
    pub update_at: Option<String>,
}

/// A backup by its id.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationBackupRecord {
    /// Id of the backup.
    pub backup_id: String,
}

/// Backup files of an import.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationBackup {
    /// `self_build_obs` or `backup_record`.
    pub file_source: String,
    /// Bucket.
    pub bucket_name: Option<String>,
    /// Files.
    pub files: Vec<MigrationFile>,
    /// Backup id.
    pub backup_id: Option<String>,
    /// Equal to `backup_id`; read by one client.
    pub backup_record: Option<MigrationBackupRecord>,
}

/// A task (MigrationTaskDetail).
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationShown {
    /// Task id.
    pub task_id: String,
    /// Name.
    pub task_name: String,
    /// Description.
    pub description: String,
    /// Status.
    pub status: String,
    /// `backupfile_import` or `online_migration`.
    pub migration_type: String,
    /// `full_amount_migration` or `incremental_migration`.
    pub migration_method: Option<String>,
    /// Address of this service, as seen by source and target.
    pub ecs_tenant_private_ip: String,
    /// Backup files of an import.
    pub backup_files: Option<MigrationBackup>,
    /// `vpc` or `vpn`.
    pub network_type: String,
    /// Source.
    pub source_instance: Option<MigrationInstance>,
    /// Target.
    pub target_instance: Option<MigrationInstance>,
    /// ISO 8601.
    pub created_at: String,
    /// Time at which the migration reached its goal (caught up, or finished).
    pub updated_at: Option<String>,
    /// Time at which an import ended.
    pub released_at: Option<String>,
    /// Version of this service.
    pub version: String,
    /// `auto` or `manual`.
    pub resume_mode: String,
    /// Always empty.
    pub supported_features: Vec<String>,
    /// As in the request.
    pub tenant_vpc_id: Option<String>,
    /// As in the request.
    pub tenant_subnet_id: Option<String>,
    /// As in the request.
    pub tenant_security_group_id: Option<String>,
    /// As configured.
    pub bandwidth_limit_mb: Option<String>,
    /// State of the cut-over.
    pub task_status: Option<String>,
    /// Reason of the failure.
    pub error_message: Option<String>,
    /// Extensions, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whimbrel: Option<serde_json::Value>,
}

/// Ids that were handled.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationsDeleted {
    /// Ids in the order of the request.
    pub task_id_list: Vec<String>,
}

/// Result for each task.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationResults {
    /// In the order of the request.
    pub migration_tasks: Vec<MigrationResult>,
}

/// Result for one task.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationResult {
    /// `success` or `failed`.
    pub result: String,
    /// Task id.
    pub task_id: String,
    /// Reason of the rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_msg: Option<String>,
    /// Code of the rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

/// Numbers of a task; all of them are strings.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationNumbers {
    /// Percent of the full phase.
    pub full_migration_progress: String,
    /// Bytes of the stream that the target has not confirmed.
    pub offset: String,
    /// Keys at the source.
    pub source_dbsize: String,
    /// Keys at the target.
    pub target_dbsize: String,
    /// KiB per second into the target.
    pub target_input_kbps: String,
    /// Commands per second at the target.
    pub target_ops: String,
    /// True while the migration runs.
    pub is_migrating: bool,
}

/// A page of a log.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationLogs {
    /// Number of lines of all pages.
    pub log_num: u64,
    /// Entries of this page.
    pub migration_logs: Vec<MigrationLog>,
}

/// A line of a log.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationLog {
    /// ISO 8601.
    pub created_at: String,
    /// `INFO`, `WARN` or `ERROR`.
    pub log_level: String,
    /// Message.
    pub message: String,
    /// Stable code.
    pub log_code: String,
    /// Variable parts of the message.
    pub keyword: Vec<String>,
}

/// A background job.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Job {
    /// Id of the job.
    pub job_id: String,
    /// Type of the job.
    pub job_type: String,
    /// Always `SUCCESS`.
    pub status: String,
    /// Start, milliseconds since the epoch, as text.
    pub begin_time: String,
    /// End, milliseconds since the epoch, as text.
    pub end_time: String,
    /// Reason of the failure.
    pub fail_reason: Option<String>,
}

/// A page of instances.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InstanceList {
    /// Number of entries of all pages.
    pub instance_num: u64,
    /// Entries of this page.
    pub instances: Vec<InstanceListed>,
}

/// A registered instance in a list; what only a cloud can fill is empty.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct InstanceListed {
    /// UUID.
    pub instance_id: String,
    /// Name.
    pub name: String,
    /// Always `Redis`.
    pub engine: String,
    /// Version, major and minor.
    pub engine_version: String,
    /// `RUNNING` or `ERROR`.
    pub status: String,
    /// Always `normal`.
    pub sub_status: String,
    /// Addresses, separated by commas.
    pub ip: String,
    /// Port, an integer.
    pub port: u16,
    /// Host name; null if it has none.
    pub domain_name: Option<String>,
    /// Always null.
    pub readonly_domain_name: Option<String>,
    /// `true` or `false`, as text.
    pub no_password_access: String,
    /// User name.
    pub access_user: String,
    /// Capacity, GiB.
    pub capacity: u64,
    /// Capacity as text, with the fraction of a GiB.
    pub capacity_minor: String,
    /// MiB.
    pub max_memory: u64,
    /// MiB.
    pub used_memory: u64,
    /// Always empty.
    pub spec_code: String,
    /// Always empty.
    pub vpc_id: String,
    /// Always empty.
    pub vpc_name: String,
    /// Always empty.
    pub subnet_id: String,
    /// Always empty.
    pub security_group_id: String,
    /// True if the instance uses TLS.
    pub enable_ssl: bool,
    /// Always false.
    pub enable_publicip: bool,
    /// Always null.
    pub publicip_id: Option<String>,
    /// Always null.
    pub publicip_address: Option<String>,
    /// Always 0.
    pub charging_mode: u64,
    /// Always null.
    pub created_at: Option<String>,
    /// Always null.
    pub updated_at: Option<String>,
    /// Always null.
    pub description: Option<String>,
    /// Always false.
    pub service_upgrade: bool,
    /// Always empty.
    pub az_codes: Vec<String>,
    /// Always empty.
    pub tags: Vec<String>,
    /// Supported features.
    pub features: BTreeMap<String, bool>,
}

/// A registered instance.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct InstanceShown {
    /// Fields of the list.
    #[serde(flatten)]
    pub listed: InstanceListed,
    /// `single` or `cluster`.
    pub cache_mode: String,
    /// Number of databases.
    pub db_number: u32,
    /// Always 1.
    pub replica_count: u32,
    /// Number of masters.
    pub sharding_count: u32,
    /// Addresses of the masters of a cluster.
    pub backend_addrs: Option<String>,
    /// Always `generic`.
    pub product_type: String,
    /// Always `DRAM`.
    pub storage_type: String,
    /// Always empty.
    pub available_zones: Vec<String>,
    /// Always false.
    pub transparent_client_ip_enable: bool,
}

/// Response to the creation of a backup.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BackupBegun {
    /// Id of the backup.
    pub backup_id: String,
}

/// A page of backups.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BackupList {
    /// Number of entries of all pages.
    pub total_num: u64,
    /// Entries of this page.
    pub backup_record_response: Vec<BackupShown>,
}

/// A backup.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BackupShown {
    /// Id of the backup.
    pub backup_id: String,
    /// Name of the backup.
    pub backup_name: String,
    /// Id of the instance.
    pub instance_id: String,
    /// Always empty.
    pub period: String,
    /// Size, bytes.
    pub size: u64,
    /// Always `manual`.
    pub backup_type: String,
    /// ISO 8601.
    pub created_at: String,
    /// ISO 8601.
    pub updated_at: String,
    /// ISO 8601.
    pub execution_at: String,
    /// Progress, percent.
    pub progress: String,
    /// Reason of the failure.
    pub error_code: Option<String>,
    /// Description.
    pub remark: String,
    /// Status.
    pub status: String,
    /// `TRUE` or `FALSE`.
    pub is_support_restore: String,
    /// Always `rdb`.
    pub backup_format: String,
}
