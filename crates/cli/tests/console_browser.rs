//! The console in Chromium, against a service with tasks in many states and a Redis migration. With `WHIMBREL_SHOTS` it takes
//! pictures of all pages into that directory instead of acting on them (`cargo x shots`).

use std::path::Path;
use std::process::Command;

use testkit::content::Content;
use testkit::redis::Redis;
use testkit::{Options, S3Server};

use crate::support::browser::Browser;
use crate::support::{Service, whimbrel};

const SOURCE: &str = "0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f10";
const TARGET: &str = "0f3f0ab6-5b2b-4a1e-8a51-1c1f3d9a7f11";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/console.js");
/// Where Debian and others have it.
const CHROMIUM: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// Servers with objects, and two Redis servers.
struct Scene {
    quick: S3Server,
    slow: S3Server,
    _source: Redis,
    _target: Redis,
    extra: String,
}

fn scene(dir: &Path) -> Scene {
    let slow =
        S3Server::start(Options { delay: std::time::Duration::from_millis(400), ..Options::default() });
    slow.numbered("slow", 100_000, 48 << 10, None);
    slow.bucket("to");
    let quick = S3Server::start(Options::default());
    for i in 0..300 {
        quick.bucket("photos").put_with(&format!("a/{i:05}.jpg"), Content::Pattern(20 << 10), None, &[]);
    }
    quick.bucket("archive");
    for i in 0..9 {
        quick.bucket("mixed").put(&format!("raw/2019//scan <img src=x onerror=alert({i})>.tif"), "x");
    }
    for i in 0..200 {
        quick.bucket("mixed").put(&format!("raw/2019/{i:04}.tif"), "0123456789");
    }
    let (source, target) = (Redis::start("REDIS_7_0", &[]), Redis::start("REDIS_7_0", &[]));
    let mut client = source.connect();
    for i in 0..5000 {
        client.call(&[b"SET", format!("session:{i}").as_bytes(), b"value"]);
    }
    let buckets = dir.join("buckets");
    for name in ["cold", "gone"] {
        std::fs::create_dir_all(buckets.join(name)).unwrap();
    }
    let redis = |id: &str, name: &str, port: u16| {
        format!("\n[[redis]]\nid = \"{id}\"\nname = \"{name}\"\naddrs = \"127.0.0.1:{port}\"\n")
    };
    let store = |region: &str, at: &str| format!("\n[[store]]\nregion = \"{region}\"\n{at}\n");
    let endpoint = |server: &S3Server| format!("endpoint = \"{}\"", server.endpoint());
    let extra = store("dc1-s3", &endpoint(&quick))
        + &store("north-4", &endpoint(&slow))
        + &store("cold-dir", &format!("path = \"{}\"", buckets.display()))
        + &redis(SOURCE, "cache-old", source.port)
        + &redis(TARGET, "cache-new", target.port);
    Scene { quick, slow, _source: source, _target: target, extra }
}

fn create(browser: &mut Browser, from: (&str, &str), to: (&str, &str), more: &[(&str, &str)]) -> String {
    let (ak, sk) = testkit::servers::KEYS;
    browser.get("/console/tasks/new");
    let form = [
        ("src_store", from.0),
        ("src_bucket", from.1),
        ("src_ak", ak),
        ("src_sk", sk),
        ("dst_store", to.0),
        ("dst_bucket", to.1),
        ("dst_ak", ak),
        ("dst_sk", sk),
        ("metadata", "1"),
        ("do", "start"),
    ];
    let all: Vec<_> = form.iter().chain(more).copied().collect();
    let made = browser.post("/console/tasks/new", &all);
    assert_eq!(made.status, 303, "{made:?}");
    made.header("location").split('?').next().unwrap().to_owned()
}

