//! A running service: killed and started again, it goes on by itself.
#![allow(clippy::disallowed_methods, reason = "a test is a client of the service")]

use testkit::content::Content;
use testkit::{Options, S3Server};

use crate::support::Service;

#[test]
fn killed_service_resumes_tasks_after_restart() {
    let server =
        S3Server::start(Options { delay: std::time::Duration::from_millis(2), ..Options::default() });
    let source = server.bucket("from");
    for i in 0..3000 {
        source.put(&format!("k{i:05}"), format!("{i}"));
    }
    source.put_with("large", Content::Pattern(64 << 20), Some(8 << 20), &[]);
    server.bucket("to");
    let dir = tempfile::tempdir().unwrap();
    let at = server.endpoint();
    let mut service = Service::start(dir.path(), "");
    let id = service.create((&at, "from"), (&at, "to"));
    while server.bucket("to").len() < 300 {
        std::thread::yield_now();
    }
    service.child.kill().unwrap();
    service.child.wait().unwrap();
    drop(service);
    let service = Service::start(dir.path(), "");
    let ended = service.watch(id);
    assert_eq!(ended["status"], 5, "{ended}");
    assert_eq!(
        (ended["successful_num"].as_u64(), ended["skipped_num"].as_u64()),
        (Some(3001), Some(0)),
        "{ended}"
    );
    assert_eq!(ended["total_num"], 3001);
    assert!(ended["start_time"].is_i64() && ended["progress"] == 1.0);
    let copied = server.bucket("to").objects();
    assert_eq!(copied.iter().filter(|(k, _)| !k.starts_with("oms/")).count(), 3001);
    let record = copied.iter().find(|(k, _)| k.ends_with(".success_list.txt"));
    let (key, list) = record.expect("a success list");
    assert!(key.starts_with(&format!("oms/task/{}/success_object_lists/", ended["name"].as_str().unwrap())));
    let lines = String::from_utf8(list.content.bytes(0..list.content.len())).unwrap();
    assert_eq!(lines.lines().count(), 3001, "one line per object");
    let log = std::fs::read_to_string(service.dir.join("log")).unwrap_or_default();
    assert!(!log.contains(&service.sk) && !log.contains(testkit::servers::KEYS.1), "no secret in the log");
}

#[test]
fn sec_f23_metrics_require_authentication_or_a_separate_address() {
    use std::io::{Read, Write};
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Keys of the top level stand before the first section.
    drop(Service::start(dir.path(), ""));
    let path = dir.path().join("whimbrel.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("metrics_listen = \"{free}\"\n{text}")).unwrap();
    let service = Service::start(dir.path(), "");
    let with = |at: &str, path: &str, more: &str| {
        let mut stream = std::net::TcpStream::connect(at).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\n{more}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let get = |at: &str, path: &str| with(at, path, "");
    let api = service.endpoint.trim_start_matches("http://");
    // This machine reads sums, through whatever proxy, and what says that it comes from elsewhere must say who it is.
    let sums = get(api, "/metrics");
    assert!(
        sums.starts_with("HTTP/1.1 200") && !sums.contains(&service.project) && !sums.contains("task="),
        "{sums}"
    );
    assert!(with(api, "/metrics", "X-Forwarded-For: 192.0.2.1\r\n").starts_with("HTTP/1.1 401"));
    let own = get(&free.to_string(), "/metrics");
    assert!(own.starts_with("HTTP/1.1 200") && own.contains("whimbrel_open_tasks 0"), "{own}");
    assert!(get(&free.to_string(), "/healthz").starts_with("HTTP/1.1 404"));
}

#[test]
fn sec_f25_reload_applies_limits() {
    let server = S3Server::start(Options::default());
    server.bucket("from").put("k", "x");
    server.bucket("to");
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let at = server.endpoint();
    service.create((&at, "from"), (&at, "to"));
    let path = dir.path().join("whimbrel.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("running_tasks = 5", "tasks_per_day = 1\nrunning_tasks = 5")).unwrap();
    let hup = std::process::Command::new("kill").args(["-HUP", &service.child.id().to_string()]).status();
    assert!(hup.unwrap().success());
    let (from, to) = (format!("{at}:from"), format!("{at}:to"));
    let began = std::time::Instant::now();
    loop {
        let refused = service.task(&["create", &from, &to]);
        if String::from_utf8_lossy(&refused.stderr).contains("OMS.0077") {
            break;
        }
        assert!(began.elapsed().as_secs() < 20, "the limit was not taken over");
    }
}

#[test]
fn m7_reload_without_accounts_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    std::fs::write(dir.path().join("whimbrel.toml"), "").unwrap();
    let hup = std::process::Command::new("kill").args(["-HUP", &service.child.id().to_string()]).status();
    assert!(hup.unwrap().success());
    service.wait_for_log("configuration reload failed");
    assert!(service.task(&["list"]).status.success(), "the accounts of before stay");
}

