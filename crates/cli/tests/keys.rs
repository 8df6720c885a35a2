//! The sealing key is replaced while the service runs, while it does not, and after a rotation that was killed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Options, S3Server};

use crate::support::{self, Service, whimbrel};

/// Targets that are there; each task has its own.
const TARGETS: usize = 20;

/// `whimbrel keys …` of the service in `dir`.
fn keys(dir: &Path, action: &str) -> Value {
    let mut command = whimbrel();
    command.args(["keys", action, "--json", "--config"]).arg(dir.join("whimbrel.toml"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "keys {action}: {}", String::from_utf8_lossy(&output.stderr));
    support::json(&output)
}

/// A store that answers slowly, so that tasks and their secrets wait.
fn slow_server() -> S3Server {
    let server = S3Server::start(Options { delay: Duration::from_millis(50), ..Options::default() });
    for i in 0..1500 {
        server.bucket("large").put(&format!("k{i:04}"), "x");
    }
    server.bucket("small").put("k", "x");
    for i in 0..TARGETS {
        server.bucket(&format!("to{i}"));
    }
    server
}

fn change(dir: &Path, from: &str, to: &str) {
    let path = dir.join("whimbrel.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} is in the configuration");
    std::fs::write(&path, text.replace(from, to)).unwrap();
}

/// A service that runs one task at a time.
fn narrow_service(dir: &Path) -> Service {
    drop(Service::start_on(dir, "", "sqlite", &[]));
    change(dir, "running_tasks = 5", "running_tasks = 1");
    Service::start_on(dir, "", "sqlite", &[])
}

fn all_succeed(dir: &Path, ids: &[i64]) {
    change(dir, "running_tasks = 1", "running_tasks = 10");
    let service = Service::start_on(dir, "", "sqlite", &[]);
    for id in ids {
        let ended = service.watch(*id);
        assert_eq!(ended["status"], 5, "{ended}");
    }
}

#[test]
fn sec_f17_keys_rotate_reseals_data_of_a_running_service() {
    let server = slow_server();
    let at = server.endpoint();
    let dir = tempfile::tempdir().unwrap();
    let mut service = narrow_service(dir.path());
    let create = |i: usize| {
        let source = if i == 0 { "large" } else { "small" };
        service.create((&at, source), (&at, &format!("to{i}")))
    };
    let mut ids: Vec<i64> = (0..4).map(create).collect();
    let path = dir.path().join("data/seal.key");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("k1 "));
    let ended = AtomicBool::new(false);
    let (more, rotated) = std::thread::scope(|scope| {
        let creating = scope.spawn(|| {
            let going_on = |_: &usize| !ended.load(Ordering::Relaxed);
            (4..TARGETS).take_while(going_on).map(create).collect::<Vec<i64>>()
        });
        let rotated = keys(dir.path(), "rotate");
        ended.store(true, Ordering::Relaxed);
        (creating.join().unwrap(), rotated)
    });
    assert_eq!(rotated, json!({"key": "k2", "removed": ["k1"], "kept": []}));
    assert!(!more.is_empty(), "tasks were created while the key was replaced");
    ids.extend(more);
    let last = service.show(ids[ids.len() - 1]);
    assert_ne!(last["status"], 5, "the last task waits, and its secrets are in the database: {last}");

    // Nothing is sealed with the old key, and the old key is nowhere.
    let listed = keys(dir.path(), "list");
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((&listed["keys"][0]["name"], &listed["unknown_rows"]), (&json!("k2"), &json!(0)), "{listed}");
    assert!(listed["keys"][0]["rows"].as_u64().unwrap() >= 2, "the proof and the waiting tasks: {listed}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("k2 ") && text.lines().count() == 1);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(dir.path().join("whimbrel.toml")).unwrap();
    assert!(text.contains("\"v1:k2:") && !text.contains("v1:k1:"), "the access key is sealed with k2");

    service.child.kill().unwrap();
    service.child.wait().unwrap();
    drop(service);
    all_succeed(dir.path(), &ids);
}

#[test]
fn sec_f17_killed_keys_rotate_continues() {
    let server = slow_server();
    let at = server.endpoint();
    let dir = tempfile::tempdir().unwrap();
    let service = narrow_service(dir.path());
    let ids: Vec<i64> = (0..6)
        .map(|i| {
            let source = if i == 0 { "large" } else { "small" };
            service.create((&at, source), (&at, &format!("to{i}")))
        })
        .collect();
    drop(service);
    // A command that was killed when it had added its key leaves two of them.
    let path = dir.path().join("data/seal.key");
    let old = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("k2 {}\n{old}", "A".repeat(43))).unwrap();
    let service = Service::start_on(dir.path(), "", "sqlite", &[]);
    let began = Instant::now();
    loop {
        // The configuration is still sealed with the old key.
        let listed = keys(dir.path(), "list");
        if listed["keys"][1] == json!({"name": "k1", "rows": 0, "configuration": 1}) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "the service re-seals at its start: {listed}");
    }
    drop(service);
    // The next command removes the keys of both, without a service.
    let rotated = keys(dir.path(), "rotate");
    assert_eq!(rotated, json!({"key": "k3", "removed": ["k2", "k1"], "kept": []}));
    all_succeed(dir.path(), &ids);
}
