//! The description of the API, made of what it is made of: the list of routes, what readers of bodies ask for, and
//! the types of replies.
//!
//! Decision: ADR 0010, `docs/adr/0010-the-api-describes-itself.md`.

use std::collections::BTreeMap;

use control::TaskError;
use model::spec::TaskSpec;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};
use wire::fields::{FieldKind, Fields, Recorder};
use wire::{dcs, v1 as w1, v2 as w2};

use crate::router::OPERATIONS;
use crate::v1;
use crate::v2::objectstorage::buckets;
use crate::v2::{instances, migration, migration_task, migration_tasks, sync_tasks, taskgroups, tasks};

/// What it makes of a body does not matter here, only what it asks for.
type Reader = fn(&Fields<'_>);
/// What some fields hold in one run of a reader.
type Answers = &'static [(&'static str, &'static str)];

/// Runs that together take every way through the readers of tasks.
const TASKS: &[Answers] = &[
    &[("task_type", "object"), ("src_node.cloud_type", "AWS")],
    &[("task_type", "list"), ("src_node.cloud_type", "AWS")],
    &[("task_type", "url_list"), ("src_node.cloud_type", "URLSource")],
    &[
        ("src_node.cloud_type", "Azure"),
        ("src_node.connection_string", "x"),
        ("dst_node.connection_string", "x"),
    ],
    &[("src_node.cloud_type", "Google"), ("src_node.json_auth_file", "x"), ("dst_node.json_auth_file", "x")],
    &[("source_cdn.authentication_type", "NONE"), ("source_cdn.protocol", "https")],
];
const GROUPS: &[Answers] = &[
    &[("task_type", "PREFIX"), ("src_node.cloud_type", "AWS")],
    &[("task_type", "LIST"), ("src_node.cloud_type", "AWS")],
    &[("task_type", "URL_LIST"), ("src_node.cloud_type", "URLSource")],
    &[
        ("src_node.cloud_type", "Azure"),
        ("src_node.connection_string", "x"),
        ("dst_node.connection_string", "x"),
    ],
    &[("src_node.cloud_type", "Google"), ("src_node.json_auth_file", "x"), ("dst_node.json_auth_file", "x")],
];
const STARTS: &[Answers] = &[
    &[],
    &[("connection_string", "x"), ("dst_connection_string", "x")],
    &[("json_auth_file", "x"), ("dst_json_auth_file", "x")],
];
const ACCOUNTS: &[Answers] = &[&[], &[("source_cdn.authentication_type", "NONE")]];
const ONCE: &[Answers] = &[&[]];
const ID: &str = "00000000-0000-4000-8000-000000000000";
const MIGRATIONS: &[Answers] = &[
    &[
        ("migration_type", "backupfile_import"),
        ("target_instance.id", ID),
        ("backup_files.file_source", "self_build_obs"),
    ],
    &[
        ("migration_type", "backupfile_import"),
        ("target_instance.id", ID),
        ("backup_files.file_source", "backup_record"),
        ("backup_files.backup_id", ID),
    ],
    &[
        ("migration_type", "online_migration"),
        ("target_instance.id", ID),
        ("source_instance.addrs", "127.0.0.1:6379"),
    ],
];
const CONFIGURED: &[Answers] =
    &[&[("bandwidth_limit_mb", "1"), ("source_instance.id", ID), ("target_instance.id", ID)]];

/// A task whose start is described: every credential is asked for.
fn spec() -> Result<TaskSpec, TaskError> {
    let nothing = Map::new();
    tasks::create::rules(&Fields::root(&nothing))
}

/// The reader of an operation's body, and the runs that show all that it asks for.
fn reader(operation: &str) -> Option<(Reader, &'static [Answers])> {
    let all = |answers| answers;
    Some(match operation {
        "CreateTask" => (|f| drop(tasks::create::read(String::new(), f)), all(TASKS)),
        "StartTask" => (|f| drop(spec().map(|s| tasks::start::asked(f, &s))), STARTS),
        "UpdateBandwidthPolicy" | "UpdateTaskGroup" => (|f| drop(tasks::windows(f)), ONCE),
        "BatchUpdateTasks" => (|f| drop(tasks::batch_update::read(f)), ONCE),
        "CreateTaskGroup" => (|f| drop(taskgroups::create::read(f)), GROUPS),
        "StartTaskGroup" => (|f| drop(taskgroups::start::read(f)), STARTS),
        "RetryTaskGroup" => (|f| drop(taskgroups::retry::asked(f)), STARTS),
        "CreateSyncTask" => (|f| drop(sync_tasks::create::read(f)), ONCE),
        "StartSyncTask" => (|f| drop(spec().map(|s| sync_tasks::start::read(f, &s))), ONCE),
        "CreateSyncEvents" => (|f| drop(sync_tasks::events::keys(f)), ONCE),
        "ShowBucketList" => (|f| drop(buckets::account(f)), ONCE),
        "ShowBucketObjects" => (|f| drop(buckets::objects::read(f)), ONCE),
        "ShowBucketRegion" => (|f| drop(buckets::regions::read(f)), ONCE),
        "CheckPrefix" => (|f| drop(buckets::prefix::read(f)), ONCE),
        "ShowCdnInfo" => (|f| drop(buckets::cdn_info::read(f)), ACCOUNTS),
        "CheckUrlSourceListFileFormat" => (|f| drop(buckets::url_source_list_file::read(f)), ONCE),
        "CreateTaskV1" => (|f| drop(v1::create::read(String::new(), f)), TASKS),
        "OperateTaskV1" => (
            |f| {
                drop(v1::operate::operation(f));
                drop(spec().map(|s| v1::operate::start(f, &s)));
                drop(tasks::windows(f));
            },
            ONCE,
        ),
        "CreateMigrationTask" => (|f| drop(migration_task::create::read(f)), MIGRATIONS),
        "UpdateMigrationTask" => (|f| drop(migration_task::update::read(f)), ONCE),
        "BatchStopMigrationTasks" | "BatchRestartOnlineMigrationTasks" => {
            (|f| drop(migration_task::batch_stop::ids(f)), ONCE)
        }
        "ExchangeInstanceIp" => (|f| drop(migration_task::exchange_ip::read(f)), ONCE),
        "DeleteMigrationTask" => (|f| drop(migration_tasks::delete::read(f)), ONCE),
        "CreateOnlineMigrationTask" => (|f| drop(migration::instance::read(f)), ONCE),
        "SetOnlineMigrationTask" => (|f| drop(migration::task::read(f)), CONFIGURED),
        "CopyInstance" => (|f| drop(instances::backups::read(f)), ONCE),
        _ => return None,
    })
}

/// The type of an operation's reply; none where it has no body.
fn reply(operation: &str, types: &mut SchemaGenerator) -> Option<Value> {
    macro_rules! of {
        ($type:ty) => {
            Some(types.subschema_for::<$type>().to_value())
        };
    }
    match operation {
        "ListApiVersions" => of!(w2::VersionList),
        "ShowApiInfo" => of!(w2::Version),
        "CreateTask" | "CreateTaskV1" => of!(w2::Created),
        "ListTasks" => of!(w2::TaskList),
        "ShowTask" => of!(w2::Task),
        "CreateTaskGroup" => of!(w2::GroupCreated),
        "ListTaskGroup" => of!(w2::TaskGroupList),
        "ShowTaskGroup" => of!(w2::TaskGroup),
        "CreateSyncTask" => of!(w2::SyncCreated),
        "ListSyncTasks" => of!(w2::SyncTaskList),
        "ShowSyncTask" => of!(w2::SyncTask),
        "ListSyncTaskStatistic" => of!(w2::SyncStatistic),
        "ShowBucketList" | "ShowCloudType" => of!(Vec<String>),
        "ShowBucketObjects" => of!(w2::BucketObjects),
        "ShowBucketRegion" => of!(w2::BucketRegion),
        "CheckPrefix" => of!(w2::PrefixFound),
        "ShowCdnInfo" => of!(w2::CdnInfo),
        "ShowRegionInfo" => of!(Vec<w2::RegionGroup>),
        "ShowTaskV1" => of!(w1::Task),
        "CreateMigrationTask" | "SetOnlineMigrationTask" => of!(dcs::MigrationStarted),
        "ListMigrationTask" => of!(dcs::MigrationList),
        "ShowMigrationTask" | "StopMigrationTask" => of!(dcs::MigrationShown),
        "DeleteMigrationTask" => of!(dcs::MigrationsDeleted),
        "BatchStopMigrationTasks" | "BatchRestartOnlineMigrationTasks" => of!(dcs::MigrationResults),
        "CreateOnlineMigrationTask" => of!(dcs::OnlineMigrationCreated),
        "ShowMigrationTaskStats" => of!(dcs::MigrationNumbers),
        "ListMigrationTaskLogs" => of!(dcs::MigrationLogs),
        "ShowJobInfo" => of!(dcs::Job),
        "ListInstances" => of!(dcs::InstanceList),
        "ShowInstance" => of!(dcs::InstanceShown),
        "CopyInstance" => of!(dcs::BackupBegun),
        "ListBackupRecords" => of!(dcs::BackupList),
        _ => None,
    }
}

/// Parameters of the query: name, whether it must be there, JSON type.
fn query(operation: &str) -> &'static [(&'static str, bool, &'static str)] {
    match operation {
        "ListTasks" => &[
            ("group_id", false, "string"),
            ("limit", false, "integer"),
            ("offset", false, "integer"),
            ("status", false, "integer"),
            ("task_name", false, "string"),
        ],
        "ListTaskGroup" => {
            &[("limit", false, "integer"), ("offset", false, "integer"), ("status", false, "integer")]
        }
        "ListSyncTasks" => {
            &[("limit", false, "integer"), ("offset", false, "integer"), ("status", false, "string")]
        }
        "ShowSyncTask" => &[("query_time", true, "integer")],
        "ListSyncTaskStatistic" => {
            &[("data_type", true, "string"), ("start_time", true, "integer"), ("end_time", true, "integer")]
        }
        "ShowCloudType" => &[("type", true, "string")],
        "ShowTaskReport" => &[("form", false, "string")],
        "ListMigrationTask" => {
            &[("offset", false, "integer"), ("limit", false, "integer"), ("name", false, "string")]
        }
        "ListMigrationTaskLogs" => {
            &[("offset", false, "integer"), ("limit", false, "integer"), ("log_level", false, "string")]
        }
        "ListInstances" => &[
            ("offset", false, "integer"),
            ("limit", false, "integer"),
            ("instance_id", false, "string"),
            ("name", false, "string"),
            ("name_equal", false, "string"),
            ("status", false, "string"),
            ("ip", false, "string"),
        ],
        "ListBackupRecords" => &[
            ("offset", false, "integer"),
            ("limit", false, "integer"),
            ("begin_time", false, "string"),
            ("end_time", false, "string"),
        ],
        "ListTasksV1" => &[
            ("start", false, "integer"),
            ("limit", false, "integer"),
            ("state", false, "integer"),
            ("totalcount", false, "boolean"),
        ],
        _ => &[],
    }
}

