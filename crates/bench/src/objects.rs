//! `bench objects [--quick]`: whole programs on the same work against the in-process server, alternating; wall,
//! CPU seconds and peak memory of each, as medians, into docs/benchmarks.md.
#![allow(clippy::disallowed_methods, reason = "a benchmark connects to the server that it starts")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PORT: &str = "19000";

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) rss_mb: f64,
    pub(crate) failed: bool,
}

struct Work {
    name: &'static str,
    bucket: &'static str,
    lists: bool,
    /// s5cmd cannot cross endpoints: it is measured where a disk in between makes sense.
    by_disk: bool,
}

const WORK: [Work; 5] = [
    Work { name: "20,000 × 4 KiB", bucket: "small", lists: false, by_disk: true },
    Work { name: "2,000 × 1 MiB", bucket: "middle", lists: false, by_disk: true },
    Work { name: "4 × 1 GiB", bucket: "big", lists: false, by_disk: false },
    Work { name: "listing 1,000,000 keys", bucket: "list1m", lists: true, by_disk: true },
    Work { name: "listing 10,000,000 keys", bucket: "list10m", lists: true, by_disk: false },
];

fn endpoint() -> String {
    format!("http://127.0.0.1:{PORT}")
}

pub(crate) fn here(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap_or_default();
    path.set_file_name(name);
    path
}

fn tool(name: &str) -> PathBuf {
    PathBuf::from(std::env::var("WHIMBREL_TOOLS").unwrap_or_default()).join(name)
}

/// Runs a command to its end: CPU from the kernel's accounts of the finished process, memory from its peak.
pub(crate) fn measure(mut command: Command) -> Cost {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let Ok(mut child) = command.spawn() else { return Cost { failed: true, ..Cost::default() } };
    let (mut rss, mut cpu) = (0.0f64, 0.0);
    let proc = format!("/proc/{}", child.id());
    loop {
        let status = std::fs::read_to_string(format!("{proc}/status")).unwrap_or_default();
        if let Some(line) = status.lines().find_map(|l| l.strip_prefix("VmHWM:")) {
            rss = rss.max(line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0) / 1024.0);
        }
        let stat = std::fs::read_to_string(format!("{proc}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        if fields.first() == Some(&"Z") || fields.len() < 13 {
            let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
            cpu += (ticks(11) + ticks(12)) / 100.0;
            break;
        }
        if began.elapsed() > Duration::from_secs(240) {
            let _ = child.kill();
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let wall = began.elapsed().as_secs_f64();
    let failed = !child.wait().is_ok_and(|s| s.success());
    Cost { wall, cpu, rss_mb: rss, failed }
}

fn keys(command: &mut Command) {
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "bench"),
        ("AWS_SECRET_ACCESS_KEY", "bench-secret"),
        ("AWS_REGION", "us-east-1"),
        ("WHIMBREL_TARGET_ACCESS_KEY", "other"),
        ("RCLONE_CONFIG", "/dev/null"),
        ("RCLONE_CONFIG_B_TYPE", "s3"),
        ("RCLONE_CONFIG_B_PROVIDER", "Other"),
        ("RCLONE_CONFIG_B_ACCESS_KEY_ID", "bench"),
        ("RCLONE_CONFIG_B_SECRET_ACCESS_KEY", "bench-secret"),
        ("RCLONE_CONFIG_B_FORCE_PATH_STYLE", "true"),
    ] {
        command.env(name, value);
    }
    command.env("RCLONE_CONFIG_B_ENDPOINT", endpoint());
}

/// rclone with what makes it fastest for this work.
const RCLONE_TUNED: [&str; 17] = [
    "--transfers",
    "64",
    "--checkers",
    "64",
    "--no-check-dest",
    "--s3-no-head",
    "--s3-no-check-bucket",
    "--s3-disable-checksum",
    "--use-server-modtime",
    "-q",
    "--disable",
    "Copy",
    "--ignore-checksum",
    "--s3-upload-cutoff",
    "64M",
    "--s3-chunk-size",
    "16M",
];

