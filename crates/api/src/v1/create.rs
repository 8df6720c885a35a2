//! `POST /v1/{project_id}/objectstorage/task`

use axum::extract::{Path, State};
use bytes::Bytes;
use control::create::Request;
use control::secrets::{StoreCredentials, TaskSecrets};
use control::{Control, TaskError};
use model::policy::{Check, MetadataRule, Overwrite, StoragePolicy};
use model::selection::Selection;
use model::spec::{ApiVersion as SpecFace, Location, Notify, TaskSpec};
use model::task::Priority;
use seal::Secret;
use wire::fields::Fields;
use wire::v2::Created;

use crate::error::{ApiError, OmsVersion, field_error};
use crate::reply::{Reply, json, object};
use crate::v2::tasks::create::since_ms;
use crate::v2::tasks::extras::{cdn, cdn_key};
use crate::v2::tasks::{known_value, windows};
use crate::v2::vendors::{URLS, VENDORS};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path(project): Path<String>,
    body: Bytes,
) -> Reply {
    let map = object(OmsVersion::V1, &body)?;
    let request =
        read(project, &Fields::root(&map)).map_err(|r| ApiError::from_task_error(OmsVersion::V1, &r))?;
    let accepted =
        control.create(request).await.map_err(|r| ApiError::from_task_error(OmsVersion::V1, &r))?;
    json(&Created { id: accepted.id, task_name: accepted.name })
}

pub(crate) fn read(project: String, f: &Fields<'_>) -> Result<Request, TaskError> {
    let src = f.object("src_node").map_err(field_error)?;
    let dst = f.object("dst_node").map_err(field_error)?;
    let kms = f.bool("enableKMS").map_err(field_error)?;
    let threads = f.int("thread_num").map_err(field_error)?;
    if !(0..=50).contains(&threads) {
        return Err(TaskError::Threads);
    }
    let since = f.opt_int("migrate_since").map_err(field_error)?.unwrap_or(0);
    if since < 0 {
        return Err(TaskError::Invalid("migrate_since".into(), "must not be negative".into()));
    }
    let task_type =
        known_value(f, "task_type", &["object", "prefix", "list", "url_list"])?.unwrap_or("object");
    let urls = task_type == "url_list";
    let source = source(&src, urls)?;
    let folder = dst.text("object_key", 1024).map_err(field_error)?;
    let spec = TaskSpec {
        api_version: SpecFace::V1,
        selection: selection(task_type, &src)?,
        source,
        target: location(&dst, "")?,
        save_prefix: folder.trim_start_matches('/').to_owned(),
        description: f.opt_text("description", 255).map_err(field_error)?.unwrap_or_default().to_owned(),
        overwrite: Overwrite::Newer,
        check: Check::Digest,
        metadata: MetadataRule::ContentType,
        storage: StoragePolicy::Standard,
        since_ms: since_ms(since),
        windows: windows(f)?,
        record_failures: f.opt_bool("enable_failed_object_recording").map_err(field_error)?.unwrap_or(true),
        record_outcomes: true,
        requester_pays: false,
        kms,
        restore: f.opt_bool("auto_restore").map_err(field_error)?.unwrap_or(false),
        cdn: cdn(f)?,
        notify: notify(f)?,
        include: vec![],
        exclude: vec![],
        part_size: 0,
        concurrency: 0,
        bandwidth: 0,
        extensions: model::spec::Extensions::default(),
        echo: serde_json::Map::from_iter([
            ("thread_num".to_owned(), threads.into()),
            ("object_key".to_owned(), folder.into()),
        ]),
    };
    let source = if urls { StoreCredentials::default() } else { keys(&src)? };
    let secrets = TaskSecrets { source, target: keys(&dst)?, cdn: cdn_key(f)? };
    Ok(Request { project, spec, secrets, priority: Priority::Medium })
}

fn keys(node: &Fields<'_>) -> Result<StoreCredentials, TaskError> {
    Ok(StoreCredentials {
        ak: node.filled("ak", 100).map_err(field_error)?.to_owned(),
        sk: Secret::new(node.filled("sk", 100).map_err(field_error)?),
        ..StoreCredentials::default()
    })
}

