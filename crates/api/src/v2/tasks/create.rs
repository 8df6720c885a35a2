//! `POST /v2/{project_id}/tasks`

use axum::extract::{Path, State};
use bytes::Bytes;
use control::create::Request;
use control::secrets::{StoreCredentials, TaskSecrets};
use control::{Control, TaskError};
use model::policy::{Check, MetadataRule, Overwrite, StoragePolicy};
use model::selection::{ListFile, Selection};
use model::spec::{ApiVersion as SpecFace, Location, TaskSpec};
use model::task::Priority;
use wire::fields::Fields;
use wire::v2::Created;

use super::extras::{cdn, cdn_key, notify};
use super::{extensions, known_value, windows};
use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, json, object};
use crate::v2::credentials;
use crate::v2::vendors::{URLS, VENDORS};

pub(crate) const OVERWRITE: [&str; 4] = [
    "SIZE_LAST_MODIFIED_COMPARISON_OVERWRITE",
    "NO_OVERWRITE",
    "CRC64_COMPARISON_OVERWRITE",
    "FULL_OVERWRITE",
];
pub(crate) const CHECKS: [&str; 3] = ["size_last_modified", "crc64", "no_check"];
pub(crate) const POLICIES: [&str; 5] = ["STANDARD", "IA", "ARCHIVE", "DEEP_ARCHIVE", "SRC_STORAGE_MAPPING"];

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V2, &body)?;
    let request =
        read(project, &Fields::root(&map)).map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    let accepted =
        control.create(request).await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    json(&Created { id: accepted.id, task_name: accepted.name })
}

pub(crate) fn read(project: String, f: &Fields<'_>) -> Result<Request, TaskError> {
    let src = f.object("src_node").map_err(field_error)?;
    let dst = f.object("dst_node").map_err(field_error)?;
    let task_type =
        known_value(f, "task_type", &["object", "prefix", "list", "url_list"])?.unwrap_or("object");
    let priority = known_value(f, "task_priority", &["HIGH", "MEDIUM", "LOW"])?.unwrap_or("MEDIUM");
    let rules = rules(f)?;
    let (source, source_keys) = source(&src, task_type == "url_list")?;
    let (target, target_keys, save_prefix) = destination(&dst)?;
    let spec = TaskSpec {
        selection: selection(task_type, &src)?,
        source,
        target,
        save_prefix,
        echo: echo(task_type, &src)?,
        ..rules
    };
    let secrets = TaskSecrets { source: source_keys, target: target_keys, cdn: cdn_key(f)? };
    Ok(Request { project, spec, secrets, priority: priority_of(priority) })
}

/// What replies repeat and nothing else needs.
pub(crate) fn echo(
    task_type: &str,
    src: &Fields<'_>,
) -> Result<serde_json::Map<String, serde_json::Value>, TaskError> {
    let mut echo = serde_json::Map::from_iter([("task_type".to_owned(), task_type.into())]);
    if matches!(task_type, "list" | "url_list")
        && let Some(file) = src.opt_object("list_file").map_err(field_error)?
        && let Some(num) = file.opt_text_or_number("list_file_num", 255).map_err(field_error)?
    {
        echo.insert("list_file_num".to_owned(), num.into());
    }
    Ok(echo)
}