#[test]
fn sec_f27_project_over_quota_is_rejected() {
    let server = S3Server::start(Options::default());
    server.bucket("from").put("k", "x");
    server.bucket("to");
    let dir = tempfile::tempdir().unwrap();
    drop(Service::start(dir.path(), ""));
    let path = dir.path().join("whimbrel.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let none = "open_migrations = 0\ntasks_per_day = 0\nrunning_tasks = 5";
    std::fs::write(&path, text.replace("running_tasks = 5", none)).unwrap();
    let service = Service::start(dir.path(), "");
    let mut command = crate::support::whimbrel();
    command.args(["redis", "task", "create", "127.0.0.1:1", "127.0.0.1:2"]);
    command.env("WHIMBREL_ENDPOINT", &service.endpoint).env("WHIMBREL_PROJECT", &service.project);
    command.env("WHIMBREL_AK", &service.ak).env("WHIMBREL_SK", &service.sk);
    let migration = command.output().unwrap();
    let at = server.endpoint();
    let task = service.task(&["create", &format!("{at}:from"), &format!("{at}:to")]);
    for (refused, code) in [(migration, "DCS.4039"), (task, "OMS.0077")] {
        assert!(!refused.status.success(), "{code}");
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(text.contains(code), "{code} is missing in {text}");
    }
}

#[test]
fn sec_f26_audit_lines_are_written_to_a_file_that_can_be_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.jsonl");
    let mut service = Service::start(dir.path(), &format!("\n[audit]\nfile = \"{}\"\n", file.display()));
    service.sk = "wrong".into();
    let lines = |file: &std::path::Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    assert!(!service.task(&["list"]).status.success());
    let shipped = lines(&file);
    assert!(!shipped.is_empty() && shipped.iter().all(|l| l["status"] == 401), "{shipped:?}");
    let old = dir.path().join("audit.jsonl.1");
    std::fs::rename(&file, &old).unwrap();
    let hup = std::process::Command::new("kill").args(["-HUP", &service.child.id().to_string()]).status();
    assert!(hup.unwrap().success());
    service.wait_for_log("configuration reloaded");
    assert!(!service.task(&["list"]).status.success());
    assert!(
        lines(&old).len() == shipped.len() && !lines(&file).is_empty(),
        "the new lines are in the new file"
    );
}

#[test]
fn sec_f26_rejected_requests_are_audited() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::start(dir.path(), "");
    let right = std::mem::replace(&mut service.sk, "wrong".into());
    assert!(!service.task(&["list"]).status.success());
    service.sk = right;
    let refused = service.task(&["delete", "1"]);
    assert!(!refused.status.success());
    let lines = crate::support::json(&service.task(&["audit"]));
    let lines = lines["lines"].as_array().unwrap();
    let found = |status: u64, role: &str| {
        let mine = |l: &&serde_json::Value| {
            l["status"] == status && l["role"] == role && l["principal"] == service.ak.as_str()
        };
        lines.iter().find(mine).unwrap_or_else(|| panic!("{status} {role}: {lines:?}"))
    };
    let bad = found(401, "");
    assert!(bad["address"] == "127.0.0.1" && bad["action"] == "GET", "{bad}");
    let deleted = found(400, "operator");
    assert!(deleted["action"] == "DELETE" && deleted["project_id"] == service.project.as_str(), "{deleted}");
}

