//! Attacks on a running service that were seen to work, each by its number in cases/security.md.
#![allow(clippy::disallowed_methods, reason = "a test is a client of the service")]

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
fn sec_f01_long_user_names_use_bounded_memory() {
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
fn sec_f31_rejected_request_gets_no_100_continue() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let expects = "content-length: 1000\r\nexpect: 100-continue";
    for (head, status) in [
        (format!("POST /v2/{}/tasks HTTP/1.1\r\n{expects}", service.project), "401"),
        (format!("POST /v2/{}/tasks HTTP/1.1\r\n{expects}\r\nx-auth-token: AAAA", service.project), "401"),
        ("POST /v3/auth/tokens HTTP/1.1\r\ncontent-length: 100000\r\nexpect: 100-continue".to_owned(), "413"),
    ] {
        let text = ask(&service, &head, b"");
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "no 100 before it: {text}");
        assert!(text.to_ascii_lowercase().contains("connection: close"), "{text}");
    }
    let sign_in =
        "POST /v3/auth/tokens HTTP/1.1\r\ncontent-length: 2\r\nexpect: 100-continue\r\nconnection: close";
    assert!(ask(&service, sign_in, b"{}").starts_with("HTTP/1.1 100"), "who may go on is told so");
}

#[test]
fn sec_f31_unauthenticated_request_is_rejected_before_its_body() {
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
fn sec_f06_get_with_late_body_keeps_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let mut stream = connect(&service);
    for path in ["/healthz", "/readyz", "/", "/v2", "/healthz"] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        std::thread::park_timeout(Duration::from_millis(20));
        stream.write_all(b"{}").unwrap();
        let text = answer(&mut stream);
        assert!(text.starts_with("HTTP/1.1 200"), "{path}: {text}");
        assert!(!text.to_ascii_lowercase().contains("connection: close"), "{path}: {text}");
    }
}

#[test]
fn sec_f06_missing_bodies_do_not_use_up_all_connections() {
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
fn sec_f35_invalid_http_is_rejected_with_an_error_body() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let many: String = (0..200).map(|i| format!("x-{i}: 1\r\n")).collect();
    for (head, status) in [
        (format!("GET /v2/p/tasks HTTP/1.1\r\n{}", many.trim_end()), "431"),
        ("GET / HTTP/1.1\r\ncontent-length: x".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nx-a: 1\rx-b: 2".to_owned(), "400"),
        ("GET / HTTP/7.1".to_owned(), "400"),
    ] {
        let text = ask(&service, &head, b"");
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
        let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
        let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {text}"));
        let words =
            ["error_code", "error_msg", "request_id"].map(|key| body[key].as_str().unwrap_or_default());
        assert!(words.iter().all(|word| !word.is_empty()), "{text}");
    }
}

/// A token of the first key.
fn token(service: &Service) -> String {
    let sign_in = format!(
        r#"{{"auth":{{"identity":{{"methods":["hw_ak_sk"],"hw_ak_sk":{{"access":{{"key":"{}"}},"secret":{{"key":"{}"}}}}}},"scope":{{"project":{{"id":"{}"}}}}}}}}"#,
        service.ak, service.sk, service.project
    );
    let head = format!("POST /v3/auth/tokens HTTP/1.1\r\ncontent-length: {}", sign_in.len());
    let text = ask(service, &head, sign_in.as_bytes());
    text.lines().find_map(|l| l.strip_prefix("X-Subject-Token: ")).unwrap().to_owned()
}

/// A store that answers one byte a second, without an end.
fn trickling_store() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 4096]);
                let head =
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\ncontent-length: 100000\r\n\r\n<";
                let mut open = stream.write_all(head).is_ok();
                while open {
                    std::thread::park_timeout(Duration::from_secs(1));
                    open = stream.write_all(b" ").is_ok();
                }
            });
        }
    });
    endpoint
}

#[test]
fn sec_f14_trickling_store_does_not_stop_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let (token, store) = (token(&service), trickling_store());
    let body = serde_json::json!({"cloud_type": "AWS", "data_center": store, "ak": "a", "sk": "b",
        "bucket_name": "bucket", "file_path": "", "page_size": 10, "behind_filename": ""})
    .to_string();
    let send = || {
        let mut stream = connect(&service);
        let head = format!(
            "POST /v2/{}/objectstorage/buckets/objects HTTP/1.1\r\nhost: h\r\nx-auth-token: {token}\r\ncontent-length: {}\r\n\r\n",
            service.project,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        stream
    };
    let mut calls: Vec<TcpStream> = (0..40).map(|_| send()).collect();
    // Those beyond the limit are refused at once; the others wait for the store.
    let (began, mut refused) = (Instant::now(), 0);
    while refused < 24 && began.elapsed() < Duration::from_secs(20) {
        calls.retain_mut(|call| {
            call.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            if call.peek(&mut [0]).is_err() {
                return true;
            }
            call.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let text = answer(call);
            refused += usize::from(text.starts_with("HTTP/1.1 429") && text.contains("APIGW.0308"));
            false
        });
    }
    assert!(refused >= 24, "{refused} of 40 calls were refused");
    let head = format!("GET /v2/{}/tasks HTTP/1.1\r\nx-auth-token: {token}", service.project);
    assert!(ask(&service, &head, b"").starts_with("HTTP/1.1 200"));
}

