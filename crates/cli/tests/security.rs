//! Attacks on a running service that were seen to work, each by its number in cases/security.md.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::Service;

fn host(service: &Service) -> String {
    service.endpoint.strip_prefix("http://").unwrap().to_owned()
}

fn connect(service: &Service) -> TcpStream {
    let stream = TcpStream::connect(host(service)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// What comes back until the service closes, or until it has said all that it promised.
fn answer(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut some = [0; 4096];
    while let Ok(n) = stream.read(&mut some) {
        all.extend_from_slice(&some[..n]);
        let text = String::from_utf8_lossy(&all);
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: "));
            length.is_some_and(|n| body.len() >= n.parse().unwrap_or(0))
        });
        if n == 0 || whole {
            break;
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn ask(service: &Service, head: &str, body: &[u8]) -> String {
    let mut stream = connect(service);
    let text = format!("{head}\r\nhost: {}\r\n\r\n", host(service));
    stream.write_all(text.as_bytes()).unwrap();
    // A refusal may come before all is sent.
    let _ = stream.write_all(body);
    answer(&mut stream)
}

/// Memory of the service in MiB.
fn rss(service: &Service) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", service.child.id())).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn sec_f01_names_without_end_cost_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let before = rss(&service);
    for i in 0..100 {
        let ak = format!("{i}{}", "n".repeat(50_000));
        let head = format!(
            "GET /v2/p/tasks HTTP/1.1\r\nauthorization: SDK-HMAC-SHA256 Access={ak}, SignedHeaders=host, Signature={}",
            "0".repeat(64)
        );
        assert!(ask(&service, &head, b"").starts_with("HTTP/1.1 401"));
        let body = format!(
            r#"{{"auth":{{"identity":{{"methods":["hw_ak_sk"],"hw_ak_sk":{{"access":{{"key":"{ak}"}},"secret":{{"key":"x"}}}}}}}}}}"#
        );
        let head = format!("POST /v3/auth/tokens HTTP/1.1\r\ncontent-length: {}", body.len());
        assert!(ask(&service, &head, body.as_bytes()).starts_with("HTTP/1.1 413"));
    }
    assert!(rss(&service) < before + 32, "{before} MiB have become {}", rss(&service));
}

#[test]
fn sec_f31_a_stranger_is_refused_before_the_body() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let tasks = format!("/v2/{}/tasks", service.project);
    for head in [
        format!("POST {tasks} HTTP/1.1\r\ncontent-length: 1000"),
        format!("POST {tasks} HTTP/1.1\r\ncontent-length: 1000\r\nx-auth-token: {}", "A".repeat(43)),
        format!("POST {tasks} HTTP/1.1\r\ncontent-length: 100000000000000"),
    ] {
        let began = Instant::now();
        let text = ask(&service, &head, b"x");
        assert!(text.starts_with("HTTP/1.1 401"), "{head}: {text}");
        assert!(began.elapsed() < Duration::from_secs(3), "{head}");
    }
}

#[test]
fn sec_f06_bodies_that_never_come_leave_places_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let text =
        format!("POST /v3/auth/tokens HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000\r\n\r\nx", host(&service));
    let held: Vec<TcpStream> = (0..256)
        .map(|_| {
            let mut stream = connect(&service);
            let _ = stream.write_all(text.as_bytes());
            stream
        })
        .collect();
    assert!(ask(&service, "GET /healthz HTTP/1.1", b"").starts_with("HTTP/1.1 200"), "health has a reserve");
    assert!(ask(&service, "HEAD /healthz HTTP/1.1\r\nconnection: close", b"").starts_with("HTTP/1.1 200"));
    let mut first = held.into_iter().next().unwrap();
    assert!(answer(&mut first).starts_with("HTTP/1.1 408"), "a body has ten seconds");
}

#[test]
fn sec_f12_f20_large_bodies_are_for_those_who_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let sign_in = format!(
        r#"{{"auth":{{"identity":{{"methods":["hw_ak_sk"],"hw_ak_sk":{{"access":{{"key":"{}"}},"secret":{{"key":"{}"}}}}}},"scope":{{"project":{{"id":"{}"}}}}}}}}"#,
        service.ak, service.sk, service.project
    );
    let head = format!("POST /v3/auth/tokens HTTP/1.1\r\ncontent-length: {}", sign_in.len());
    let text = ask(&service, &head, sign_in.as_bytes());
    let token = text.lines().find_map(|l| l.strip_prefix("X-Subject-Token: ")).unwrap().to_owned();
    let post = |path: &str, n: usize| {
        let head = format!(
            "POST /v2/{}/{path} HTTP/1.1\r\nx-auth-token: {token}\r\ncontent-length: {n}",
            service.project
        );
        ask(&service, &head, &vec![b' '; n])
    };
    // An empty object is understood, however much space there is around it.
    let text = post("tasks", 11 << 20);
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("OMS.1004"), "{text}");
    for text in [post("tasks", 13 << 20), post("tasks/1/start", 100 << 10)] {
        assert!(text.starts_with("HTTP/1.1 413") && text.contains("APIGW.0201"), "{text}");
    }
    // F35: what cannot be read is refused in the same words as everything else.
    for path in ["tasks/%ff", "tasks?limit=x", "instances/%ff"] {
        let head = format!("GET /v2/{}/{path} HTTP/1.1\r\nx-auth-token: {token}", service.project);
        let text = ask(&service, &head, b"");
        assert!(
            text.starts_with("HTTP/1.1 4") && text.contains("\"error_code\"") && text.contains("request_id"),
            "{text}"
        );
    }
}

#[test]
fn sec_f11_guessing_passwords_costs_little() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let before = rss(&service);
    std::thread::scope(|scope| {
        for i in 0..100 {
            let service = &service;
            scope.spawn(move || {
                let body = format!(
                    r#"{{"auth":{{"identity":{{"methods":["password"],"password":{{"user":{{"name":"u{i}","password":"x"}}}}}}}}}}"#
                );
                let head = format!("POST /v3/auth/tokens HTTP/1.1\r\ncontent-length: {}", body.len());
                let text = ask(service, &head, body.as_bytes());
                assert!(text.starts_with("HTTP/1.1 401") || text.starts_with("HTTP/1.1 429"), "{text}");
            });
        }
    });
    assert!(rss(&service) < before + 128, "{before} MiB have become {}", rss(&service));
}
