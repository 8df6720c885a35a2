//! `bench redis [--quick]`: a snapshot, the stream behind it, and an import, compared with what the servers do themselves, into
//! docs/benchmarks.md.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis_proto::resp::command;
use testkit::redis::{Connection, Redis};

use crate::objects::{Cost, here, measure, median};
use crate::page;

/// Keys of the data set.
const KEYS: u64 = 3_000_000;
const SERVER: [&str; 8] = [
    "--repl-diskless-load",
    "swapdb",
    "--client-output-buffer-limit",
    "replica 0 0 0",
    "--repl-diskless-sync",
    "yes",
    "--repl-backlog-size",
    "256mb",
];
/// RedisShake 4.6.2 as it was measured on another machine with 2 cores, 22 November 2026, with data of the same kind and
/// size; it is not in any registry that this bench may use.
const SHAKE: &str =
    "| RedisShake 4.6.2 sync, best setting (measured elsewhere, see below) | 52 | 52 | 407 |\n";
const SHAKE_IMPORT: &str = "| RedisShake 4.6.2 (measured elsewhere) | 44 | 55 | 407 |\n";

/// Strings for the most part, a quarter small collections, four values of a million elements.
fn fill(redis: &Redis, keys: u64) {
    let mut to = redis.connect();
    let mut random = fastrand::Rng::with_seed(1);
    let (mut out, mut n) = (Vec::new(), 0);
    let flush = |out: &mut Vec<u8>, n: &mut usize, to: &mut Connection| {
        to.many(out, *n);
        out.clear();
        *n = 0;
    };
    for i in 0..keys {
        let key = format!("key:{i:09}");
        match i % 20 {
            0..15 => {
                let value: Vec<u8> = (0..random.usize(60..300)).map(|_| random.u8(b' '..b'~')).collect();
                if i % 5 == 0 {
                    command(&mut out, &[b"SET", key.as_bytes(), &value, b"EX", b"864000"]);
                } else {
                    command(&mut out, &[b"SET", key.as_bytes(), &value]);
                }
            }
            kind => {
                let items: Vec<String> = (0..10).map(|j| format!("{:08x}-{j}", random.u32(..))).collect();
                let mut args: Vec<&[u8]> = match kind {
                    15 | 16 => vec![b"HSET", key.as_bytes()],
                    17 => vec![b"RPUSH", key.as_bytes()],
                    18 => vec![b"SADD", key.as_bytes()],
                    _ => vec![b"ZADD", key.as_bytes()],
                };
                for item in &items {
                    match kind {
                        15 | 16 => args.extend([item.as_bytes(), b"value-of-a-field"]),
                        19 => args.extend([b"17.25".as_slice(), item.as_bytes()]),
                        _ => args.push(item.as_bytes()),
                    }
                }
                command(&mut out, &args);
            }
        }
        n += 1;
        if n == 1000 {
            flush(&mut out, &mut n, &mut to);
        }
    }
    for (name, word) in [("list", "RPUSH"), ("set", "SADD"), ("zset", "ZADD"), ("hash", "HSET")] {
        for i in 0..(keys / 3) {
            let (item, score) = (format!("element-{i:012}"), i.to_string());
            let args: Vec<&[u8]> = match word {
                "ZADD" => vec![b"ZADD", name.as_bytes(), score.as_bytes(), item.as_bytes()],
                "HSET" => vec![b"HSET", name.as_bytes(), item.as_bytes(), score.as_bytes()],
                _ => vec![word.as_bytes(), name.as_bytes(), item.as_bytes()],
            };
            command(&mut out, &args);
            n += 1;
            if n == 1000 {
                flush(&mut out, &mut n, &mut to);
            }
        }
    }
    flush(&mut out, &mut n, &mut to);
}

fn field(redis: &Redis, section: &str, name: &str) -> String {
    let info = redis.run(&format!("INFO {section}"));
    let text = String::from_utf8_lossy(info.text().unwrap_or_default()).into_owned();
    let found = text.lines().find_map(|l| Some(l.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()));
    found.unwrap_or_default()
}

