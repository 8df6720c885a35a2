//! `whimbrel redis …` against real servers.

use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::redis::{Connection, Redis};

use crate::support::{json, whimbrel};

fn redis(args: &[&str]) -> Output {
    whimbrel().arg("redis").args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn redis_copy_repeated_continues_from_its_checkpoint() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("VALKEY_9_1", &[]));
    source.run("DEBUG POPULATE 5000 key 50");
    source.run("SET dies v PX 5000000");
    let (from, to) = (source.url(), target.url());
    let args = ["copy", &from, &to, "--until-caught-up", "--verify", "full", "--json"];
    let first = redis(&args);
    assert_eq!(first.status.code(), Some(0), "{}", said(&first));
    let summary = json(&first);
    assert_eq!(
        (&summary["state"], &summary["full"]["keys"]),
        (&"succeeded".into(), &5001.into()),
        "{summary}"
    );
    assert_eq!(summary["resyncs"], serde_json::json!({"full": 1, "partial": 0}));
    assert_eq!((&summary["verify"]["same"], &summary["incremental"]["lag_bytes"]), (&true.into(), &0.into()));
    source.run("INCR counter");
    source.run("DEL key:7");
    let second = redis(&args);
    let summary = json(&second);
    assert_eq!(summary["resyncs"], serde_json::json!({"full": 0, "partial": 1}), "{}", said(&second));
    assert_eq!(target.run("GET counter").text(), Some(b"1".as_slice()));
    target.run("SET counter 5");
    target.run("PERSIST dies");
    let compared = redis(&["verify", &from, &to, "--json"]);
    assert_eq!(compared.status.code(), Some(1));
    let found = json(&compared);
    assert_eq!((&found["differ"], &found["expiry_differs"]), (&1.into(), &1.into()), "{found}");
    assert!(String::from_utf8_lossy(&compared.stdout).contains("0: `counter` differs"));
}

