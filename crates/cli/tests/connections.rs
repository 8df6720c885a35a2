//! How the service answers a known caller while strangers hold connections and guess passwords.
//!
//! `cargo x soak connections` prints the figures of the long form: 2,000 connections that are idle, or send a head or a body
//! without an end, and 600 sign-ins at once.
#![allow(clippy::disallowed_methods, reason = "a test is a client of the service")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::Service;

/// Threads of strangers.
const PARTS: usize = 4;

/// What a stranger sends and does not end.
const UNENDING: [&str; 3] = [
    "",
    "GET /v2/p/tasks HTTP/1.1\r\nhost: h\r\nx-a: ",
    "POST /v3/auth/tokens HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\n{",
];

/// The most memory that the service has had, MiB.
pub(crate) fn memory_mib(service: &Service) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", service.child.id())).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() / 1024
}

/// A request on a connection that is kept; its status, or none when the connection has ended.
fn ask(stream: &mut TcpStream, text: &str) -> Option<u16> {
    stream.write_all(text.as_bytes()).ok()?;
    let (mut all, mut some) = (Vec::new(), [0; 16 << 10]);
    loop {
        let n = stream.read(&mut some).ok().filter(|n| *n > 0)?;
        all.extend_from_slice(&some[..n]);
        let head = all.windows(4).position(|w| w == b"\r\n\r\n");
        let Some(head) = head else { continue };
        let text = String::from_utf8_lossy(&all[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if all.len() >= head + 4 + length.unwrap_or(0) {
            return text.split(' ').nth(1)?.parse().ok();
        }
    }
}

pub(crate) fn token(service: &Service, at: &str) -> String {
    let body = serde_json::json!({"auth": {
        "identity": {"methods": ["hw_ak_sk"], "hw_ak_sk": {"access": {"key": service.ak}, "secret": {"key": service.sk}}},
        "scope": {"project": {"id": service.project}}
    }})
    .to_string();
    let mut stream = TcpStream::connect(at).unwrap();
    let length = body.len();
    write!(stream, "POST /v3/auth/tokens HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().find_map(|l| l.strip_prefix("X-Subject-Token: ")).unwrap().to_owned()
}

#[test]
fn known_caller_is_answered_among_300_strangers() {
    requests_among_strangers(300, 40, 50);
}

#[test]
#[ignore = "soak: cargo x soak connections"]
fn soak_known_caller_is_answered_among_2000_strangers() {
    requests_among_strangers(2000, 600, 2000);
}

/// Keeps `count` connections whose requests never end, until it is over. A connection that the service has closed is
/// replaced, so that there are always as many.
fn hold_strangers(at: &str, part: usize, count: usize, over: &AtomicBool, connected: &AtomicUsize) {
    let (mut held, mut is_full) = (Vec::new(), false);
    while !over.load(Ordering::Relaxed) {
        if held.len() >= count {
            if !is_full {
                is_full = true;
                connected.fetch_add(1, Ordering::Relaxed);
            }
            held.remove(0);
        }
        let Ok(mut stream) = TcpStream::connect(at) else { continue };
        let _ = stream.write_all(UNENDING[(held.len() + part) % UNENDING.len()].as_bytes());
        held.push(stream);
        if held.len() >= count {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Signs in as a user that does not exist, twice a second, until it is over.
fn guess_passwords(at: &str, i: usize, over: &AtomicBool, guessed: &AtomicU64) {
    let body = format!(
        r#"{{"auth":{{"identity":{{"methods":["password"],"password":{{"user":{{"name":"u{i}","password":"x"}}}}}}}}}}"#
    );
    let text =
        format!("POST /v3/auth/tokens HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    while !over.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(at) else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        if ask(&mut stream, &text).is_some() {
            guessed.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::park_timeout(Duration::from_millis(500));
    }
}

/// Sends requests as a known caller once all strangers have connected. The descriptors that this process and
/// the service may have limit how many connections there can be.
#[allow(clippy::print_stdout, reason = "the soak's figures")]
fn requests_among_strangers(strangers: usize, sign_ins: usize, requests: usize) {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let at = service.endpoint.trim_start_matches("http://").to_owned();
    let get = format!(
        "GET /v2/{}/tasks HTTP/1.1\r\nhost: {at}\r\nx-auth-token: {}\r\n\r\n",
        service.project,
        token(&service, &at)
    );
    let (over, guessed, began_again) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    // Threads whose strangers have all connected.
    let connected = AtomicUsize::new(0);
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        for part in 0..PARTS {
            let (at, over, connected) = (&at, &over, &connected);
            scope.spawn(move || hold_strangers(at, part, strangers / PARTS, over, connected));
        }
        for i in 0..sign_ins {
            let (at, over, guessed) = (&at, &over, &guessed);
            scope.spawn(move || guess_passwords(at, i, over, guessed));
        }
        let began = Instant::now();
        while connected.load(Ordering::Relaxed) < PARTS {
            assert!(began.elapsed() < Duration::from_secs(60), "the strangers cannot connect");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let mut stream = TcpStream::connect(&at).unwrap();
        while times.len() < requests {
            let began = Instant::now();
            match ask(&mut stream, &get) {
                Some(status) => {
                    assert_eq!(status, 200);
                    times.push(began.elapsed());
                }
                // It was turned out as a stranger before its first request was read, or between two.
                None => {
                    began_again.fetch_add(1, Ordering::Relaxed);
                    stream = TcpStream::connect(&at).unwrap();
                }
            }
            assert!(began_again.load(Ordering::Relaxed) < 1000, "no request comes through");
        }
        over.store(true, Ordering::Relaxed);
    });
    times.sort_unstable();
    println!(
        "{strangers} strangers, {sign_ins} sign-ins: GET p50 {:?}, p99 {:?}, {} times begun again, {} sign-ins answered, memory at most {} MiB",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        began_again.into_inner(),
        guessed.into_inner(),
        memory_mib(&service)
    );
}
