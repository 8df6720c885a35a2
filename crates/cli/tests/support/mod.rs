//! Running the binary.

pub(crate) mod browser;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const LOG_TIMEOUT: Duration = Duration::from_secs(20);
const LOG_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The binary under test, with an environment of its own.
pub(crate) fn whimbrel() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"] {
        command.env_remove(name);
    }
    let (ak, sk) = testkit::servers::KEYS;
    for side in ["SOURCE", "TARGET"] {
        command.env(format!("WHIMBREL_{side}_ACCESS_KEY"), ak).env(format!("WHIMBREL_{side}_SECRET_KEY"), sk);
    }
    command
}

/// The last lines of a text file, oldest first; a note when the file cannot be read.
pub(crate) fn last_lines(path: &Path, count: usize) -> String {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(count)..].join("\n")
        }
        Err(error) => format!("cannot read {}: {error}", path.display()),
    }
}

/// The last line of stdout as JSON.
pub(crate) fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| {
        panic!("no JSON ({e}) in {text:?}; stderr: {}", String::from_utf8_lossy(&output.stderr))
    })
}

/// `whimbrel copy` between two S3 places.
pub(crate) fn copy(from: (&str, &str), to: (&str, &str), state: &Path) -> Command {
    let mut command = whimbrel();
    command.args(["copy", &format!("s3://{}", from.1), &format!("s3://{}", to.1), "--json"]);
    command.args(["--source-endpoint", from.0, "--target-endpoint", to.0]);
    command.arg("--state-dir").arg(state);
    command
}

/// A running service; killed when dropped.
pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) endpoint: String,
    pub(crate) ak: String,
    pub(crate) sk: String,
    pub(crate) project: String,
    pub(crate) dir: PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The URL of a new PostgreSQL database.
pub(crate) fn new_database() -> String {
    let server = testkit::servers::endpoint("WHIMBREL_TEST_POSTGRES");
    let name = format!("t{:016x}", fastrand::u64(..));
    let made =
        Command::new("psql").args([&server, "-c", &format!("CREATE DATABASE {name}")]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    format!("{}/{name}", server.trim_end_matches("/postgres"))
}

impl Service {
    /// Starts in `dir`, with a fresh configuration the first time; `extra` is added to that.
    pub(crate) fn start(dir: &Path, extra: &str) -> Service {
        match std::env::var("WHIMBREL_TEST_DATABASE") {
            Ok(kind) if kind == "postgres" => Self::start_on(dir, extra, &new_database(), &[]),
            _ => Self::start_on(dir, extra, "sqlite", &[]),
        }
    }

    /// As [`Service::start`], with a database and options.
    pub(crate) fn start_on(dir: &Path, extra: &str, database: &str, options: &[&str]) -> Service {
        let config = dir.join("whimbrel.toml");
        let keys = dir.join("keys");
        if !config.exists() {
            let made = whimbrel()
                .args(["init", "--data-dir"])
                .arg(dir.join("data"))
                .arg("--config")
                .arg(&config)
                .output();
            let made = made.unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            std::fs::write(&keys, &made.stdout).unwrap();
            let text = std::fs::read_to_string(&config).unwrap();
            let text = text.replace("_endpoints = []", "_endpoints = [\"127.0.0.0/8\"]");
            let text = text.replace("database = \"sqlite\"", &format!("database = \"{database}\""));
            std::fs::write(&config, text + extra).unwrap();
        }
        let text = std::fs::read_to_string(&keys).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_default().to_owned()
        };
        let mut command = whimbrel();
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config).args(options);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let endpoint = loop {
            let line = lines.next().unwrap_or_else(|| panic!("the service ended: {seen}")).unwrap();
            if let Some(url) = line.strip_prefix("Listening on ") {
                break url.to_owned();
            }
            seen.push_str(&line);
        };
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        std::thread::spawn(move || {
            use std::io::Write;
            let mut log = log;
            for line in lines.map_while(Result::ok) {
                let _ = writeln!(log, "{line}");
            }
        });
        Service {
            child,
            endpoint,
            ak: value("WHIMBREL_AK"),
            sk: value("WHIMBREL_SK"),
            project: value("WHIMBREL_PROJECT"),
            dir: dir.to_owned(),
        }
    }

    /// The password of `admin`.
    pub(crate) fn password(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("keys")).unwrap();
        let line = text.lines().find_map(|l| l.split_once("password: ").map(|(_, p)| p.trim().to_owned()));
        line.unwrap_or_default()
    }

    /// Waits until the service has logged a text.
    pub(crate) fn wait_for_log(&self, text: &str) {
        let (path, began) = (self.dir.join("log"), Instant::now());
        while !std::fs::read_to_string(&path).is_ok_and(|log| log.contains(text)) {
            assert!(began.elapsed() < LOG_TIMEOUT, "no `{text}` in the log:\n{}", last_lines(&path, 30));
            std::thread::park_timeout(LOG_POLL_INTERVAL);
        }
    }

    /// `whimbrel task …` against this service.
    pub(crate) fn task(&self, args: &[&str]) -> Output {
        let mut command = whimbrel();
        command.args(["task", "--json"]).args(args);
        command.env("WHIMBREL_ENDPOINT", &self.endpoint).env("WHIMBREL_PROJECT", &self.project);
        command.env("WHIMBREL_AK", &self.ak).env("WHIMBREL_SK", &self.sk);
        command.output().unwrap()
    }

    /// Creates a task for a whole bucket between two endpoints.
    pub(crate) fn create(&self, from: (&str, &str), to: (&str, &str)) -> i64 {
        let (source, target) = (format!("{}:{}", from.0, from.1), format!("{}:{}", to.0, to.1));
        let made = json(&self.task(&["create", &source, &target]));
        made["id"].as_i64().unwrap_or_else(|| panic!("{made}"))
    }

    /// The task as the API shows it.
    pub(crate) fn show(&self, id: i64) -> Value {
        json(&self.task(&["show", &id.to_string()]))
    }

    /// Follows a task until it is stopped or ends.
    pub(crate) fn watch(&self, id: i64) -> Value {
        json(&self.task(&["watch", &id.to_string()]))
    }
}