fn location(node: &Fields<'_>, cloud_type: &str) -> Result<Location, TaskError> {
    Ok(Location {
        cloud_type: cloud_type.to_owned(),
        region: node.filled("region", 100).map_err(field_error)?.to_owned(),
        bucket: node.filled("bucket", 1024).map_err(field_error)?.to_owned(),
        app_id: node.opt_text("app_id", 255).map_err(field_error)?.unwrap_or_default().to_owned(),
    })
}

/// The bucket of `src_node`; a list of URLs names no bucket.
fn source(src: &Fields<'_>, urls: bool) -> Result<Location, TaskError> {
    // v1 is older than three of the vendors (oms.md §5.1).
    let young = ["Azure", "Google", "UCloud"];
    let known: Vec<&str> = VENDORS.iter().copied().filter(|v| !young.contains(v)).chain([URLS]).collect();
    let cloud_type = known_value(src, "cloud_type", &known)?.unwrap_or(if urls { URLS } else { "Aliyun" });
    if urls != (cloud_type == URLS) {
        return Err(TaskError::Source(format!("{URLS} and the task type url_list require each other")));
    }
    match urls {
        true => Ok(Location { cloud_type: URLS.into(), ..Location::default() }),
        false => location(src, cloud_type),
    }
}

/// `smnInfo`: v1's names, and `FAIL` where v2 says `FAILURE` (oms.md §6.2).
fn notify(f: &Fields<'_>) -> Result<Option<Notify>, TaskError> {
    let Some(smn) = f.opt_object("smnInfo").map_err(field_error)? else { return Ok(None) };
    let conditions = smn.texts("triggerConditions", 10, 100).map_err(field_error)?;
    if let Some(other) = conditions.iter().find(|c| !["SUCCESS", "FAIL"].contains(&c.as_str())) {
        let why = format!("`{other}` is neither SUCCESS nor FAIL");
        return Err(TaskError::Invalid(smn.name("triggerConditions"), why));
    }
    let has = |word: &str| conditions.iter().any(|c| c == word);
    Ok(Some(Notify {
        topic_urn: smn.filled("topicUrn", 1024).map_err(field_error)?.to_owned(),
        success: has("SUCCESS"),
        failure: has("FAIL"),
        language: known_value(&smn, "language", &["zh-cn", "en-us"])?.unwrap_or("en-us").to_owned(),
        template: None,
    }))
}

/// `object_key` is a text, or an object with `keys`; no key means the whole bucket (oms.md §6.3).
fn selection(task_type: &str, src: &Fields<'_>) -> Result<Selection, TaskError> {
    if matches!(task_type, "list" | "url_list") {
        return crate::v2::tasks::create::selection(task_type, src);
    }
    let entries = match src.opt_object("object_key") {
        Ok(None) => return Err(TaskError::Source("object_key is required for this task type".into())),
        Ok(Some(keys)) => {
            let path = keys.opt_text("path", 1024).map_err(field_error)?.unwrap_or_default();
            let listed = keys.opt_texts("keys", 500, 1024).map_err(field_error)?.unwrap_or_default();
            below(path, listed)
        }
        Err(_) => vec![src.text("object_key", 1024).map_err(field_error)?.to_owned()],
    };
    let mut entries: Vec<String> = entries.iter().map(|e| e.trim_start_matches('/').to_owned()).collect();
    if entries.is_empty() {
        entries.push(String::new());
    }
    Ok(if task_type == "prefix" { Selection::Prefix(entries) } else { Selection::Object(entries) })
}

/// Scripts name a folder and the keys in it; `/` is the bucket itself (clients.md F7).
fn below(path: &str, keys: Vec<String>) -> Vec<String> {
    let folder = path.trim_matches('/');
    if folder.is_empty() {
        return keys;
    }
    if keys.is_empty() {
        return vec![format!("{folder}/")];
    }
    keys.iter().map(|key| format!("{folder}/{}", key.trim_start_matches('/'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cl_f07_save_prefix_is_prepended_to_keys() {
        let of = |path: &str, keys: &[&str]| below(path, keys.iter().map(|k| (*k).to_owned()).collect());
        assert_eq!(of("", &["a"]), ["a"]);
        assert_eq!(of("/", &["/a", "b/"]), ["/a", "b/"]);
        assert_eq!(of("xxx/", &["a", "/b/"]), ["xxx/a", "xxx/b/"]);
        assert_eq!(of("/xxx", &[]), ["xxx/"]);
        assert!(of("/", &[]).is_empty());
    }
}