#[test]
fn redis_copy_maps_keys_and_databases() {
    let (source, target) = (Redis::start("REDIS_6_2", &[]), Redis::start("REDIS_7_0", &[]));
    for (db, key) in [(0, "user:1"), (0, "tmp:1"), (5, "user:2")] {
        let mut to = source.connect();
        to.run(&format!("SELECT {db}"));
        to.run(&format!("SET {key} new"));
    }
    target.run("SET user:1 old");
    let (from, to) = (source.url(), target.url());
    let copy = |more: &[&str]| redis(&[&["copy", &from, &to, "--full-only", "--json"], more].concat());
    let refused = copy(&["--fail-on-existing"]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(said(&refused).contains("user:1"), "{}", said(&refused));
    // What was in flight with that key has arrived.
    target.run("DEL tmp:1");
    let kept = copy(&["--skip-existing", "--exclude-key", "tmp:*", "--db-map", "5=9"]);
    assert_eq!(kept.status.code(), Some(0), "{}", said(&kept));
    assert_eq!(json(&kept)["full"]["skipped_existing"], 1);
    assert_eq!(target.run("GET user:1").text(), Some(b"old".as_slice()));
    assert_eq!(target.run("EXISTS tmp:1").number(), Some(0));
    let mut nine = target.connect();
    nine.run("SELECT 9");
    assert_eq!(nine.run("GET user:2").text(), Some(b"new".as_slice()));
    assert_eq!(target.run("KEYS whimbrel:*").array().map(<[_]>::len), Some(0), "no reserved key stays");
    let other = redis(&["copy", &format!("{from}/5"), &format!("{to}/3"), "--full-only", "--replace"]);
    assert_eq!(other.status.code(), Some(0), "{}", said(&other));
    let mut three = target.connect();
    three.run("SELECT 3");
    assert_eq!(three.run("DBSIZE").number(), Some(1));
}

#[test]
fn redis_copy_reports_usage_errors_before_it_connects() {
    let server = Redis::start("REDIS_7_0", &["--requirepass", "sesame"]);
    let open = Redis::start("REDIS_7_0", &[]);
    let (locked, free) = (server.url(), open.url());
    for (args, code, word) in [
        (vec!["copy", &free, &free], 2, "the same server"),
        (vec!["copy", "redis://", &free], 2, "does not name a server"),
        (vec!["copy", &free, "redis://127.0.0.1:1"], 3, "127.0.0.1:1"),
        (vec!["copy", &locked, &free], 3, "NOAUTH"),
        (vec!["copy", &free, &locked, "--db-map", "1=2,0=2", "--full-only"], 3, "NOAUTH"),
        (vec!["copy", &free, &locked, "--db-map", "x"], 2, "FROM=TO"),
        (vec!["import", "/no/such.rdb", &free], 3, "/no/such.rdb"),
    ] {
        let output = redis(&args);
        assert_eq!(
            (output.status.code(), said(&output).contains(word)),
            (Some(code), true),
            "{args:?}: {}",
            said(&output)
        );
    }
    open.run("ACL SETUSER me on >open ~* &* +@all");
    let mut command = whimbrel();
    command.env("WHIMBREL_TARGET_PASSWORD", "open").env("WHIMBREL_SOURCE_PASSWORD", "sesame");
    command.args(["redis", "verify", &locked, &free.replace("//", "//me@")]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let mut command = whimbrel();
    command.env("WHIMBREL_SOURCE_PASSWORD", "sesame").args(["redis", "copy", &locked, &free, "--full-only"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!said(&output).contains("sesame"));
}

/// Connections of movers, by their numbers.
fn writers(target: &Redis) -> Vec<String> {
    let list = String::from_utf8_lossy(target.run("CLIENT LIST").text().unwrap()).into_owned();
    let writers = list.lines().filter(|l| l.contains("name=whimbrel:redis:writer:"));
    writers.map(|l| l.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// Starts a mover, and waits until it has its connection to the target.
fn following(from: &str, target: &Redis) -> Child {
    let before = writers(target);
    let mut command = whimbrel();
    command.args(["redis", "copy", from, &target.url(), "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = std::time::Instant::now();
    while writers(target).iter().all(|id| before.contains(id)) {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not begin");
        std::thread::yield_now();
    }
    child
}

/// Ctrl-C pauses within a second with a message; SIGKILL has none; both resume at the checkpoint.
#[test]
fn redis_copy_applies_each_change_once_through_stops_and_kills() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let (from, to) = (source.url(), target.url());
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let (port, stop) = (source.port, stop.clone());
        std::thread::spawn(move || {
            let (mut to, mut n) = (Connection::to(port), 0);
            while !stop.load(Ordering::Relaxed) {
                to.run("INCR counter");
                to.run(&format!("LPUSH list {n}"));
                n += 1;
            }
            n
        })
    };
    let moved = |seen: i64| {
        let began = std::time::Instant::now();
        while target.run("LLEN list").number().unwrap() <= seen {
            assert!(began.elapsed() < Duration::from_secs(30), "nothing moves");
            std::thread::yield_now();
        }
        target.run("LLEN list").number().unwrap()
    };
    let mut seen = 0;
    for round in 0..8 {
        let mut child = following(&from, &target);
        seen = moved(seen + 50);
        if round % 2 == 0 {
            child.kill().unwrap();
            child.wait().unwrap();
            continue;
        }
        let asked = std::time::Instant::now();
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", said(&output));
        assert!(asked.elapsed() < Duration::from_secs(5));
        assert_eq!((&json(&output)["state"], said(&output).contains("resume")), (&"paused".into(), true));
    }
    stop.store(true, Ordering::Relaxed);
    let written: i64 = writing.join().unwrap();
    let last = redis(&["copy", &from, &to, "--until-caught-up", "--verify", "full", "--json"]);
    assert_eq!(last.status.code(), Some(0), "{}", said(&last));
    assert_eq!(json(&last)["resyncs"], serde_json::json!({"full": 0, "partial": 1}));
    assert_eq!(target.run("GET counter").text(), Some(written.to_string().as_bytes()));
    assert_eq!(target.run("LLEN list").number(), Some(written));
}

#[test]
fn redis_import_applies_backups_and_reports_damage_by_offset() {
    let source = Redis::start("REDIS_7_0", &["--appendonly", "yes", "--appendfsync", "always"]);
    source.run("DEBUG POPULATE 2000 key 100");
    source.run("BGREWRITEAOF");
    // What DEBUG wrote is in no log: it comes with the new base.
    let about = || String::from_utf8_lossy(source.run("INFO persistence").text().unwrap()).into_owned();
    let began = std::time::Instant::now();
    while !about().contains("aof_rewrite_in_progress:0\r") || !about().contains("aof_rewrites:1\r") {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", about());
        std::thread::yield_now();
    }
    source.run("RPUSH list a b c");
    let mut five = source.connect();
    five.run("SELECT 5");
    five.run("MULTI");
    five.run("INCR n");
    five.run("INCR n");
    five.run("EXEC");
    five.run("SET dies v PX 5000000");
    source.run("SAVE");
    let dump = source.dir().join("dump.rdb");
    let folder = source.dir().join("appendonlydir");
    for place in [&dump, &folder] {
        let target = Redis::start("REDIS_7_0", &[]);
        let output = redis(&["import", place.to_str().unwrap(), &target.url(), "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}: {}", place.display(), said(&output));
        assert_eq!(source.run("DEBUG DIGEST"), target.run("DEBUG DIGEST"), "{}", place.display());
    }
    let whole = std::fs::read(&dump).unwrap();
    for (bytes, word) in [(&b""[..], "empty"), (b"hello world\n", "neither"), (b"\0\0\0", "neither")] {
        let odd = source.dir().join("odd");
        std::fs::write(&odd, bytes).unwrap();
        let output = redis(&["import", odd.to_str().unwrap(), &source.url()]);
        assert_eq!(output.status.code(), Some(3), "{bytes:?}");
        assert!(said(&output).contains(word), "{}", said(&output));
    }
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    for (bytes, what) in [(&whole[..whole.len() - 20], "unexpected end"), (&flipped[..], "checksum")] {
        let broken = source.dir().join("broken.rdb");
        std::fs::write(&broken, bytes).unwrap();
        let target = Redis::start("REDIS_7_0", &[]);
        let output = redis(&["import", broken.to_str().unwrap(), &target.url()]);
        assert_eq!(output.status.code(), Some(3));
        assert!(said(&output).contains("at byte"), "{what}: {}", said(&output));
    }
}

/// A certificate of `localhost` that signs itself, and its key.
fn certificate(dir: &std::path::Path) -> (String, String) {
    let script = r#"
import datetime, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
now = datetime.datetime.now(datetime.timezone.utc)
cert = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256()))
pem = serialization.Encoding.PEM
open(sys.argv[1], "wb").write(cert.public_bytes(pem))
open(sys.argv[2], "wb").write(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
"#;
    let at = |name: &str| dir.join(name).display().to_string();
    let (cert, key) = (at("cert.pem"), at("key.pem"));
    let python = std::env::var("PYTHONPATH").expect("run the tests with `cargo x test`");
    let made = std::process::Command::new("python3")
        .args(["-c", script, &cert, &key])
        .env("PYTHONPATH", python)
        .status()
        .unwrap();
    assert!(made.success());
    (cert, key)
}

#[test]
fn redis_copy_uses_tls_at_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let start = || {
        let free =
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-auth-clients", "no"];
        let args: Vec<&str> = ["--tls-port", &free].into_iter().chain(files).collect();
        (Redis::start("REDIS_7_0", &args), format!("rediss://localhost:{free}"))
    };
    let ((source, from), (target, to)) = (start(), start());
    source.run("DEBUG POPULATE 3000 key 50");
    let copy = |trusted: bool| {
        let mut command = whimbrel();
        command.args(["redis", "copy", &from, &to, "--until-caught-up", "--verify", "full", "--json"]);
        if trusted {
            command.env("SSL_CERT_FILE", &cert);
        }
        command.output().unwrap()
    };
    let stranger = copy(false);
    assert_eq!(stranger.status.code(), Some(3), "{}", said(&stranger));
    let done = copy(true);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert_eq!(json(&done)["verify"]["same"], true);
    assert!(target.run("DBSIZE").number() >= Some(3000));
}

#[test]
fn red_23_client_certificate_is_sent_when_required() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let args = ["--tls-port", &free, "--tls-cert-file", &cert, "--tls-key-file", &key];
    let more = ["--tls-auth-clients", "yes", "--tls-ca-cert-file", &cert];
    let target = Redis::start("REDIS_7_0", &[&args[..], &more].concat());
    let source = Redis::start("REDIS_7_0", &[]);
    source.run("DEBUG POPULATE 300 key 50");
    let (from, to) = (source.url(), format!("rediss://localhost:{free}"));
    let copy = |more: &[&str]| redis(&[&["copy", &from, &to, "--until-caught-up"], more].concat());
    let stranger = copy(&[]);
    assert_eq!(stranger.status.code(), Some(3), "{}", said(&stranger));
    assert!(said(&stranger).contains("--target-ca"), "{}", said(&stranger));
    let nobody = copy(&["--target-ca", &cert]);
    assert_eq!(nobody.status.code(), Some(3), "{}", said(&nobody));
    assert!(said(&nobody).contains("--target-cert"), "{}", said(&nobody));
    let files = ["--target-ca", &cert, "--target-cert", &cert, "--target-key", &key];
    let done = copy(&[&files[..], &["--verify", "full"]].concat());
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(target.run("DBSIZE").number() >= Some(300));
    let cleaned = redis(&[&["clean", &to], &files[..]].concat());
    assert_eq!(cleaned.status.code(), Some(0), "{}", said(&cleaned));
    // Files for an end without TLS are a mistake.
    let plain = redis(&["copy", &from, &to, "--source-ca", &cert]);
    assert_eq!(plain.status.code(), Some(2), "{}", said(&plain));
}

#[test]
fn redis_task_commands_manage_a_service_and_its_proxy_address() {
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ids = ["0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f20", "0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f21"];
    let instance = |id: &str, name: &str, port: u16, more: &str| {
        format!("\n[[redis]]\nid = \"{id}\"\nname = \"{name}\"\naddrs = \"127.0.0.1:{port}\"\n{more}")
    };
    let config = instance(ids[0], "a", source.port, &format!("listen = \"127.0.0.1:{free}\"\n"))
        + &instance(ids[1], "b", target.port, "");
    let dir = tempfile::tempdir().unwrap();
    let service = crate::support::Service::start(dir.path(), &config);
    let task = |args: &[&str]| {
        let mut command = whimbrel();
        command.args(["redis", "task"]).args(args);
        command.env("WHIMBREL_ENDPOINT", &service.endpoint).env("WHIMBREL_PROJECT", &service.project);
        command.env("WHIMBREL_AK", &service.ak).env("WHIMBREL_SK", &service.sk);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).trim().to_owned(), said(&output))
    };
    let mut through = Connection::to(free);
    through.run("SET key 1");
    let (code, wrong, why) = task(&["create", "127.0.0.1:1", ids[1]]);
    assert!(code == Some(2) && wrong.is_empty() && why.contains("DCS.4800"), "{code:?} {wrong} {why}");
    let (code, id, why) = task(&["create", ids[0], ids[1]]);
    assert_eq!((code, id.len()), (Some(0), 36), "{why}");
    let until = |word: &str| {
        let began = std::time::Instant::now();
        loop {
            let shown = task(&["show", &id]).1;
            if shown.contains(word) {
                return shown;
            }
            assert!(began.elapsed().as_secs() < 30, "{shown}");
        }
    };
    until("INCRMIGEATING");
    through.run("INCR key");
    assert_eq!(task(&["exchange", &id]).0, Some(0));
    until("EXCHANGE_SUCCESS");
    // The same address leads to the other server now.
    let mut again = Connection::to(free);
    assert_eq!(again.run("INCR key").number(), Some(3));
    assert_eq!(target.run("GET key").text(), Some(b"3".as_slice()));
    assert!(task(&["list"]).1.contains("succeeded"));
    assert!(task(&["logs", &id]).1.contains("WB.0060"));
    assert_eq!(task(&["watch", &id]).0, Some(0));
    assert_eq!(task(&["rollback", &id]).0, Some(0));
    until("ROLLBACK_SUCCESS");
    assert_eq!(task(&["start", &id]).0, Some(0));
    assert_eq!(task(&["stop", &id]).0, Some(0));
    until("TERMINATED");
    assert_eq!(task(&["delete", &id]).0, Some(0));
    let (code, _, why) = task(&["show", &id]);
    assert!(code == Some(2) && why.contains("DCS.4133"), "{code:?} {why}");
}