/// The status of success.
fn success(operation: &str) -> &'static str {
    match operation {
        "CreateToken" => "201",
        "StopMigrationTaskSync"
        | "ExchangeInstanceIp"
        | "RollbackExchangeInstanceIp"
        | "DeleteBackupFile"
        | "DeleteToken" => "204",
        _ => "200",
    }
}

/// Everything that a reader asks for in any of its runs; required is what every run that read it required.
fn asked(reader: Reader, runs: &[Answers]) -> BTreeMap<String, (FieldKind, bool)> {
    let mut all: BTreeMap<String, (FieldKind, bool)> = BTreeMap::new();
    for answers in runs {
        let recorder = Recorder::with(answers);
        // A run that ends in a refusal has asked what it asked until then.
        reader(&recorder.fields());
        for (name, (what, needed)) in recorder.asked() {
            let entry = all.entry(name).or_insert((what, needed));
            entry.1 &= needed;
        }
    }
    all
}

fn schema_of(asked: &FieldKind) -> Value {
    match asked {
        FieldKind::Text(max) => json!({"type": "string", "maxLength": max}),
        FieldKind::Word(words) => json!({"type": "string", "enum": words}),
        FieldKind::Bool => json!({"type": "boolean"}),
        FieldKind::Int => json!({"type": "integer", "format": "int64"}),
        FieldKind::Object => json!({"type": "object", "properties": {}}),
        FieldKind::List(max) => json!({"type": "array", "maxItems": max, "items": {}}),
        FieldKind::Texts(max, each) => {
            json!({"type": "array", "maxItems": max, "items": {"type": "string", "maxLength": each}})
        }
        FieldKind::Objects(max) => {
            json!({"type": "array", "maxItems": max, "items": {"type": "object", "properties": {}}})
        }
    }
}

