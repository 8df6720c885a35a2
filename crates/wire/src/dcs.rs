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
    /// Status word.
    pub status: String,
    /// Empty when all is well.
    pub error: String,
}

/// A task that waits to be configured.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OnlineMigrationCreated {
    /// The task's id, despite the name.
    pub instance_id: String,
    /// Job that made it.
    pub job_id: String,
}

/// A page of tasks.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationList {
    /// How many match in all.
    pub count: u64,
    /// The page.
    pub migration_tasks: Vec<MigrationListed>,
}

/// A task in a list.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationListed {
    /// Task id.
    pub task_id: String,
    /// Name.
    pub task_name: String,
    /// Status word.
    pub status: String,
    /// `backupfile_import` or `online_migration`.
    pub migration_type: String,
    /// `full_amount_migration` or `incremental_migration`; null before it is configured.
    pub migration_method: Option<String>,
    /// Address of this service as the ends see it.
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
    /// Free text.
    pub description: String,
    /// Instance status word.
    pub source_instance_status: String,
    /// Instance status word.
    pub target_instance_status: String,
    /// Empty here.
    pub source_instance_subnet_id: String,
    /// Empty here.
    pub target_instance_subnet_id: String,
    /// Empty here.
    pub source_instance_spec_code: String,
    /// Empty here.
    pub target_instance_spec_code: String,
    /// Why it failed.
    pub error_message: Option<String>,
    /// When an import was over.
    pub released_at: Option<String>,
    /// Version of this service.
    pub version: String,
    /// `auto` or `manual`.
    pub resume_mode: String,
    /// Empty here.
    pub supported_features: Vec<String>,
}

/// An end of a task.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationInstance {
    /// As given, and only if given.
    pub addrs: Option<String>,
    /// As given, and only if given.
    pub id: Option<String>,
    /// Name of the registered instance.
    pub name: Option<String>,
    /// Addresses without ports, separated by commas.
    pub ip: Option<String>,
    /// Port.
    pub port: Option<String>,
    /// As given.
    pub proxy_multi_db: bool,
    /// Never.
    pub password: Option<String>,
    /// State of this side.
    pub task_status: String,
    /// Database.
    pub db: Option<String>,
}

/// A file of a backup.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationFile {
    /// Key in the bucket.
    pub file_name: String,
    /// As given.
    pub size: Option<String>,
    /// As given.
    pub update_at: Option<String>,
}

/// A backup by its id.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationBackupRecord {
    /// Its id.
    pub backup_id: String,
}

/// What is imported.
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
    /// The same once more, as one client reads it.
    pub backup_record: Option<MigrationBackupRecord>,
}

/// A task (MigrationTaskDetail).
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationShown {
    /// Task id.
    pub task_id: String,
    /// Name.
    pub task_name: String,
    /// Free text.
    pub description: String,
    /// Status word.
    pub status: String,
    /// `backupfile_import` or `online_migration`.
    pub migration_type: String,
    /// `full_amount_migration` or `incremental_migration`.
    pub migration_method: Option<String>,
    /// Address of this service as the ends see it.
    pub ecs_tenant_private_ip: String,
    /// What is imported.
    pub backup_files: Option<MigrationBackup>,
    /// `vpc` or `vpn`.
    pub network_type: String,
    /// Where from.
    pub source_instance: Option<MigrationInstance>,
    /// Where to.
    pub target_instance: Option<MigrationInstance>,
    /// ISO 8601.
    pub created_at: String,
    /// When it reached what it was to reach.
    pub updated_at: Option<String>,
    /// When an import was over.
    pub released_at: Option<String>,
    /// Version of this service.
    pub version: String,
    /// `auto` or `manual`.
    pub resume_mode: String,
    /// Empty here.
    pub supported_features: Vec<String>,
    /// As given.
    pub tenant_vpc_id: Option<String>,
    /// As given.
    pub tenant_subnet_id: Option<String>,
    /// As given.
    pub tenant_security_group_id: Option<String>,
    /// As configured.
    pub bandwidth_limit_mb: Option<String>,
    /// Where a cut-over is.
    pub task_status: Option<String>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// What goes beyond the compatible API, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whimbrel: Option<serde_json::Value>,
}

/// Ids that were handled.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationsDeleted {
    /// As requested, in that order.
    pub task_id_list: Vec<String>,
}

/// What became of each of several tasks.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationResults {
    /// In the order of the request.
    pub migration_tasks: Vec<MigrationResult>,
}

/// What became of one of them.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationResult {
    /// `success` or `failed`.
    pub result: String,
    /// Task id.
    pub task_id: String,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_msg: Option<String>,
    /// Its code.
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
    /// It is at work.
    pub is_migrating: bool,
}

