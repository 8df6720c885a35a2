//! Several processes on one PostgreSQL database.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::content::Content;
use testkit::{Options, S3Server};

use crate::support::{Service, json, new_database, whimbrel};

/// Longer than any lease: what has not happened then never will.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A process of `whimbrel worker`; killed when dropped.
struct Worker {
    child: Child,
    session: String,
    data: PathBuf,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service that runs no tasks itself, and its workers.
struct Fleet {
    dir: tempfile::TempDir,
    service: Service,
}

impl Fleet {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::start_on(dir.path(), "", &new_database(), &["--no-work"]);
        Self { dir, service }
    }

    fn create(&self, from: &S3Server, to: &S3Server) -> i64 {
        self.service.create((&from.endpoint(), "from"), (&to.endpoint(), "to"))
    }

    fn worker(&self, name: &str) -> Worker {
        let data = self.dir.path().join(name);
        std::fs::create_dir(&data).unwrap();
        std::fs::copy(self.dir.path().join("data/seal.key"), data.join("seal.key")).unwrap();
        let mut command = whimbrel();
        command.args(["worker", "--config"]).arg(self.dir.path().join("whimbrel.toml"));
        command.arg("--data-dir").arg(&data).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = String::new();
        let session = lines.find_map(|line| {
            seen.push_str(&line);
            line.strip_prefix("Worker started, session ").map(str::to_owned)
        });
        std::thread::spawn(move || lines.for_each(drop));
        Worker { child, session: session.unwrap_or_else(|| panic!("the worker ended: {seen}")), data }
    }

    fn sessions(&self, action: &[&str]) -> Value {
        let mut command = whimbrel();
        command.args(["sessions", "--json", "--config"]).arg(self.dir.path().join("whimbrel.toml"));
        json(&command.args(action).output().unwrap())
    }

    /// Waits until a task is as wanted.
    fn wait(&self, task: i64, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let shown = self.service.show(task);
            if wanted(&shown) {
                return shown;
            }
            assert!(began.elapsed() < TIMEOUT, "not {what}: {shown}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

/// Two stores that take their time, so that a task is caught in the middle: one with objects, one empty.
fn stores(objects: u64) -> (S3Server, S3Server) {
    let slow = || Options { delay: Duration::from_millis(20), ..Options::default() };
    let (from, to) = (S3Server::start(slow()), S3Server::start(slow()));
    from.numbered("from", objects, 100, None);
    to.bucket("to");
    (from, to)
}

fn number(shown: &Value, key: &str) -> u64 {
    shown[key].as_u64().unwrap_or_else(|| panic!("no `{key}` in {shown}"))
}

/// A status of the API: 2 running, 3 paused, 5 succeeded.
fn is(status: u64) -> impl Fn(&Value) -> bool {
    move |shown| shown["status"] == status
}

#[test]
fn task_of_a_killed_worker_is_finished_by_another() {
    let objects = 6000;
    let (from, to) = stores(objects);
    let fleet = Fleet::start();
    let mut first = fleet.worker("first");
    let task = fleet.create(&from, &to);
    fleet.wait(task, "begun", |shown| number(shown, "successful_num") > 0);
    let second = fleet.worker("second");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    std::fs::remove_dir_all(&first.data).unwrap();
    let shown = fleet.wait(task, "finished", is(5));
    assert_eq!(number(&shown, "successful_num"), objects);
    let objects_there = to.bucket("to").objects();
    let (copied, lists): (Vec<_>, Vec<_>) =
        objects_there.into_iter().partition(|(_, o)| o.content.len() == 100);
    assert_eq!(copied.len() as u64, objects);
    // The list of copied objects has those that the first copied, although its disk is gone.
    let lines = |list: &Content| list.bytes(0..list.len()).iter().filter(|b| **b == b'\n').count() as u64;
    assert!(
        lists.iter().map(|(_, list)| lines(&list.content)).sum::<u64>() >= objects,
        "{} lists",
        lists.len()
    );
    let listed = fleet.sessions(&["list"]);
    let state = |of: &str| {
        let mut sessions = listed["sessions"].as_array().unwrap().iter();
        sessions.find(|s| s["id"] == of).map(|s| s["state"].clone())
    };
    assert_eq!(state(&second.session).unwrap(), "live", "{listed}");
    // The killed worker could not remove its row, which stays until its lease has ended.
    assert_ne!(state(&first.session), None, "{listed}");
}

#[test]
fn stop_reaches_a_worker_and_drain_moves_its_task() {
    let (from, to) = stores(6000);
    let fleet = Fleet::start();
    let first = fleet.worker("first");
    let task = fleet.create(&from, &to);
    fleet.wait(task, "begun", |shown| number(shown, "successful_num") > 0);
    fleet.service.task(&["stop", &task.to_string()]);
    fleet.wait(task, "paused", is(3));
    fleet.service.task(&["start", &task.to_string()]);
    fleet.wait(task, "running", is(2));
    let _second = fleet.worker("second");
    assert_eq!(fleet.sessions(&["drain", &first.session])["state"], "draining");
    let shown = fleet.wait(task, "finished", is(5));
    assert_eq!(number(&shown, "successful_num"), 6000);
}
