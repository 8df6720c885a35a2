//! Long-running tests of object tasks, ignored unless asked for: `cargo x soak kill|stop|list|memory`. The short forms of
//! the same scenarios are the tests of `crash`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::process::Stdio;
use std::time::{Duration, Instant};

use testkit::content::Content;
use testkit::s3::Logged;
use testkit::{Options, S3Server};

use crate::support::{Service, copy, json};

const MIB: u64 = 1 << 20;

/// How much is copied, how slow the server is and how often the work is interrupted.
pub(crate) struct Load {
    pub(crate) small_objects: usize,
    pub(crate) large_objects: usize,
    /// How long the server waits before each response.
    pub(crate) response_delay: Duration,
    pub(crate) interruptions: u32,
    /// The longest time from a start to the next interruption.
    pub(crate) max_run: Duration,
    pub(crate) seed: u64,
}

impl Load {
    /// The time until the next interruption.
    fn draw_run(&self, random: &mut fastrand::Rng, min_millis: u64) -> Duration {
        Duration::from_millis(random.u64(min_millis..self.max_run.as_millis() as u64))
    }
}

/// A source with many small and some large objects, and an empty target.
fn server(load: &Load) -> S3Server {
    let options = Options { delay: load.response_delay, threads: 1, ..Options::default() };
    let server = S3Server::start(options);
    let source = server.bucket("from");
    for i in 0..load.small_objects {
        source.put(&format!("small/{:03}/{i:06}", i % 100), format!("content {i}"));
    }
    for i in 0..load.large_objects {
        source.put_with(&format!("large/{i}"), Content::Pattern(96 * MIB + i as u64), Some(8 * MIB), &[]);
    }
    server.bucket("to");
    server
}

/// ETags by key: equal maps mean equal contents.
fn etags(server: &S3Server, bucket: &str) -> BTreeMap<String, String> {
    server.bucket(bucket).objects().into_iter().map(|(k, o)| (k, o.etag)).collect()
}

