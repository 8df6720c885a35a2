//! Seeded requests over all routes, of callers and of strangers: no panic, no 5xx, errors of one shape, bounded memory.
//!
//! 2,000 requests among the ordinary tests; `cargo x soak requests` sends 100,000.
#![allow(clippy::disallowed_methods, reason = "a test is a client of the service")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Map, Value, json};

use crate::connections::{memory_mib, token};
use crate::support::Service;

const THREADS: u64 = 2;
/// What `limits.memory` of the test's configuration is, and what the rest of the process may take.
const MEMORY_MIB: u64 = 512 + 128;
/// What memory may grow by between the first quarter and the end.
const GROWTH_MIB: u64 = 64;
/// A caller's token is asked for again after so many requests: one of them may have ended it.
const REQUESTS_PER_TOKEN: u64 = 400;

struct Route {
    method: String,
    path: String,
    query: Vec<String>,
    body: Value,
}

/// All operations of the API's description, and other paths.
fn routes() -> Vec<Route> {
    let described = api::openapi::document();
    let mut routes = Vec::new();
    for (path, operations) in described["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let query =
                parameters.filter(|p| p["in"] == "query").map(|p| p["name"].as_str().unwrap().to_owned());
            routes.push(Route {
                method: method.to_uppercase(),
                path: path.clone(),
                query: query.collect(),
                body: operation["requestBody"]["content"]["application/json"]["schema"].clone(),
            });
        }
    }
    for path in ["/", "/v1", "/v2", "/v3", "/healthz", "/readyz", "/metrics", "/nowhere"] {
        routes.push(Route { method: "GET".into(), path: path.into(), query: vec![], body: Value::Null });
    }
    routes
}

fn choose<'a>(random: &mut Rng, among: &[&'a str]) -> &'a str {
    among[random.usize(..among.len())]
}

/// A string: often one that means something, sometimes one that is long or not of letters.
fn word(random: &mut Rng) -> String {
    match random.u8(..16) {
        0 => "x".repeat(random.usize(1..4000)),
        1 => (0..random.usize(1..30)).map(|_| random.char(..)).collect(),
        2 => "http://127.0.0.1:1".to_owned(),
        3 => "127.0.0.1:1".to_owned(),
        _ => choose(
            random,
            &[
                "",
                "a",
                "1",
                "0",
                "-1",
                "9223372036854775808",
                "nowhere",
                "../x",
                "a/b",
                "%ff",
                "*",
                "**/",
                "\u{0}",
                "AWS",
                "HEC",
                "list",
                "prefix",
                "object",
                "src",
                "dst",
                "2026-01-01T00:00:00Z",
                "00:00",
                "true",
                "null",
                "\u{4e2d}\u{6587}",
                "0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f10",
            ],
        )
        .to_owned(),
    }
}

/// Any JSON.
fn odd(random: &mut Rng, depth: u8) -> Value {
    match random.u8(..8) {
        0 => Value::Null,
        1 => random.bool().into(),
        2 => random.i64(..).into(),
        3 => json!(random.f64() * 1e300),
        4 if depth < 6 => (0..random.usize(..4)).map(|_| odd(random, depth + 1)).collect(),
        5 if depth < 6 => {
            let fields = (0..random.usize(..4)).map(|_| (word(random), odd(random, depth + 1)));
            Value::Object(fields.collect())
        }
        6 => json!({"a": vec![json!([]); random.usize(..200)]}),
        _ => word(random).into(),
    }
}