/// Nested objects out of names such as `src_node.bucket` and `bandwidth_policy[].start`.
fn body_schema(asked: &BTreeMap<String, (FieldKind, bool)>) -> Value {
    let mut root = json!({"type": "object", "properties": {}});
    for (name, (what, needed)) in asked {
        let (place, field) = name.rsplit_once('.').map_or((None, name.as_str()), |(p, f)| (Some(p), f));
        let mut parent = &mut root;
        for step in place.into_iter().flat_map(|p| p.split('.')) {
            let (step, items) = step.strip_suffix("[]").map_or((step, false), |s| (s, true));
            parent = &mut parent["properties"][step];
            if items {
                parent = &mut parent["items"];
            }
        }
        parent["properties"][field] = schema_of(what);
        if *needed {
            match parent["required"].as_array_mut() {
                Some(list) => list.push(field.into()),
                None => parent["required"] = json!([field]),
            }
        }
    }
    root
}

/// The description of the whole API, OpenAPI 3.1.
pub fn document() -> Value {
    let mut types = SchemaSettings::draft2020_12()
        .with(|s| s.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (method, path, operation) in OPERATIONS {
        let about = describe(path, operation, &mut types);
        paths.entry(path).or_default().insert((*method).to_owned(), about);
    }
    let schemas: Map<String, Value> = types.take_definitions(true).into_iter().collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Whimbrel",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Compatible with OMS v2 and v1, and with the migrations of DCS. Generated by `cargo x \
                 gen` from the route table, the request parsers and the response types. A field is required when \
                 every variant of the request requires it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {"signature": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"Error": error_response()},
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
                "signature": {"type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "SDK-HMAC-SHA256 or V11-HMAC-SHA256"},
            },
        },
    })
}