/// The command of one program for one piece of work; none where it cannot do it.
fn command(program: &str, work: &Work, scratch: &std::path::Path) -> Option<Command> {
    let at = endpoint();
    let run = |program: PathBuf, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args);
        keys(&mut command);
        Some(command)
    };
    let bucket = work.bucket;
    match (program, work.lists) {
        ("bare hyper client", false) => run(here("bench"), &["bare", "copy", &at, bucket, "64"]),
        ("bare hyper client", true) => run(here("bench"), &["bare", "list", &at, bucket]),
        ("Whimbrel", false) => {
            let state = scratch.join("state").display().to_string();
            let (from, to) = (format!("s3://{bucket}"), "s3://target".to_owned());
            let args = ["copy", &from, &to, "--source-endpoint", &at, "--target-endpoint", &at, "--quiet"];
            let more = ["--state-dir", &state, "--no-resume", "--overwrite", "always"];
            run(here("whimbrel"), &[&args[..], &more[..]].concat())
        }
        ("Whimbrel", true) => {
            run(here("whimbrel"), &["assess", &format!("s3://{bucket}"), "--source-endpoint", &at, "--quiet"])
        }
        ("rclone, tuned", false) => {
            let from = format!("B:{bucket}");
            run(tool("rclone"), &[&["copy", from.as_str(), "B:target"][..], &RCLONE_TUNED[..]].concat())
        }
        ("rclone, tuned", true) => run(tool("rclone"), &["size", "--fast-list", &format!("B:{bucket}")]),
        ("juicefs sync", lists) => {
            let address = at.trim_start_matches("http://");
            let place = |bucket: &str| format!("minio://bench:bench-secret@{address}/{bucket}/");
            let (from, to) = (place(bucket), place(if lists { "empty" } else { "target" }));
            let args = ["sync", "--metrics", "127.0.0.1:0", "--threads", "64", "--force-update"];
            let more = if lists { &["--dry"][..] } else { &[] };
            run(tool("juicefs"), &[&args[..], more, &[from.as_str(), to.as_str()]].concat())
        }
        ("s5cmd (by disk)", false) if work.by_disk => {
            let dir = scratch.join("disk").display().to_string();
            let s5 = tool("../s5cmd/bin/s5cmd").display().to_string();
            let script = format!(
                "rm -rf {dir}; {s5} --log error --endpoint-url {at} --numworkers 64 cp 's3://{bucket}/*' {dir}/ && \
                 exec {s5} --log error --endpoint-url {at} --numworkers 64 cp {dir}/ s3://target/"
            );
            run("sh".into(), &["-c", &script])
        }
        ("s5cmd (by disk)", true) if work.by_disk => {
            run(tool("../s5cmd/bin/s5cmd"), &["--endpoint-url", &at, "ls", &format!("s3://{bucket}/*")])
        }
        _ => None,
    }
}

pub(crate) fn median(mut costs: Vec<Cost>) -> Cost {
    let pick = |costs: &mut Vec<Cost>, by: fn(&Cost) -> f64| {
        costs.sort_by(|a, b| by(a).total_cmp(&by(b)));
        by(&costs[costs.len() / 2])
    };
    let failed = costs.iter().any(|c| c.failed);
    Cost {
        wall: pick(&mut costs, |c| c.wall),
        cpu: pick(&mut costs, |c| c.cpu),
        rss_mb: pick(&mut costs, |c| c.rss_mb),
        failed,
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve() -> Server {
    let mut command = Command::new(here("bench"));
    let child = command.args(["server", PORT]).stdout(Stdio::null()).spawn().expect("the server starts");
    let server = Server(child);
    while std::net::TcpStream::connect(format!("127.0.0.1:{PORT}")).is_err() {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    server
}

/// Measures everything and writes the table.
pub(crate) fn run(args: &[String]) {
    let quick = args.iter().any(|a| a == "--quick");
    let rounds = if quick { 1 } else { 3 };
    let scratch = std::env::temp_dir().join("whimbrel-bench");
    std::fs::create_dir_all(&scratch).expect("a scratch directory");
    let programs = ["bare hyper client", "Whimbrel", "juicefs sync", "rclone, tuned", "s5cmd (by disk)"];
    let mut text = String::from(
        "All programs and the server share one machine with 2 cores, on loopback, in alternating runs; medians. CPU \
         is that of the measured program only (of s5cmd's two runs, the second). Whimbrel's figures include its \
         ledger, comparison and proof; the bare client is our S3 client without ledger, comparison and proof.\n",
    );
    for work in &WORK {
        let server = serve();
        let slow = work.bucket == "list10m";
        let mut all: Vec<Vec<Cost>> = vec![vec![]; programs.len()];
        for _ in 0..if slow { 1 } else { rounds } {
            for (i, program) in programs.iter().enumerate() {
                // Ten million keys take the others minutes; their cost per key is known from one million.
                if slow && i > 1 {
                    continue;
                }
                if let Some(command) = command(program, work, &scratch) {
                    all[i].push(measure(command));
                }
            }
        }
        drop(server);
        text.push_str(&format!(
            "\n## {}\n\n| program | wall s | CPU s | peak MiB |\n|---|---|---|---|\n",
            work.name
        ));
        for (program, costs) in programs.iter().zip(all).filter(|(_, c)| !c.is_empty()) {
            let c = median(costs);
            let note = if c.failed { " (failed)" } else { "" };
            let row = format!("| {program}{note} | {:.2} | {:.2} | {:.0} |\n", c.wall, c.cpu, c.rss_mb);
            eprint!("{}: {row}", work.name);
            text.push_str(&row);
        }
    }
    let _ = std::fs::remove_dir_all(&scratch);
    crate::page::write("objects", &text);
}