/// A body as its schema describes it, mostly.
fn body(schema: &Value, random: &mut Rng, depth: u8) -> Value {
    if random.u8(..25) == 0 {
        return odd(random, depth);
    }
    let among = schema["enum"].as_array().filter(|all| !all.is_empty());
    match (schema["type"].as_str(), among) {
        (_, Some(all)) => all[random.usize(..all.len())].clone(),
        (Some("object"), _) => {
            let mut fields = Map::new();
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let needed = schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
                if random.u8(..16) < if needed { 15 } else { 6 } {
                    fields.insert(name.clone(), body(field, random, depth + 1));
                }
            }
            Value::Object(fields)
        }
        (Some("array"), _) => {
            (0..random.usize(..4)).map(|_| body(&schema["items"], random, depth + 1)).collect()
        }
        (Some("integer" | "number"), _) => match random.u8(..4) {
            0 => random.i64(..).into(),
            _ => random.i64(-1..200).into(),
        },
        (Some("boolean"), _) => random.bool().into(),
        (Some("string"), _) => word(random).into(),
        _ => odd(random, depth),
    }
}

/// Percent-encoded, so that the request stays one of HTTP.
fn encoded(text: &str) -> String {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    text.bytes().map(|b| if letter(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

struct Asked {
    method: String,
    head: String,
    body: Vec<u8>,
    known: bool,
}

fn request(route: &Route, service: &Service, token: &str, random: &mut Rng) -> Asked {
    let known = random.u8(..8) > 1;
    let method = match random.u8(..20) {
        0 => choose(random, &["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "XYZ"]).to_owned(),
        _ => route.method.clone(),
    };
    let segments = route.path.split('/').map(|segment| match segment {
        "{project_id}" if random.u8(..30) > 0 => service.project.clone(),
        parameter if parameter.starts_with('{') => encoded(&word(random)),
        fixed => fixed.to_owned(),
    });
    let mut target = segments.collect::<Vec<_>>().join("/");
    for (i, name) in route.query.iter().filter(|_| random.bool()).collect::<Vec<_>>().into_iter().enumerate()
    {
        target.push_str(&format!("{}{name}={}", if i == 0 { '?' } else { '&' }, encoded(&word(random))));
    }
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: h\r\n");
    match (known, random.u8(..3)) {
        (true, _) => head.push_str(&format!("x-auth-token: {token}\r\n")),
        (false, 0) => {
            let signature = "0".repeat(64);
            let ak = if random.bool() { service.ak.clone() } else { encoded(&word(random)) };
            head.push_str(&format!(
                "x-sdk-date: 20260115T083000Z\r\nauthorization: SDK-HMAC-SHA256 Access={ak}, SignedHeaders=x-sdk-date, Signature={signature}\r\n"
            ));
        }
        (false, 1) => head.push_str(&format!("x-auth-token: {}\r\n", encoded(&word(random)))),
        (false, _) => {}
    }
    if random.u8(..6) == 0 {
        head.push_str("x-language: zh-cn\r\n");
    }
    if random.u8(..20) == 0 {
        head.push_str(&format!(
            "x-project-id: {}\r\nx-subject-token: {}\r\n",
            encoded(&word(random)),
            "A".repeat(43)
        ));
    }
    let mut bytes = match (route.body.is_null(), random.u8(..10)) {
        (true, 0) => odd(random, 0).to_string().into_bytes(),
        (true, _) => vec![],
        (false, _) => body(&route.body, random, 0).to_string().into_bytes(),
    };
    if !bytes.is_empty() && random.u8(..20) == 0 {
        let at = random.usize(..bytes.len());
        bytes[at] = random.u8(..);
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", bytes.len()));
    Asked { method, head, body: bytes, known }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    closes: bool,
}

/// None: the connection ended before an answer.
fn answer(stream: &mut TcpStream, of_head: bool) -> Option<Answer> {
    let (mut all, mut some) = (Vec::new(), [0; 16 << 10]);
    loop {
        let n = stream.read(&mut some).ok().filter(|n| *n > 0)?;
        all.extend_from_slice(&some[..n]);
        let Some(end) = all.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
        let body = &all[end + 4..];
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let is_whole = match length {
            _ if of_head => true,
            Some(length) => body.len() >= length,
            None if head.contains("transfer-encoding: chunked") => body.ends_with(b"0\r\n\r\n"),
            None => true,
        };
        if is_whole {
            let status = head.split(' ').nth(1)?.parse().ok()?;
            return Some(Answer { status, body: body.to_vec(), closes: head.contains("connection: close") });
        }
    }
}

#[derive(Default)]
struct Counts {
    succeeded: u64,
    of_known: u64,
    cut: u64,
}

fn check(asked: &Asked, answer: &Answer, at: &str) {
    let shown = || format!("{at}: {}{}", asked.head, String::from_utf8_lossy(&asked.body));
    let text = String::from_utf8_lossy(&answer.body);
    assert!(answer.status < 500, "HTTP {} {text}\n{}", answer.status, shown());
    if answer.status >= 400 && asked.method != "HEAD" {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let has_shape = body["error_code"].is_string() || body["error"].is_object();
        assert!(has_shape, "HTTP {} with another body: {text}\n{}", answer.status, shown());
    }
}

/// Sends `count` requests of one seed.
fn send(service: &Service, at: &str, seed: u64, count: u64) -> Counts {
    let routes = routes();
    let mut random = Rng::with_seed(seed);
    let mut counts = Counts::default();
    let mut own = String::new();
    let mut stream: Option<TcpStream> = None;
    for i in 0..count {
        if i % REQUESTS_PER_TOKEN == 0 {
            own = token(service, at);
        }
        let asked = request(&routes[random.usize(..routes.len())], service, &own, &mut random);
        let at_request = format!("seed {seed}, request {i}");
        let mut connection = stream.take().unwrap_or_else(|| {
            let fresh = TcpStream::connect(at).unwrap();
            fresh.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            fresh
        });
        let sent = connection.write_all(&[asked.head.as_bytes(), &asked.body].concat());
        let Some(answer) = sent.ok().and_then(|()| answer(&mut connection, asked.method == "HEAD")) else {
            counts.cut += 1;
            continue;
        };
        check(&asked, &answer, &at_request);
        counts.of_known += u64::from(asked.known);
        counts.succeeded += u64::from(asked.known && answer.status < 300);
        stream = (!answer.closes).then_some(connection);
    }
    counts
}

#[test]
fn sec_random_requests_are_all_answered() {
    random_requests_are_answered(2_000);
}

#[test]
#[ignore = "soak: cargo x soak requests"]
fn soak_100_000_random_requests_are_answered() {
    random_requests_are_answered(100_000);
}

fn random_requests_are_answered(total: u64) {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let at = service.endpoint.trim_start_matches("http://").to_owned();
    let (mut all, mut early) = (Counts::default(), 0);
    for (part, share) in [(0, total / 4), (1, total - total / 4)] {
        let counts: Vec<Counts> = std::thread::scope(|scope| {
            let (service, at) = (&service, &at);
            let senders: Vec<_> = (0..THREADS)
                .map(|n| scope.spawn(move || send(service, at, 0x5eed + part * THREADS + n, share / THREADS)))
                .collect();
            senders.into_iter().map(|sender| sender.join().unwrap()).collect()
        });
        for c in counts {
            all.succeeded += c.succeeded;
            all.of_known += c.of_known;
            all.cut += c.cut;
        }
        if part == 0 {
            early = memory_mib(&service);
        }
    }
    let peak = memory_mib(&service);
    println!(
        "{total} requests: {} of {} with a token succeeded, {} connections were cut, memory at most {early} and then {peak} MiB",
        all.succeeded, all.of_known, all.cut
    );
    assert!(all.succeeded * 20 > all.of_known, "the requests reach the handlers");
    assert!(all.cut * 500 <= total, "{} connections ended without an answer", all.cut);
    assert!(peak < MEMORY_MIB && peak < early + GROWTH_MIB, "{early} MiB became {peak}");
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let bad = log.lines().find(|l| l.contains("panic"));
    assert!(bad.is_none(), "{}", bad.unwrap_or_default());
    let mut stream = TcpStream::connect(&at).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
    assert_eq!(answer(&mut stream, false).unwrap().status, 200, "ready at the end");
}