/// The rules that tasks and groups have in common; the nodes and the selection are still empty.
pub(crate) fn rules(f: &Fields<'_>) -> Result<TaskSpec, TaskError> {
    let flag =
        |name: &str, default: bool| f.opt_bool(name).map_err(field_error).map(|v| v.unwrap_or(default));
    let overwrite = known_value(f, "object_overwrite_mode", &OVERWRITE)?.unwrap_or(OVERWRITE[0]);
    let check = known_value(f, "consistency_check", &CHECKS)?.unwrap_or(CHECKS[0]);
    let policy = known_value(f, "dst_storage_policy", &POLICIES)?.unwrap_or(POLICIES[0]);
    let since = f.opt_int("migrate_since").map_err(field_error)?.unwrap_or(0);
    if since < 0 {
        return Err(TaskError::Invalid("migrate_since".into(), "must not be negative".into()));
    }
    let (extensions, include, exclude) = extensions::read(f)?;
    Ok(TaskSpec {
        api_version: SpecFace::V2,
        selection: Selection::Prefix(vec![]),
        source: Location::default(),
        target: Location::default(),
        save_prefix: String::new(),
        description: f.opt_text("description", 255).map_err(field_error)?.unwrap_or_default().to_owned(),
        overwrite: overwrite_of(overwrite),
        check: check_of(check),
        metadata: if flag("enable_metadata_migration", false)? {
            MetadataRule::All
        } else {
            MetadataRule::ContentType
        },
        storage: policy_of(policy),
        since_ms: since_ms(since),
        windows: windows(f)?,
        record_failures: flag("enable_failed_object_recording", true)?,
        record_outcomes: true,
        requester_pays: flag("enable_requester_pays", false)?,
        kms: flag("enable_kms", false)?,
        restore: flag("enable_restore", false)?,
        cdn: cdn(f)?,
        notify: notify(f)?,
        include,
        exclude,
        part_size: 0,
        concurrency: 0,
        bandwidth: 0,
        extensions,
        echo: serde_json::Map::new(),
    })
}

/// Seconds in requests; a value that can only be milliseconds is taken as such (oms.md §1.7).
pub(crate) fn since_ms(since: i64) -> i64 {
    if since >= 100_000_000_000 { since } else { since * 1000 }
}

/// What the source node selects, by task type.
pub(crate) fn selection(task_type: &str, src: &Fields<'_>) -> Result<Selection, TaskError> {
    // The node does not fit the type (oms.md §4.1): another answer than for a field that every request needs.
    let unfit = |field: &str| TaskError::Source(format!("{field} is required for the task type {task_type}"));
    if matches!(task_type, "list" | "url_list") {
        let file = src.opt_object("list_file").map_err(field_error)?;
        let file = file.ok_or_else(|| unfit("list_file"))?;
        let file = ListFile {
            bucket: file.filled("obs_bucket", 1024).map_err(field_error)?.to_owned(),
            key: file.filled("list_file_key", 1024).map_err(field_error)?.to_owned(),
        };
        return Ok(if task_type == "list" { Selection::List(file) } else { Selection::UrlList(file) });
    }
    let entries = src.opt_texts("object_key", 500, 1024).map_err(field_error)?;
    let entries = entries.ok_or_else(|| unfit("object_key"))?;
    if let Some(i) = entries.iter().position(|e| e.contains('\0')) {
        return Err(TaskError::Invalid(
            format!("{}[{i}]", src.name("object_key")),
            "holds a NUL character".into(),
        ));
    }
    Ok(if task_type == "prefix" { Selection::Prefix(entries) } else { Selection::Object(entries) })
}

/// The source node; a list of URLs has no bucket and no credentials (oms.md §2.3, SrcNodeReq).
pub(crate) fn source(src: &Fields<'_>, urls: bool) -> Result<(Location, StoreCredentials), TaskError> {
    let known: Vec<&str> = VENDORS.iter().copied().chain([URLS]).collect();
    let cloud_type = known_value(src, "cloud_type", &known)?.unwrap_or(if urls { URLS } else { "Aliyun" });
    if urls != (cloud_type == URLS) {
        let why =
            format!("cloud_type is `{cloud_type}`: {URLS} and the task type url_list require each other");
        return Err(TaskError::Source(why));
    }
    if urls {
        let place = Location { cloud_type: URLS.to_owned(), ..Location::default() };
        return Ok((place, StoreCredentials::default()));
    }
    let app_id = src.opt_text("app_id", 255).map_err(field_error)?.unwrap_or_default();
    if cloud_type == "Tencent" && app_id.is_empty() {
        return Err(TaskError::Source("app_id is required for Tencent".into()));
    }
    let keys = credentials::node(src)?;
    // A connection string or key file leads to its own place.
    let region = match (cloud_type, &keys.connection_string, &keys.json_auth) {
        ("Azure", Some(_), _) => src.opt_text("region", 100).map_err(field_error)?.unwrap_or_default(),
        ("Google", ..) => {
            src.opt_text("region", 100).map_err(field_error)?.filter(|r| !r.is_empty()).unwrap_or("auto")
        }
        _ => src.filled("region", 100).map_err(field_error)?,
    };
    let place = Location {
        cloud_type: cloud_type.to_owned(),
        region: region.to_owned(),
        bucket: src.filled("bucket", 1024).map_err(field_error)?.to_owned(),
        app_id: app_id.to_owned(),
    };
    Ok((place, keys))
}

