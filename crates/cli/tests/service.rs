//! A running service: killed and started again, it goes on by itself.

use testkit::content::Content;
use testkit::{Options, S3Server};

use crate::support::Service;

#[test]
fn a_killed_service_goes_on_by_itself() {
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
fn nothing_answers_without_authentication() {
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
fn cl_f07_names_of_headers_and_discovery() {
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