/// The servers' own replication, from the word to the end of the load.
fn native(source: &Redis, target: &Redis) -> Cost {
    let began = Instant::now();
    target.run(&format!("REPLICAOF 127.0.0.1 {}", source.port));
    while field(target, "replication", "master_link_status") != "up" {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let wall = began.elapsed().as_secs_f64();
    target.run("REPLICAOF NO ONE");
    Cost { wall, ..Cost::default() }
}

fn whimbrel(args: &[&str]) -> Cost {
    let mut command = Command::new(here("whimbrel"));
    command.arg("redis").args(args).arg("--json");
    measure(command)
}

fn row(name: &str, cost: Cost, own: bool) -> String {
    let failed = if cost.failed { " (failed)" } else { "" };
    match own {
        true => format!("| {name}{failed} | {:.2} | – | – |\n", cost.wall),
        false => format!("| {name}{failed} | {:.2} | {:.2} | {:.0} |\n", cost.wall, cost.cpu, cost.rss_mb),
    }
}

/// How far behind a target was, and how long it took behind the end of the load.
struct Behind {
    worst_ms: f64,
    after_ms: f64,
    seconds: f64,
}

/// Pipelined writes at the source, so many a second, while a target follows; both are asked how far they are all the time.
fn stream(source: &Redis, target: &Redis, writes: u64, per_second: u64) -> Behind {
    source.run("SET how-far -1");
    while target.run("GET how-far").text() != Some(b"-1") {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let port = source.port;
    let began = Instant::now();
    let load = std::thread::spawn(move || {
        let mut to = Connection::to(port);
        let mut out = Vec::new();
        for i in 0..writes / 500 {
            let due = began + Duration::from_micros(i * 500 * 1_000_000 / per_second);
            std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
            out.clear();
            for j in 0..499 {
                command(&mut out, &[b"SET", format!("key:{:09}", i * 500 + j).as_bytes(), &[b'x'; 100]]);
            }
            command(&mut out, &[b"SET", b"how-far", i.to_string().as_bytes()]);
            to.many(&out, 500);
        }
        Instant::now()
    });
    let (mut a, mut b) = (source.connect(), target.connect());
    let far = |client: &mut Connection| -> i64 {
        let reply = client.run("GET how-far");
        reply.text().and_then(|t| std::str::from_utf8(t).ok()?.parse().ok()).unwrap_or(-1)
    };
    let last = i64::try_from(writes / 500).unwrap_or(0) - 1;
    let mut seen: VecDeque<(Instant, i64)> = VecDeque::new();
    let mut worst = Duration::ZERO;
    loop {
        let at_source = far(&mut a);
        if seen.back().is_none_or(|(_, n)| *n < at_source) {
            seen.push_back((Instant::now(), at_source));
        }
        let at_target = far(&mut b);
        while seen.front().is_some_and(|(_, n)| *n <= at_target) {
            seen.pop_front();
        }
        if let Some((since, _)) = seen.front() {
            worst = worst.max(since.elapsed());
        }
        if at_target >= last {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let done = Instant::now();
    let ended = load.join().unwrap_or(done);
    Behind {
        worst_ms: worst.as_secs_f64() * 1e3,
        after_ms: done.saturating_duration_since(ended).as_secs_f64() * 1e3,
        seconds: ended.saturating_duration_since(began).as_secs_f64(),
    }
}

/// The data set at a source, and what it takes.
struct DataSet {
    source: Redis,
    keys: u64,
    dump: PathBuf,
    /// Of the dump, MB.
    size: f64,
    /// In memory, GB.
    used: f64,
    /// How often each measurement is repeated.
    rounds: u32,
}

impl DataSet {
    fn make(quick: bool) -> Self {
        let (keys, rounds) = if quick { (KEYS / 10, 1) } else { (KEYS, 3) };
        let source = Redis::start("REDIS_7_0", &SERVER);
        fill(&source, keys);
        let used = field(&source, "memory", "used_memory").parse::<f64>().unwrap_or(0.0) / 1e9;
        source.run("SAVE");
        let dump = source.dir().join("dump.rdb");
        let size = std::fs::metadata(&dump).map_or(0.0, |m| m.len() as f64 / 1e6);
        Self { source, keys, dump, size, used, rounds }
    }
}

/// Measures everything and writes the tables.
pub(crate) fn run(args: &[String]) {
    let quick = args.iter().any(|a| a == "--quick");
    let data = DataSet::make(quick);
    let target = Redis::start("REDIS_7_0", &SERVER);
    let mut text = String::new();
    let mut add = |table: String| {
        eprintln!("{table}");
        text.push_str(&table);
    };
    add(full_sync(&data, &target));
    add(replication(&data.source, &target, if quick { 100_000 } else { 1_000_000 }));
    drop(target);
    add(import(&data));
    page::write("redis", &text);
}

fn full_sync(data: &DataSet, target: &Redis) -> String {
    let DataSet { source, keys, size, used, .. } = data;
    let (mut own, mut whole) = (vec![], vec![]);
    for _ in 0..data.rounds {
        target.run("FLUSHALL");
        own.push(native(source, target));
        target.run("FLUSHALL");
        whole.push(whimbrel(&["copy", &source.url(), &target.url(), "--full-only"]));
    }
    let mut text = format!(
        "## Redis: full sync, {keys} mixed keys ({used:.2} GB in memory, {size:.0} MB of RDB), 7.0 to \
         7.0\n\nAlternating runs on one machine with 2 cores, on loopback; medians. The servers' own replication is \
         diskless at both ends.\n\n| | wall s | CPU s of the tool | peak MiB |\n|---|---|---|---|\n"
    );
    let (own, whole) = (median(own), median(whole));
    text.push_str(&row("native REPLICAOF", own, true));
    text.push_str(&row("Whimbrel", whole, false));
    text.push_str(SHAKE);
    text.push_str(&format!("\nWhimbrel relative to native: {:.2}.\n", whole.wall / own.wall));
    text
}

fn replication(source: &Redis, target: &Redis, writes: u64) -> String {
    let rates = [100_000, 1_000_000];
    target.run("FLUSHALL");
    target.run(&format!("REPLICAOF 127.0.0.1 {}", source.port));
    while field(target, "replication", "master_link_status") != "up" {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let native_streams = rates.map(|rate| stream(source, target, writes, rate));
    target.run("REPLICAOF NO ONE");
    target.run("FLUSHALL");
    source.run("DEL how-far");
    let mut follower = follow(source, target);
    let our_streams = rates.map(|rate| stream(source, target, writes, rate));
    let _ = follower.kill();
    let _ = follower.wait();
    let mut text = format!(
        "\n## Redis: replication of {writes} pipelined SETs\n\nThe source, the target, the load generator and the \
         tool share two cores; without a rate limit the load generator alone uses more than one of them.\n\n| | \
         rate, writes/s | load s | maximum lag, ms | lag at the end of the load, ms |\n|---|---|---|---|---|\n"
    );
    for (i, pace) in ["100,000", "none"].into_iter().enumerate() {
        for (name, b) in [("native REPLICAOF", &native_streams[i]), ("Whimbrel", &our_streams[i])] {
            let row =
                format!("| {name} | {pace} | {:.2} | {:.0} | {:.0} |\n", b.seconds, b.worst_ms, b.after_ms);
            text.push_str(&row);
        }
    }
    text.push_str("| RedisShake 4.6.2 (measured elsewhere) | none | – | 2900–5200 | – |\n");
    text
}

/// Starts `whimbrel redis copy` and waits until it replicates, which its checkpoint shows.
fn follow(source: &Redis, target: &Redis) -> Child {
    let mut follower = Command::new(here("whimbrel"));
    follower.args(["redis", "copy", &source.url(), &target.url(), "--quiet"]);
    follower.stdout(Stdio::null()).stderr(Stdio::null());
    let follower = follower.spawn().expect("whimbrel runs");
    let follows = || {
        let names = target.run("KEYS whimbrel:redis:offset:*");
        let name = names.array().and_then(|a| a.first()?.text()).map(<[u8]>::to_vec);
        let mark = name.map(|name| target.connect().call(&[b"GET", &name]));
        mark.is_some_and(|m| m.text().is_some_and(|t| t.starts_with(b"applied")))
    };
    while !follows() {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    follower
}

fn import(data: &DataSet) -> String {
    let DataSet { source, dump, size, .. } = data;
    let (mut reloads, mut loads, mut imports) = (vec![], vec![], vec![]);
    for _ in 0..data.rounds {
        // A reload without a save reads the dump that was saved before.
        source.run("FLUSHALL");
        let began = Instant::now();
        source.connect().run("DEBUG RELOAD NOSAVE");
        reloads.push(Cost { wall: began.elapsed().as_secs_f64(), ..Cost::default() });
    }
    source.run("FLUSHALL");
    for _ in 0..data.rounds {
        let dir = source.dir().display().to_string();
        let began = Instant::now();
        let fresh = Redis::start("REDIS_7_0", &["--dir", &dir]);
        while field(&fresh, "persistence", "loading") != "0" {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        loads.push(Cost { wall: began.elapsed().as_secs_f64(), ..Cost::default() });
        drop(fresh);
        let fresh = Redis::start("REDIS_7_0", &SERVER);
        imports.push(whimbrel(&["import", &dump.display().to_string(), &fresh.url()]));
    }
    let (reload, load, import) = (median(reloads), median(loads), median(imports));
    let mut text = format!(
        "\n## Redis: importing the same RDB ({size:.0} MB)\n\nInto a freshly started server.\n\n| | wall s | CPU s \
         of the tool | peak MiB |\n|---|---|---|---|\n"
    );
    text.push_str(&row("server start with the file", load, true));
    text.push_str(&row("DEBUG RELOAD in a running server", reload, true));
    text.push_str(&row("Whimbrel", import, false));
    text.push_str(SHAKE_IMPORT);
    text.push_str(&format!("\nWhimbrel relative to a server start: {:.2}.\n", import.wall / load.wall));
    text.push_str(
        "\nRedisShake's figures were measured on another machine with 2 cores on 22 November 2026, with 3,000,000 \
         mixed keys of 1.35 GB (693 MB of RDB), where the native full sync took 13.8 s; they are given for \
         orientation and were not measured in the same run.\n",
    );
    text
}