/// A page of a log.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationLogs {
    /// How many lines match in all.
    pub log_num: u64,
    /// The page.
    pub migration_logs: Vec<MigrationLog>,
}

/// A line of a log.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MigrationLog {
    /// ISO 8601.
    pub created_at: String,
    /// `INFO`, `WARN` or `ERROR`.
    pub log_level: String,
    /// The sentence.
    pub message: String,
    /// Stable code.
    pub log_code: String,
    /// Variable parts of the sentence.
    pub keyword: Vec<String>,
}

/// A background job.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Job {
    /// Its id.
    pub job_id: String,
    /// What it does.
    pub job_type: String,
    /// `SUCCESS`: here it is done when it is known.
    pub status: String,
    /// Milliseconds since the epoch, as text.
    pub begin_time: String,
    /// The same of its end.
    pub end_time: String,
    /// Why it failed.
    pub fail_reason: Option<String>,
}

/// A page of instances.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InstanceList {
    /// How many match in all.
    pub instance_num: u64,
    /// The page.
    pub instances: Vec<InstanceListed>,
}

/// A registered instance in a list; what only a cloud can fill is empty.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct InstanceListed {
    /// UUID.
    pub instance_id: String,
    /// Name.
    pub name: String,
    /// `Redis`.
    pub engine: String,
    /// Major and minor.
    pub engine_version: String,
    /// `RUNNING` or `ERROR`.
    pub status: String,
    /// `normal`.
    pub sub_status: String,
    /// Addresses, separated by commas.
    pub ip: String,
    /// Port; an integer here.
    pub port: u16,
    /// Host name, where it has one.
    pub domain_name: Option<String>,
    /// None here.
    pub readonly_domain_name: Option<String>,
    /// `true` or `false`, as text.
    pub no_password_access: String,
    /// User name.
    pub access_user: String,
    /// GiB.
    pub capacity: u64,
    /// Fraction of a GiB.
    pub capacity_minor: String,
    /// MiB.
    pub max_memory: u64,
    /// MiB.
    pub used_memory: u64,
    /// Empty here.
    pub spec_code: String,
    /// Empty here.
    pub vpc_id: String,
    /// Empty here.
    pub vpc_name: String,
    /// Empty here.
    pub subnet_id: String,
    /// Empty here.
    pub security_group_id: String,
    /// TLS.
    pub enable_ssl: bool,
    /// False here.
    pub enable_publicip: bool,
    /// None here.
    pub publicip_id: Option<String>,
    /// None here.
    pub publicip_address: Option<String>,
    /// 0.
    pub charging_mode: u64,
    /// None here.
    pub created_at: Option<String>,
    /// None here.
    pub updated_at: Option<String>,
    /// None here.
    pub description: Option<String>,
    /// False here.
    pub service_upgrade: bool,
    /// Empty here.
    pub az_codes: Vec<String>,
    /// Empty here.
    pub tags: Vec<String>,
    /// What it can.
    pub features: BTreeMap<String, bool>,
}

/// A registered instance.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct InstanceShown {
    /// What a list has.
    #[serde(flatten)]
    pub listed: InstanceListed,
    /// `single` or `cluster`.
    pub cache_mode: String,
    /// Databases.
    pub db_number: u32,
    /// 1 here.
    pub replica_count: u32,
    /// Masters.
    pub sharding_count: u32,
    /// Masters of a cluster.
    pub backend_addrs: Option<String>,
    /// `generic`.
    pub product_type: String,
    /// `DRAM`.
    pub storage_type: String,
    /// Empty here.
    pub available_zones: Vec<String>,
    /// False here.
    pub transparent_client_ip_enable: bool,
}

/// A backup that begins.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BackupBegun {
    /// Its id.
    pub backup_id: String,
}

/// A page of backups.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BackupList {
    /// How many match in all.
    pub total_num: u64,
    /// The page.
    pub backup_record_response: Vec<BackupShown>,
}

/// A backup.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BackupShown {
    /// Its id.
    pub backup_id: String,
    /// Its name.
    pub backup_name: String,
    /// Of which instance.
    pub instance_id: String,
    /// Empty here.
    pub period: String,
    /// Bytes.
    pub size: u64,
    /// `manual`.
    pub backup_type: String,
    /// ISO 8601.
    pub created_at: String,
    /// ISO 8601.
    pub updated_at: String,
    /// ISO 8601.
    pub execution_at: String,
    /// Percent.
    pub progress: String,
    /// Why it failed.
    pub error_code: Option<String>,
    /// Free text.
    pub remark: String,
    /// Status word.
    pub status: String,
    /// `TRUE` or `FALSE`.
    pub is_support_restore: String,
    /// `rdb`.
    pub backup_format: String,
}
