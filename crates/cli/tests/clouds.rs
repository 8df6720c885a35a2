//! `whimbrel copy` with the places of other clouds.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use storage::azure::connection::Connection;
use storage::azure::{Azure, AzureConfig};
use storage::egress::Egress;
use storage::google::{Google, GoogleConfig};
use storage::http::Client;

use crate::support::{json, whimbrel};

/// A container and a bucket, made for one test.
async fn make(azurite: &str, gcs: &str, name: &str) {
    let clock = flow_control::clock::system();
    let (account, key) = testkit::servers::AZURE;
    let connection = Connection::new(&format!("{azurite}/{account}"), account, key).unwrap();
    let azure = Azure::new(AzureConfig::new(connection, name, Egress::anywhere()).unwrap(), clock.clone());
    azure.create_container().await.unwrap();
    let config = GoogleConfig {
        client: Client::new(gcs, Egress::anywhere()).unwrap(),
        account: None,
        bucket: name.into(),
        requester_pays: false,
        egress: Egress::anywhere(),
    };
    Google::new(config, clock).create_bucket("lab").await.unwrap();
}

fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in std::fs::read_dir(at).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
                out.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    out
}

/// The program without the keys of the S3 servers, and with those of Azure.
fn program(azurite: &str) -> Command {
    let mut command = whimbrel();
    for side in ["SOURCE", "TARGET"] {
        for name in ["ACCESS_KEY", "SECRET_KEY"] {
            command.env_remove(format!("WHIMBREL_{side}_{name}"));
        }
    }
    let (account, key) = testkit::servers::AZURE;
    let text = format!("AccountName={account};AccountKey={key};BlobEndpoint={azurite}/{account}");
    command.env("AZURE_STORAGE_CONNECTION_STRING", text);
    command.env_remove("GOOGLE_APPLICATION_CREDENTIALS");
    command
}

#[test]
fn objects_are_equal_after_directory_azure_google_directory() {
    let azurite = testkit::servers::endpoint("WHIMBREL_TEST_AZURITE");
    let gcs = testkit::servers::endpoint("WHIMBREL_TEST_GCS");
    let name = format!("places-{}", fastrand::u32(..));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(make(&azurite, &gcs, &name));
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir_all(from.join("sub")).unwrap();
    for i in 0..50u32 {
        std::fs::write(from.join(format!("sub/f {i}+%")), i.to_string().repeat(i as usize)).unwrap();
    }
    std::fs::write(from.join("large"), (0..40 << 20).map(|i: u32| (i / 9) as u8).collect::<Vec<_>>())
        .unwrap();
    // Clouds tell times in whole seconds: what was changed within the second of its copy is copied again.
    let earlier = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    for name in tree(&from).keys() {
        std::fs::File::options().write(true).open(from.join(name)).unwrap().set_modified(earlier).unwrap();
    }
    let (az, gs) = (format!("az://{name}/p"), format!("gs://{name}"));
    let run = |source: &str, target: &str, ends: &[&str]| -> Output {
        let mut command = program(&azurite);
        command.args(["copy", source, target, "--json"]).args(ends);
        command.arg("--state-dir").arg(dir.path().join("state"));
        command.output().unwrap()
    };
    let (source, target) = (from.to_str().unwrap(), to.to_str().unwrap());
    for (source, target, ends) in [
        (source, az.as_str(), vec![]),
        (az.as_str(), gs.as_str(), vec!["--target-endpoint", gcs.as_str()]),
        (gs.as_str(), target, vec!["--source-endpoint", gcs.as_str()]),
    ] {
        let output = run(source, target, &ends);
        let summary = json(&output);
        assert_eq!(output.status.code(), Some(0), "{source}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(summary["objects"]["copied"], 51, "{source}: {summary}");
        let again = json(&run(source, target, &ends));
        assert_eq!(again["objects"]["skipped"], 51, "{source}: {again}");
    }
    assert_eq!(tree(&from), tree(&to));
    let mut verify = program(&azurite);
    verify.args(["verify", &az, &gs, "--target-endpoint", &gcs, "--json"]);
    let output = verify.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn url_list_is_copied() {
    let server = testkit::S3Server::start(testkit::Options::default());
    let web = server.bucket("web");
    let at = server.endpoint();
    for i in 0..30 {
        web.put(&format!("page {i}"), format!("page {i}"));
    }
    let lines: String = (0..30).map(|i| format!("{at}/web/page%20{i}\tpages/{i}.html\n")).collect();
    web.put("list.txt", lines);
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let mut command = whimbrel();
    command.args(["copy", &format!("{at}/web/list.txt"), to.to_str().unwrap(), "--json", "--report"]);
    command.arg(dir.path().join("report")).args(["--report-format", "csv", "--state-dir"]);
    let output = command.arg(dir.path().join("state")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(json(&output)["objects"]["copied"], 30);
    assert_eq!(std::fs::read(to.join("pages/7.html")).unwrap(), b"page 7");
    let report = std::fs::read_to_string(dir.path().join("report/outcomes.csv")).unwrap();
    assert_eq!(report.lines().count(), 31, "a header and a row for each");
}

#[test]
fn cloud_location_errors_name_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    for (args, want) in [
        (["copy", "az://box", "/tmp/x"], "WHIMBREL_SOURCE_CONNECTION_STRING"),
        (["copy", "gs://", "/tmp/x"], "gs://BUCKET/PREFIX"),
        (["copy", "/tmp/x", "https://host/list.txt"], "can only be a source"),
    ] {
        let mut command = whimbrel();
        command.env_remove("WHIMBREL_SOURCE_ACCESS_KEY").env_remove("AZURE_STORAGE_CONNECTION_STRING");
        let output = command.args(args).arg("--state-dir").arg(dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() != Some(0) && text.contains(want), "{args:?}: {text}");
    }
}