/// One operation: its parameters, request body and responses.
fn describe(path: &str, operation: &str, types: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = path
        .split('/')
        .filter_map(|s| s.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(query(operation).iter().map(|(name, required, kind)| {
        json!({"name": name, "in": "query", "required": required, "schema": {"type": kind}})
    }));
    let ok = match reply(operation, types) {
        Some(schema) => json!({"description": "OK", "content": {"application/json": {"schema": schema}}}),
        None => json!({"description": "OK"}),
    };
    let mut about = json!({
        "operationId": operation,
        "parameters": parameters,
        "responses": {
            success(operation): ok,
            "default": {"$ref": "#/components/responses/Error"},
        },
    });
    if let Some((reader, runs)) = reader(operation) {
        let schema = body_schema(&asked(reader, runs));
        about["requestBody"] = json!({"content": {"application/json": {"schema": schema}}});
    }
    about
}

fn error_response() -> Value {
    json!({
        "description": "The request was refused or failed; the log has details under its `X-Request-Id`.",
        "content": {"application/json": {"schema": {
            "type": "object",
            "required": ["error_code", "error_msg"],
            "properties": {
                "error_code": {"type": "string"},
                "error_msg": {"type": "string"},
                "request_id": {"type": "string"},
            },
        }}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_parsers_are_in_the_schema() {
        let doc = document();
        let body =
            &doc["paths"]["/v2/{project_id}/tasks"]["post"]["requestBody"]["content"]["application/json"];
        let schema = &body["schema"];
        assert_eq!(schema["required"], json!(["dst_node", "src_node"]));
        let source = &schema["properties"]["src_node"]["properties"];
        assert_eq!(source["bucket"], json!({"type": "string", "maxLength": 1024}));
        assert_eq!(source["list_file"]["required"], json!(["list_file_key", "obs_bucket"]));
        assert!(source["cloud_type"]["enum"].as_array().unwrap().contains(&json!("Azure")));
        let window = &schema["properties"]["bandwidth_policy"]["items"];
        assert_eq!(window["required"], json!(["end", "max_bandwidth", "start"]));
        assert_eq!(schema["properties"]["whimbrel"]["properties"]["dry_run"], json!({"type": "boolean"}));
    }

    /// The pages that are checked in are what would be written.
    #[test]
    fn generated_pages_are_up_to_date() {
        let read = |name: &str| {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/generated/");
            std::fs::read_to_string(format!("{path}{name}")).unwrap()
        };
        assert!(read("openapi.json") == format!("{:#}\n", document()), "run `cargo x gen`");
        assert!(read("error-codes.md") == crate::codes::page(), "run `cargo x gen`");
    }

    /// oms.md §2.1 and §6.1: 35 operations of v2 with the two of versions, and the paths of v1.
    #[test]
    fn every_operation_is_listed_once() {
        let mut names: Vec<&str> = OPERATIONS.iter().map(|(.., name)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OPERATIONS.len());
        let v2 = OPERATIONS.iter().filter(|(_, path, _)| path.starts_with("/v2/"));
        let (dcs, oms): (Vec<_>, Vec<_>) = v2.partition(|(_, path, _)| crate::dcs::is_dcs(path));
        let is_ours = |o: &&&(&str, &str, &str)| matches!(o.2, "ShowTaskReport" | "ListAudit");
        let own = oms.iter().filter(is_ours).count();
        assert_eq!(oms.len() - own + 2, 35);
        // dcs-migration.md §2.0: 15 of migrations, jobs, instances, and three of backups.
        assert_eq!(dcs.len(), 15 + 1 + 2 + 3);
    }

    #[test]
    fn every_request_body_has_a_parser() {
        for (method, path, name) in OPERATIONS {
            let acts =
                matches!(*method, "post" | "put") && (path.starts_with("/v2/") || path.starts_with("/v1/"));
            let bodiless = name.starts_with("Stop")
                || ["UpdatePrivacyAgreementRecord", "RollbackExchangeInstanceIp"].contains(name);
            let deletes = *name == "DeleteMigrationTask";
            assert_eq!(reader(name).is_some(), (acts && !bodiless) || deletes, "{name}");
        }
    }
}