#[test]
fn sec_f26_token_sign_in_is_audited_with_its_user() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    drop(Service::start(dir.path(), ""));
    // An administrator reads lines that belong to no project, such as sign-ins.
    let config = dir.path().join("whimbrel.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("role = \"operator\"", "role = \"admin\"")).unwrap();
    let service = Service::start(dir.path(), "");
    let at = service.endpoint.trim_start_matches("http://").to_owned();
    let sign_in = |identity: serde_json::Value| {
        let scope = serde_json::json!({"project": {"id": service.project}});
        let body = serde_json::json!({"auth": {"identity": identity, "scope": scope}}).to_string();
        let mut stream = std::net::TcpStream::connect(&at).unwrap();
        let length = body.len();
        write!(stream, "POST /v3/auth/tokens HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let token = text.lines().find_map(|l| l.strip_prefix("X-Subject-Token: "));
        token.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let key = serde_json::json!({"access": {"key": service.ak}, "secret": {"key": service.sk}});
    let token = sign_in(serde_json::json!({"methods": ["hw_ak_sk"], "hw_ak_sk": key}));
    sign_in(serde_json::json!({"methods": ["token"], "token": {"id": token}}));
    let lines = crate::support::json(&service.task(&["audit"]));
    let signed_in = |l: &&serde_json::Value| l["target"] == "/v3/auth/tokens" && l["status"] == 201;
    let who: Vec<_> =
        lines["lines"].as_array().unwrap().iter().filter(signed_in).map(|l| &l["principal"]).collect();
    assert_eq!(who, [service.ak.as_str(), service.ak.as_str()], "{lines}");
}

#[test]
fn all_operations_require_authentication() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::start(dir.path(), "");
    let right = std::mem::replace(&mut service.sk, "wrong".into());
    let refused = service.task(&["list"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("APIGW.0301"));
    service.sk = right;
    assert!(service.task(&["list"]).status.success());
    let project = std::mem::replace(&mut service.project, "0".repeat(32));
    let refused = service.task(&["list"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("APIGW.0302"));
    service.project = project;
}

/// What scripts look for with grep, and what Keystone's clients ask first.
#[test]
fn cl_f07_header_names_and_version_discovery_match_the_contract() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let at = service.endpoint.trim_start_matches("http://").to_owned();
    let ask = |head: String, body: &str| {
        let mut stream = std::net::TcpStream::connect(&at).unwrap();
        let length = body.len();
        write!(stream, "{head}\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let (ak, sk) = (&service.ak, &service.sk);
    let body = serde_json::json!({"auth": {
        "identity": {"methods": ["hw_ak_sk"], "hw_ak_sk": {"access": {"key": ak}, "secret": {"key": sk}}},
        "scope": {"project": {"id": service.project}}
    }});
    let answer = ask("POST /v3/auth/tokens HTTP/1.1".to_owned(), &body.to_string());
    assert!(answer.starts_with("HTTP/1.1 201") && answer.contains("\r\nX-Subject-Token: "), "{answer}");
    for path in ["/v3", "/v3/"] {
        let answer = ask(format!("GET {path} HTTP/1.1"), "");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"v3.0\""), "{path}: {answer}");
    }
}

/// Reads the head of a response.
fn read_head(stream: &mut std::net::TcpStream) -> String {
    use std::io::Read;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn sec_f24_shutdown_finishes_requests_in_progress() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::start(dir.path(), "");
    let at = service.endpoint.strip_prefix("http://").unwrap().to_owned();
    let body = r#"{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"admin","password":"wrong"}}}}}"#;
    let head = format!(
        "POST /v3/auth/tokens HTTP/1.1\r\nhost: {at}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut idle = std::net::TcpStream::connect(&at).unwrap();
    write!(idle, "HEAD /healthz HTTP/1.1\r\nhost: {at}\r\n\r\n").unwrap();
    assert!(read_head(&mut idle).starts_with("HTTP/1.1 200"));
    let mut stream = std::net::TcpStream::connect(&at).unwrap();
    // The service waits for the rest of a body when it is told to stop.
    stream.write_all(head.as_bytes()).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 100"));
    stream.write_all(&body.as_bytes()[..10]).unwrap();
    let stopped = std::process::Command::new("kill").arg(service.child.id().to_string()).status().unwrap();
    assert!(stopped.success());
    // The shutdown has begun when idle connections are closed.
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    stream.write_all(&body.as_bytes()[10..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(service.child.wait().unwrap().success());
}

/// The status line of a GET; empty when the connection was closed without an answer, none when nobody listens.
fn status_line(at: &str, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(at).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    Some(answer.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn h6_service_answers_when_its_log_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    drop(Service::start(dir.path(), ""));
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (name, stderr) in [("a full disk", full.into()), ("a closed pipe", std::process::Stdio::from(closed))]
    {
        let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command = crate::support::whimbrel();
        command.args(["serve", "--listen", &at, "--config"]).arg(dir.path().join("whimbrel.toml"));
        let mut child = command.stdout(std::process::Stdio::null()).stderr(stderr).spawn().unwrap();
        let health = loop {
            assert!(child.try_wait().unwrap().is_none(), "{name}: the service has ended");
            match status_line(&at, "/healthz") {
                Some(line) => break line,
                None => std::thread::yield_now(),
            }
        };
        let refused = status_line(&at, "/v2/p/tasks").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(health.starts_with("HTTP/1.1 200"), "{name}: {health}");
        assert!(refused.starts_with("HTTP/1.1 401"), "{name}: {refused}");
    }
}