/// The process is killed at random moments and started again until it is done.
pub(crate) fn copy_through_kills(load: &Load) {
    let (small, large) = (load.small_objects, load.large_objects);
    let server = server(load);
    let state = tempfile::tempdir().unwrap();
    let at = server.endpoint();
    let mut random = fastrand::Rng::with_seed(load.seed);
    let mut killed = 0;
    let summary = loop {
        let mut command = copy((&at, "from"), (&at, "to"), state.path());
        // Another identity, so that bytes are transferred; few I/O threads, so that there is time to kill.
        command.env("WHIMBREL_TARGET_ACCESS_KEY", "OTHER").args(["--concurrency", "16"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        if killed < load.interruptions {
            let deadline = Instant::now() + load.draw_run(&mut random, 20);
            let mut ended = false;
            while Instant::now() < deadline {
                if child.try_wait().unwrap().is_some() {
                    ended = true;
                    break;
                }
                std::thread::yield_now();
            }
            if !ended {
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
                continue;
            }
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        break json(&output);
    };
    let total = (small + large) as u64;
    assert!(killed > 0, "the work was done before the first kill");
    assert!(etags(&server, "from") == etags(&server, "to"), "contents differ after {killed} kills");
    assert_eq!(server.open_uploads(), 0);
    assert_eq!(summary["objects"]["copied"], total, "counters are exact: {summary}");
    assert_eq!(
        (summary["objects"]["skipped"].as_u64(), summary["objects"]["failed"].as_u64()),
        (Some(0), Some(0))
    );
    let puts =
        server.log().iter().filter(|l| l.method == "PUT" && l.status == 200 && l.query.is_empty()).count();
    let parts = server
        .log()
        .iter()
        .filter(|l| l.query.contains("partNumber") && l.method == "PUT" && l.status == 200)
        .count();
    let needed = large * 13;
    println!(
        "kill: {killed} kills; {small} small objects took {puts} writes, {needed} parts took {parts}; content and counters equal"
    );
}

/// Keys and parts that were written completely before `until`, by the server's log.
fn finished(log: &[Logged]) -> HashMap<(String, String), usize> {
    let mut done = HashMap::new();
    for l in log.iter().filter(|l| l.method == "PUT" && l.status == 200 && l.bucket == "to") {
        *done.entry((l.key.clone(), part_of(&l.query))).or_default() += 1;
    }
    done
}

fn part_of(query: &str) -> String {
    query.split('&').find(|p| p.starts_with("partNumber")).unwrap_or_default().to_owned()
}

/// A service's task is stopped at random moments and started again until it is done. Returns the 99th percentile of the
/// time from a stop request to the state `paused`.
pub(crate) fn copy_through_stops(load: &Load) -> Duration {
    let (small, large) = (load.small_objects, load.large_objects);
    let server = server(load);
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let at = server.endpoint();
    let mut random = fastrand::Rng::with_seed(load.seed);
    let id = create(&service, &at);
    let (mut latencies, mut moved_after) = (Vec::new(), 0);
    while latencies.len() < load.interruptions as usize {
        wait_until_running(&service, id);
        spin(load.draw_run(&mut random, 1));
        let began = Instant::now();
        if !service.task(&["stop", &id.to_string()]).status.success() {
            break;
        }
        let rested = loop {
            match service.show(id)["status"].as_i64() {
                Some(7) => {}
                other => break other,
            }
        };
        latencies.push(began.elapsed());
        assert_eq!(rested, Some(3));
        // What the kernel had taken already drains into the server; nothing may follow.
        let before = quiet(&server);
        spin(Duration::from_millis(200));
        if server.moved() != before {
            moved_after += 1;
        }
        start(&service, id);
    }
    let ended = service.watch(id);
    assert_eq!(ended["status"], 5, "{ended}");
    assert_eq!(ended["successful_num"].as_u64(), Some((small + large) as u64), "{ended}");
    let from = etags(&server, "from");
    let to: BTreeMap<String, String> =
        etags(&server, "to").into_iter().filter(|(k, _)| !k.starts_with("oms/")).collect();
    assert!(from == to, "contents differ");
    assert_eq!(moved_after, 0, "bytes moved after a stop");
    let log: Vec<Logged> = server.log().into_iter().filter(|l| !l.key.starts_with("oms/")).collect();
    let again: Vec<_> = finished(&log).into_iter().filter(|(_, n)| *n > 1).collect();
    latencies.sort();
    let p99 = latencies.get(latencies.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
    println!(
        "stop: {} stops, p99 {p99:?} from request to paused (two processes per call included), max {:?}; \
         {} finished objects or parts written again",
        latencies.len(),
        latencies.last().copied().unwrap_or_default(),
        again.len(),
    );
    assert!(again.is_empty(), "written again: {again:?}");
    p99
}

/// C6: what a server has read completely is stored, whoever waits for its answer.
#[test]
fn c6_stopped_task_writes_no_more_objects() {
    let options = Options { delay: Duration::from_millis(700), ..Options::default() };
    let server = S3Server::start(options);
    server.bucket("to");
    for i in 0..200 {
        server.bucket("from").put(&format!("k{i:03}"), format!("content {i}"));
    }
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let at = server.endpoint();
    let id = create(&service, &at);
    wait_until_running(&service, id);
    while server.bucket("to").len() < 5 {
        spin(Duration::from_millis(5));
    }
    assert!(service.task(&["stop", &id.to_string()]).status.success());
    while service.show(id)["status"] == 7 {}
    let stored = server.bucket("to").len();
    spin(Duration::from_millis(1500));
    assert_eq!(server.bucket("to").len(), stored);
}

/// Waits until the server has worked off what was on its way: no request under way and no byte counted for
/// 300 ms, within 10 s.
fn quiet(server: &S3Server) -> (u64, u64) {
    let until = Instant::now() + Duration::from_secs(10);
    let mut last = server.moved();
    loop {
        spin(Duration::from_millis(300));
        let now = server.moved();
        if (now == last && server.busy() == 0) || Instant::now() > until {
            return now;
        }
        last = now;
    }
}

fn spin(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::thread::yield_now();
    }
}

fn create(service: &Service, at: &str) -> i64 {
    service.create((at, "from"), (at, "to"))
}

fn start(service: &Service, id: i64) {
    let started = service.task(&["start", &id.to_string()]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
}

fn wait_until_running(service: &Service, id: i64) {
    loop {
        match service.show(id)["status"].as_i64() {
            Some(1) => {}
            _ => return,
        }
    }
}

#[test]
#[ignore = "soak: cargo x soak kill"]
fn soak_copy_through_50_kills_is_complete() {
    copy_through_kills(&Load {
        small_objects: 30_000,
        large_objects: 8,
        response_delay: Duration::from_millis(25),
        interruptions: 50,
        max_run: Duration::from_millis(1500),
        seed: fastrand::u64(..),
    });
}

#[test]
#[ignore = "soak: cargo x soak stop"]
fn soak_stop_request_takes_at_most_1_s() {
    let p99 = copy_through_stops(&Load {
        small_objects: 100_000,
        large_objects: 6,
        response_delay: Duration::from_millis(25),
        interruptions: 50,
        max_run: Duration::from_millis(700),
        seed: fastrand::u64(..),
    });
    assert!(p99 <= Duration::from_secs(1), "{p99:?}");
}

/// Peak memory of listing ten million keys and of moving eight 4 GiB objects at once.
#[test]
#[ignore = "soak: cargo x soak memory"]
fn soak_memory_is_bounded_for_many_keys_and_large_objects() {
    let server = S3Server::start(Options { discard: true, log: false, ..Options::default() });
    server.numbered("list", 10_000_000, 4096, None);
    let huge = server.bucket("huge");
    for i in 0..8 {
        huge.put_with(&format!("huge-{i}"), Content::Pattern(4096 * MIB), Some(16 * MIB), &[]);
    }
    server.bucket("to");
    let at = server.endpoint();
    let state = tempfile::tempdir().unwrap();
    for (name, extra) in [("list", &["--dry-run"][..]), ("huge", &[][..])] {
        let mut command = copy((&at, name), (&at, "to"), state.path());
        command.env("WHIMBREL_TARGET_ACCESS_KEY", "OTHER").args(extra).args(["--memory", "64MiB"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut peak = 0;
        while child.try_wait().unwrap().is_none() {
            peak = peak.max(resident(child.id()));
            spin(Duration::from_millis(20));
        }
        println!("memory: {name}: peak {} MiB with limits.memory = 64 MiB", peak >> 20);
        assert!(peak <= 128 << 20, "{name}: {} MiB", peak >> 20);
    }
}

/// A list file is worked off in bounded memory while the process is killed at random moments.
pub(crate) fn copy_key_list_through_kills(keys: u64, kills: u32, padding: usize, run_millis: Range<u64>) {
    let server = S3Server::start(Options { discard: true, log: false, ..Options::default() });
    server.numbered("from", keys, 64, None);
    server.bucket("to");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.txt");
    {
        // In no order at all: a step that shares no divisor with the number of keys visits each once.
        use std::io::Write;
        let mut out = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
        let step = 2_654_435_761 % keys;
        let step = (step..).find(|s| coprime(*s, keys)).unwrap();
        for i in 0..keys {
            let n = (i * step) % keys;
            writeln!(out, "obj-%30{n:09}").unwrap();
            out.write_all(&vec![b'\n'; padding]).unwrap();
        }
    }
    let size = file.metadata().unwrap().len();
    let at = server.endpoint();
    let mut random = fastrand::Rng::with_seed(keys);
    let (mut killed, mut peak) = (0, 0);
    let summary = loop {
        let mut command = copy((&at, "from"), (&at, "to"), &dir.path().join("state"));
        command.env("WHIMBREL_TARGET_ACCESS_KEY", "OTHER").arg("--list-file").arg(&file);
        command
            .args(["--memory", "64MiB", "--overwrite", "always"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let life = Duration::from_millis(random.u64(run_millis.clone()));
        let born = Instant::now();
        while child.try_wait().unwrap().is_none() {
            peak = peak.max(resident(child.id()));
            if killed < kills && born.elapsed() > life {
                child.kill().unwrap();
            }
            spin(Duration::from_millis(10));
        }
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            break json(&output);
        }
        assert!(killed < kills, "it failed by itself");
        killed += 1;
    };
    println!(
        "list: {keys} keys in {} MiB, {killed} kills, peak {} MiB with limits.memory = 64 MiB: {}",
        size >> 20,
        peak >> 20,
        summary["objects"]
    );
    assert_eq!(summary["objects"]["copied"].as_u64(), Some(keys), "{summary}");
    assert_eq!((&summary["objects"]["failed"], &summary["objects"]["skipped"]), (&0.into(), &0.into()));
    assert!(peak <= 128 << 20, "{} MiB", peak >> 20);
}

fn coprime(mut a: u64, mut b: u64) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

/// Three million keys in a file of 300 MiB.
#[test]
#[ignore = "soak: cargo x soak list"]
fn soak_key_list_of_300_mib_through_kills_is_complete() {
    copy_key_list_through_kills(3_000_000, 12, 89, 500..15_000);
}

fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// C13: a task of large objects is stopped several times. Returns the bytes that were read more than once, as a
/// share of all bytes.
pub(crate) fn stops_of_large(stops: u32, objects: usize, size: u64) -> f64 {
    let server = S3Server::start(Options { threads: 1, discard: false, ..Options::default() });
    let source = server.bucket("from");
    for i in 0..objects {
        source.put_with(&format!("large/{i}"), Content::Pattern(size + i as u64), Some(16 * MIB), &[]);
    }
    server.bucket("to");
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let at = server.endpoint();
    let id = create(&service, &at);
    let mut random = fastrand::Rng::with_seed(13);
    let (mut done, mut slowest) = (0, Duration::ZERO);
    while done < stops {
        wait_until_running(&service, id);
        spin(Duration::from_millis(random.u64(100..500)));
        let began = Instant::now();
        if !service.task(&["stop", &id.to_string()]).status.success() {
            break;
        }
        while service.show(id)["status"].as_i64() == Some(7) {}
        slowest = slowest.max(began.elapsed());
        done += 1;
        start(&service, id);
    }
    let ended = service.watch(id);
    assert_eq!(ended["status"], 5, "{ended}");
    let total: u64 = (0..objects).map(|i| size + i as u64).sum();
    let more = server.moved().1 as f64 / total as f64 - 1.0;
    println!(
        "stop of large objects: {done} stops of {} MiB, {:.1} % more bytes read than the objects have, slowest stop {slowest:?}",
        total >> 20,
        more * 100.0
    );
    more
}

#[test]
#[ignore = "soak: cargo x soak stop"]
fn soak_c13_stops_of_large_objects_read_at_most_5_percent_again() {
    let more = stops_of_large(20, 8, 512 * MIB);
    assert!(more <= 0.05, "{more}");
}