#[test]
fn sec_f12_f20_large_bodies_require_authentication() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let token = token(&service);
    let post = |path: &str, n: usize| {
        let head = format!(
            "POST /v2/{}/{path} HTTP/1.1\r\nx-auth-token: {token}\r\ncontent-length: {n}",
            service.project
        );
        ask(&service, &head, &vec![b' '; n])
    };
    // An empty object is understood, however much space there is around it.
    let text = post("tasks", 3 << 20);
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("OMS.1004"), "{text}");
    for text in [post("tasks", 5 << 20), post("tasks/1/start", 100 << 10)] {
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
fn sec_f26_change_of_a_client_that_disconnects_is_audited() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.jsonl");
    let service = Service::start(dir.path(), &format!("\n[audit]\nfile = \"{}\"\n", file.display()));
    let body = format!(
        r#"{{"auth":{{"identity":{{"methods":["hw_ak_sk"],"hw_ak_sk":{{"access":{{"key":"{}"}},"secret":{{"key":"{}"}}}}}}}}}}"#,
        service.ak, service.sk
    );
    for i in 0..80 {
        let mut stream = connect(&service);
        let head =
            format!("POST /v3/auth/tokens HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
        std::thread::park_timeout(Duration::from_micros(150 * i));
    }
    let head = format!("GET /v3/auth/tokens HTTP/1.1\r\nx-auth-token: {}", token(&service));
    let counts = || {
        let tokens = ask(&service, &head, b"").matches("issued_at").count();
        let audit = std::fs::read_to_string(&file).unwrap();
        let issued = |line: &&str| line.contains("/v3/auth/tokens") && line.contains("201");
        (tokens, audit.lines().filter(issued).count())
    };
    let (began, mut last) = (Instant::now(), counts());
    while last.0 != last.1 && began.elapsed() < Duration::from_secs(10) {
        std::thread::park_timeout(Duration::from_millis(200));
        last = counts();
    }
    assert!(
        last.0 == last.1 && last.0 > 0,
        "{} tokens were issued, {} are in the audit trail",
        last.0,
        last.1
    );
}

#[test]
fn sec_f37_refused_requests_do_not_fill_or_forge_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    for _ in 0..150 {
        let head = format!("GET /v2/{}\u{202e}\u{9b}31m{} HTTP/1.1", "x".repeat(100), "y".repeat(20_000));
        let text = ask(&service, &head, b"");
        assert!(text.starts_with("HTTP/1.1 4"), "{text}");
    }
    service.wait_for_log("/v2/xxx");
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let refused: Vec<&str> = log.lines().filter(|line| line.contains("/v2/xxx")).collect();
    assert!(refused.len() <= 60, "{} lines for 150 requests of one address", refused.len());
    for line in refused {
        assert!(line.len() < 2000 && !line.contains(['\u{202e}', '\u{9b}']), "{line}");
    }
}

/// Signs in with a password from an address of this machine; the status of the answer.
fn sign_in(service: &Service, from: &str, name: &str, password: &str) -> Option<u16> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(format!("{from}:0").parse().unwrap())?;
        socket.connect(host(service).parse().unwrap()).await?.into_std()
    });
    let mut stream = stream.ok()?;
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let body = serde_json::json!({"auth": {"identity": {
        "methods": ["password"], "password": {"user": {"name": name, "password": password}}}}})
    .to_string();
    let head = format!("POST /v3/auth/tokens HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).ok()?;
    answer(&mut stream).split(' ').nth(1)?.parse().ok()
}

#[test]
fn sec_f11_nine_busy_addresses_do_not_block_sign_in_from_a_tenth() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let keys = std::fs::read_to_string(dir.path().join("keys")).unwrap();
    let password = keys.split("password: ").nth(1).unwrap().trim();
    let over = std::sync::atomic::AtomicBool::new(false);
    let mut waited = Vec::new();
    std::thread::scope(|scope| {
        for i in 0..9 * 6 {
            let (service, over) = (&service, &over);
            scope.spawn(move || {
                let mut n = 0;
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    n += 1;
                    sign_in(service, &format!("127.0.0.{}", 10 + i % 9), &format!("u{i}-{n}"), "x");
                }
            });
        }
        std::thread::park_timeout(Duration::from_secs(1));
        for _ in 0..5 {
            let began = Instant::now();
            let status = sign_in(&service, "127.0.0.99", "admin", password);
            waited.push((status, began.elapsed()));
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    // At most 32 checks are before it: 20 s where one takes as long as it does without optimisation.
    let fine =
        |(status, time): &(Option<u16>, Duration)| *status == Some(201) && *time < Duration::from_secs(20);
    assert!(waited.iter().all(fine), "{waited:?}");
}

#[test]
fn sec_f11_password_guessing_uses_bounded_cpu() {
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