/// Tasks in many states and a Redis migration; the pages that show them.
fn prepare(service: &Service, _scene: &Scene) -> Vec<(&'static str, String)> {
    let mut browser = Browser::signed_in(service);
    let done = create(&mut browser, ("dc1-s3", "photos"), ("cold-dir", "cold"), &[("under", "photos/")]);
    let failed = create(&mut browser, ("dc1-s3", "mixed"), ("cold-dir", "cold"), &[("under", "scans/")]);
    let whole = create(&mut browser, ("north-4", "slow"), ("cold-dir", "gone"), &[]);
    browser.wait_for(&whole, ">Running<");
    browser.post(&format!("{whole}/stop"), &[]);
    browser.wait_for(&whole, ">Paused<");
    // The directory of the target is gone when the task starts again.
    std::fs::remove_dir_all(service.dir.join("buckets/gone")).unwrap();
    assert_eq!(browser.post(&format!("{whole}/start"), &[]).status, 303);
    let paused = create(&mut browser, ("north-4", "slow"), ("dc1-s3", "archive"), &[("under", "frames/")]);
    browser.wait_for(&paused, ">Running<");
    browser.post(&format!("{paused}/stop"), &[]);
    let limit = [("from", "08:00"), ("until", "20:00"), ("most", "120")];
    browser.post(&format!("{paused}/limit"), &limit);
    browser.wait_for(&done, ">Succeeded<");
    browser.wait_for(&failed, ">Failed<");
    browser.wait_for(&whole, ">Failed<");
    browser.wait_for(&paused, ">Paused<");
    let running = create(
        &mut browser,
        ("north-4", "slow"),
        ("north-4", "to"),
        &[("exclude", "**/*.tmp"), ("priority", "HIGH")],
    );
    browser.wait_for(&running, ">Running<");
    let mut command = whimbrel();
    command.args(["redis", "task", "create", SOURCE, TARGET, "--name", "sessions"]);
    command.env("WHIMBREL_ENDPOINT", &service.endpoint).env("WHIMBREL_PROJECT", &service.project);
    command.env("WHIMBREL_AK", &service.ak).env("WHIMBREL_SK", &service.sk);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let list = browser.wait_for("/console/redis", ">Following changes<");
    let id = list.body.split_once("class=\"name\" href=\"").unwrap().1.split('"').next().unwrap().to_owned();
    let page = |name: &'static str, at: &str| (name, at.to_owned());
    vec![
        page("overview", "/console/"),
        page("tasks", "/console/tasks"),
        page("tasks-empty", "/console/tasks?state=failed&q=invoices-2019"),
        page("task", &running),
        page("task-dialog", &format!("{running}#dlg-limit")),
        page("task-failed-objects", &failed),
        page("task-failed", &whole),
        page("task-paused", &paused),
        page("failed-list", &format!("{failed}/failed")),
        page("new", "/console/tasks/new"),
        page("redis-list", "/console/redis"),
        page("redis", &id),
        page("redis-dialog", &format!("{id}#dlg-cut")),
        page("syncs", "/console/syncs"),
        page("stores", "/console/stores"),
        page("keys", "/console/keys"),
        page("audit", "/console/audit"),
        page("not-found", "/console/no-such-page"),
    ]
}

#[test]
fn console_works_in_chromium() {
    let dir = tempfile::tempdir().unwrap();
    let scene = scene(dir.path());
    let service = Service::start(dir.path(), &scene.extra);
    let pages = prepare(&service, &scene);
    let chromium = CHROMIUM.iter().find(|p| Path::new(p).exists());
    let chromium = chromium.expect("Chromium is missing; hint: apt-get install chromium");
    let (ak, sk) = testkit::servers::KEYS;
    let mut command = Command::new("node");
    command.arg(SCRIPT).env("CHROMIUM", chromium).env("ENDPOINT", &service.endpoint);
    command.env("NODE_MODULES", testkit::servers::endpoint("WHIMBREL_TEST_NODE"));
    command.env("SERVICE_PID", service.child.id().to_string());
    command.env("PASSWORD", service.password()).env("S3", scene.slow.endpoint()).env("AK", ak).env("SK", sk);
    command.env("PAGES", serde_json::to_string(&pages).unwrap());
    if let Ok(shots) = std::env::var("WHIMBREL_SHOTS") {
        std::fs::create_dir_all(&shots).unwrap();
        command.env("SHOTS_DIR", shots);
    }
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(scene.quick.bucket("archive").objects().iter().filter(|(k, _)| k.contains("//")).count(), 0);
}
