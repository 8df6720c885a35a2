//! The same task without the console: the command, where it can say everything, and the call of the API.

use model::policy::{Check, MetadataRule, Overwrite};
use model::printable::Printable;
use model::selection::Selection;
use model::spec::TaskSpec;
use model::task::Priority;
use serde_json::json;

use crate::form::Form;
use crate::pages::places;

/// The task type of a form, in the word of the API.
pub(crate) fn task_type(form: &Form) -> &'static str {
    match form.get("what") {
        "object" => "object",
        "list" => "list",
        _ => "prefix",
    }
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    let is_plain =
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The command; empty where the task has rules that the command line does not have.
pub(crate) fn command(spec: &TaskSpec) -> String {
    let is_one_prefix = matches!(&spec.selection, Selection::Prefix(entries) if entries.len() == 1);
    let has_rules = !spec.include.is_empty()
        || !spec.exclude.is_empty()
        || spec.extensions != Default::default()
        || spec.overwrite != Overwrite::default()
        || spec.check != Check::default()
        || spec.metadata != MetadataRule::All
        || !spec.description.is_empty()
        || spec.requester_pays
        || spec.restore;
    if !is_one_prefix || has_rules {
        return String::new();
    }
    let (from, to) = places(spec);
    let vendor = match spec.source.cloud_type.as_str() {
        "" | "AWS" => String::new(),
        vendor => format!(" --cloud-type {}", quoted(vendor)),
    };
    Printable(&format!("whimbrel task create {} {}{vendor}", quoted(&from), quoted(&to))).to_string()
}

/// The call of the API; keys are named, not shown.
pub(crate) fn call(project: &str, spec: &TaskSpec, priority: &Priority) -> String {
    let keys = json!({"ak": "…", "sk": "…"});
    let mut source = json!({"region": spec.source.region, "bucket": spec.source.bucket, "ak": keys["ak"], "sk": keys["sk"]});
    if !spec.source.cloud_type.is_empty() {
        source["cloud_type"] = spec.source.cloud_type.as_str().into();
    }
    match spec.selection.list_file() {
        Some(file) => source["list_file"] = json!({"obs_bucket": file.bucket, "list_file_key": file.key}),
        None => source["object_key"] = json!(spec.selection.entries()),
    }
    let mut body = json!({
        "task_type": spec.echo.get("task_type"),
        "src_node": source,
        "dst_node": {"region": spec.target.region, "bucket": spec.target.bucket, "save_prefix": spec.save_prefix, "ak": keys["ak"], "sk": keys["sk"]},
        "object_overwrite_mode": overwrite(spec.overwrite),
        "enable_metadata_migration": spec.metadata == MetadataRule::All,
        "task_priority": match priority { Priority::High => "HIGH", Priority::Medium => "MEDIUM", Priority::Low => "LOW" },
    });
    for (on, field) in [(spec.requester_pays, "enable_requester_pays"), (spec.restore, "enable_restore")] {
        if on {
            body[field] = true.into();
        }
    }
    if spec.check == Check::None {
        body["consistency_check"] = "no_check".into();
    }
    if !spec.description.is_empty() {
        body["description"] = spec.description.as_str().into();
    }
    let own = own(spec);
    if !own.is_empty() {
        body["whimbrel"] = own.into();
    }
    let text = serde_json::to_string_pretty(&body).unwrap_or_default();
    format!("POST /v2/{project}/tasks\n{text}")
}

fn overwrite(rule: Overwrite) -> &'static str {
    match rule {
        Overwrite::Newer => "SIZE_LAST_MODIFIED_COMPARISON_OVERWRITE",
        Overwrite::Never => "NO_OVERWRITE",
        Overwrite::Checksum | Overwrite::Crc64 => "CRC64_COMPARISON_OVERWRITE",
        Overwrite::Always => "FULL_OVERWRITE",
    }
}

fn own(spec: &TaskSpec) -> serde_json::Map<String, serde_json::Value> {
    let mut own = serde_json::Map::new();
    for (globs, field) in [(&spec.include, "include"), (&spec.exclude, "exclude")] {
        if !globs.is_empty() {
            own.insert(field.into(), json!(globs));
        }
    }
    let b = &spec.extensions;
    for (on, field) in
        [(b.versions, "versions"), (b.acl, "acl"), (b.delete, "delete"), (b.dry_run, "dry_run")]
    {
        if on {
            own.insert(field.into(), true.into());
        }
    }
    if !b.reports.is_empty() {
        own.insert("reports".into(), json!(b.reports));
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell_are_quoted() {
        assert_eq!(quoted("dc1:a/b"), "dc1:a/b");
        assert_eq!(quoted("a b$(x)'"), r"'a b$(x)'\'''");
        assert_eq!(quoted(""), "''");
    }
}