pub(crate) fn destination(dst: &Fields<'_>) -> Result<(Location, StoreCredentials, String), TaskError> {
    let place = Location {
        cloud_type: String::new(),
        region: dst.filled("region", 100).map_err(field_error)?.to_owned(),
        bucket: dst.filled("bucket", 1024).map_err(field_error)?.to_owned(),
        app_id: String::new(),
    };
    let prefix = dst.opt_text("save_prefix", 1024).map_err(field_error)?.unwrap_or_default().to_owned();
    Ok((place, credentials::node(dst)?, prefix))
}

/// Words to rules, and back for replies.
pub(crate) fn overwrite_of(word: &str) -> Overwrite {
    match word {
        "NO_OVERWRITE" => Overwrite::Never,
        "CRC64_COMPARISON_OVERWRITE" => Overwrite::Crc64,
        "FULL_OVERWRITE" => Overwrite::Always,
        _ => Overwrite::Newer,
    }
}

pub(crate) fn check_of(word: &str) -> Check {
    match word {
        "crc64" => Check::Crc64,
        "no_check" => Check::None,
        _ => Check::Digest,
    }
}

pub(crate) fn policy_of(word: &str) -> StoragePolicy {
    match word {
        "IA" => StoragePolicy::Ia,
        "ARCHIVE" => StoragePolicy::Archive,
        "DEEP_ARCHIVE" => StoragePolicy::DeepArchive,
        "SRC_STORAGE_MAPPING" => StoragePolicy::SrcStorageMapping,
        _ => StoragePolicy::Standard,
    }
}

pub(crate) fn priority_of(word: &str) -> Priority {
    match word {
        "HIGH" => Priority::High,
        "LOW" => Priority::Low,
        _ => Priority::Medium,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn c07_node_fields_of_another_task_type_are_rejected() {
        let code = |task_type: &str, more: serde_json::Value| {
            let keys = json!({"ak": "AK", "sk": "SK", "region": "r", "bucket": "b"});
            let (mut src, dst) = (keys.clone(), keys);
            src["cloud_type"] = "AWS".into();
            for (name, value) in more.as_object().unwrap() {
                src[name.as_str()] = value.clone();
            }
            let body = json!({"task_type": task_type, "src_node": src, "dst_node": dst});
            let map = body.as_object().unwrap().clone();
            read("p".into(), &Fields::root(&map))
                .err()
                .map(|r| ApiError::from_task_error(OmsVersion::V2, &r).code)
        };
        let (file, keys) =
            (json!({"obs_bucket": "b", "list_file_key": "k.txt"}), json!({"object_key": ["a"]}));
        let file = json!({"list_file": file});
        for (task_type, node, want) in [
            ("list", &keys, Some("OMS.0057")),
            ("list", &json!({"list_file": null}), Some("OMS.0057")),
            ("list", &json!({"list_file": {"obs_bucket": "b"}}), Some("OMS.1004")),
            ("list", &file, None),
            ("prefix", &file, Some("OMS.0057")),
            ("object", &json!({"object_key": null}), Some("OMS.0057")),
            ("prefix", &keys, None),
        ] {
            assert_eq!(code(task_type, node.clone()).as_deref(), want, "{task_type} {node}");
        }
    }
}
