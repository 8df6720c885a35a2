//! The official Python SDK, boto3 and hand-signed v1 requests, against the service and real servers.

use std::path::Path;
use std::process::Command;

use crate::support::{Service, last_lines};

/// Lines of the service's log and of its audit file that a failed scenario prints.
const LOG_LINES: usize = 30;
const AUDIT_LINES: usize = 10;

fn scenario(name: &str) {
    scenario_with(name, "", &[]);
}

/// A scenario with further stores, and servers of this process that it is told of.
pub(crate) fn scenario_with(name: &str, more: &str, told: &[(&str, String)]) {
    let python = std::env::var("PYTHONPATH").expect("run the tests with `cargo x test`");
    let dir = tempfile::tempdir().unwrap();
    let servers = ["WEED_A", "WEED_B", "MOTO", "AZURITE", "GCS"];
    let endpoints = servers.map(|s| (s, testkit::servers::endpoint(&format!("WHIMBREL_TEST_{s}"))));
    let store = |region: &str, of: usize, cloud_type: &str| {
        let endpoint = &endpoints[of].1;
        format!(
            "\n[[store]]\nregion = \"{region}\"\nendpoint = \"{endpoint}\"\ncloud_type = [{cloud_type}]\n"
        )
    };
    let stores = [
        store("weed-a", 0, ""),
        store("weed-b", 1, ""),
        store("azurite", 3, "\"Azure\""),
        store("gcs", 4, "\"Google\""),
    ]
    .concat()
        + more;
    let audit = dir.path().join("audit.jsonl");
    let stores = format!("{stores}\n[audit]\nfile = \"{}\"\n", audit.display());
    let service = Service::start(dir.path(), &stores);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk");
    let output = Command::new("python3")
        .args([script, name])
        .env("PYTHONPATH", python)
        .envs(endpoints)
        .envs(told.iter().cloned())
        .env("NODE_MODULES", std::env::var("WHIMBREL_TEST_NODE").unwrap_or_default())
        .env("WHIMBREL", env!("CARGO_BIN_EXE_whimbrel"))
        .env("DATA_DIR", dir.path().join("data"))
        .env("CONFIG", dir.path().join("whimbrel.toml"))
        .env("SERVICE_PID", service.child.id().to_string())
        .env("ENDPOINT", &service.endpoint)
        .env("AK", &service.ak)
        .env("SK", &service.sk)
        .env("PROJECT", &service.project)
        .env("HOME", dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "scenario `{name}` failed:\n{}{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        service_report(dir.path(), &audit)
    );
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

/// The ends of the service's log and of its audit file, which has changes and rejected requests.
fn service_report(dir: &Path, audit: &Path) -> String {
    format!(
        "service log, last {LOG_LINES} lines, oldest first:\n{}\naudit, last {AUDIT_LINES} lines, oldest first:\n{}",
        last_lines(&dir.join("log"), LOG_LINES),
        last_lines(audit, AUDIT_LINES)
    )
}

#[test]
fn v2_task_lifecycle() {
    scenario("v2_lifecycle");
}

#[test]
fn example_programs_copy_a_bucket() {
    scenario("examples");
}

#[test]
fn bucket_calls_return_contents_of_the_bucket() {
    scenario("buckets");
}

#[test]
fn key_lists_and_url_lists_are_copied() {
    scenario("lists");
}

#[test]
fn task_groups_run_start_stop_and_retry() {
    scenario("groups");
}

#[test]
fn sync_tasks_copy_reported_keys() {
    scenario("sync");
}

#[test]
fn source_cdn_objects_are_copied() {
    scenario("cdn");
}

#[test]
fn notifications_reach_webhooks() {
    scenario("notifications");
}

#[test]
fn tasks_survive_service_kills() {
    scenario("service_kills");
}

#[test]
fn obj_07_deletions_are_propagated_only_when_safe() {
    scenario("deletions");
}

#[test]
fn archived_objects_are_restored_and_copied() {
    scenario("archived_objects");
}

/// No real server of these vendors is at hand: a scripted one answers with their headers.
#[test]
fn vendor_specific_checksum_headers_are_verified() {
    let options = || testkit::Options { vendor: Some("x-obs-"), ..testkit::Options::default() };
    let (a, b) = (testkit::S3Server::start(options()), testkit::S3Server::start(options()));
    let (source, target) = (a.bucket("paid-from"), b.bucket("to"));
    for i in 0..40 {
        source.put(&format!("k{i:02}"), format!("object {i:03}"));
    }
    source.put_with("large", testkit::content::Content::Pattern(40 << 20), None, &[]);
    target.put("k07", "object ###");
    let store = |region: &str, at: &testkit::S3Server| {
        let at = at.endpoint();
        format!("\n[[store]]\nregion = \"{region}\"\nendpoint = \"{at}\"\ncloud_type = [\"HuaweiCloud\"]\n")
    };
    scenario_with("vendor_checksums", &(store("obs-a", &a) + &store("obs-b", &b)), &[]);
    let copied = target.objects();
    let plain: Vec<_> = copied.iter().filter(|(k, _)| !k.starts_with("oms/")).collect();
    assert_eq!(plain.len(), 41);
    for (key, object) in &plain {
        let original = source.objects().into_iter().find(|(k, _)| k == key).unwrap().1;
        assert_eq!(original.etag, object.etag, "{key}: the same CRC makes the same tag");
    }
}

#[test]
fn node_sdk_runs_core_operations() {
    scenario("node");
}

#[test]
fn cl_sdk_of_2018_manages_v1_tasks() {
    scenario("sdk_of_2018");
}

#[test]
fn cl_python_sdk_3_0_60_manages_tasks() {
    scenario("sdk_3_0_60");
}

#[test]
fn azure_round_trip_keeps_objects() {
    scenario("azure");
}

#[test]
fn google_round_trip_keeps_objects() {
    scenario("google");
}

#[test]
fn filters_deletions_and_reports_match_the_task() {
    scenario("filters");
}

#[test]
fn all_versions_and_acls_are_copied() {
    scenario("versions");
}

#[test]
fn sync_tasks_find_changes_by_listing() {
    scenario("sync_by_listing");
}

#[test]
fn v2_invalid_input_is_rejected() {
    scenario("v2_invalid_input");
}

#[test]
fn v1_task_lifecycle() {
    scenario("v1_lifecycle");
}

#[test]
fn c02_cl_f06_sec_f21_f22_valid_keys_authenticate_and_tokens_can_be_revoked() {
    scenario("identity");
}

#[test]
fn seaweedfs_many_objects_are_copied() {
    scenario("many_objects");
}

#[test]
fn moto_unusual_keys_are_copied_exactly() {
    scenario("unusual_keys");
}

#[test]
fn c04_failed_objects_without_records_are_not_retried() {
    scenario("unrecorded_failures");
}

#[test]
fn c05_bucket_level_lists_each_name_once() {
    scenario("bucket_levels");
}

#[test]
fn c11_tasks_are_listed_newest_first() {
    scenario("task_list_order");
}
