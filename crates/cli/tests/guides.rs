//! The guides as users follow them: the commands of a page run in their order, with addresses of scripted servers.
//!
//! That every other command parses is tested by `src/documentation_tests.rs`.

use std::path::Path;
use std::process::Command;

use testkit::{Options, S3Server};

use crate::support::{Service, whimbrel};

/// The lines of the blocks marked `sh`; a line that ends in `\` goes on in the next.
fn lines(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let text = blocks.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Two servers with the buckets that guides name, a service that knows them, and the directories of a user.
struct Lab {
    source: S3Server,
    target: S3Server,
    dir: tempfile::TempDir,
    service: Service,
}

impl Lab {
    fn start() -> Self {
        let (source, target) = (S3Server::start(Options::default()), S3Server::start(Options::default()));
        let photos = source.bucket("photos");
        for (folder, count) in [("2019", 3), ("2024", 20)] {
            for i in 0..count {
                photos.put(&format!("{folder}/{i:03}.jpg"), format!("{folder} {i}"));
            }
        }
        for bucket in ["photos-copy", "rehearsal", "photos"] {
            target.bucket(bucket);
        }
        let dir = tempfile::tempdir().unwrap();
        let store =
            |region: &str, at: &str| format!("\n[[store]]\nregion = \"{region}\"\nendpoint = \"{at}\"\n");
        let (a, b) = (source.endpoint(), target.endpoint());
        let stores = [("minio-a", &a), ("old", &a), ("minio-b", &b), ("new", &b)];
        let service = Service::start(dir.path(), &stores.map(|(region, at)| store(region, at)).concat());
        std::fs::write(dir.path().join("keys.txt"), "2024/001.jpg\n2024/002.jpg\n").unwrap();
        std::fs::create_dir_all(dir.path().join("srv/photos")).unwrap();
        std::fs::create_dir_all(dir.path().join("mnt/backup")).unwrap();
        for name in ["a.jpg", "b.jpg"] {
            std::fs::write(dir.path().join("srv/photos").join(name), name).unwrap();
        }
        Self { source, target, dir, service }
    }

    /// A line with the addresses of this lab; none for a line that only a person runs.
    fn adapted(&self, line: &str) -> Option<String> {
        let is_setup = line.starts_with("cargo ") || line.starts_with("export ") || line == "whimbrel serve";
        if is_setup {
            return None;
        }
        let at = |path: &str| self.dir.path().join(path).display().to_string();
        let (a, b) = (self.source.endpoint(), self.target.endpoint());
        let mut line = line
            .replace("http://10.0.0.5:9000", &a)
            .replace("http://10.0.0.6:9000", &b)
            .replace("\"$(pgrep -f 'whimbrel serve')\"", &self.service.child.id().to_string())
            .replace("/srv/photos", &at("srv/photos"))
            .replace("/mnt/backup", &at("mnt/backup"));
        if line.contains("s3://") && !line.contains("-endpoint ") {
            line = format!("{line} --source-endpoint {a} --target-endpoint {b}");
        }
        // The few objects are copied before a person could stop the task.
        if line.starts_with("whimbrel task stop") || line.starts_with("whimbrel task start") {
            line = format!("{line} || true");
        }
        Some(line)
    }

    /// Runs the commands of a page below `docs`.
    fn follow(&self, page: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let run: Vec<String> = lines(&text).iter().filter_map(|line| self.adapted(line)).collect();
        assert!(!run.is_empty(), "docs/{page} has no commands");
        let script = format!("set -eux\n{}\n", run.join("\n"));
        let program = whimbrel();
        let folder = Path::new(program.get_program()).parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(self.dir.path());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => bash.env(name, value),
                None => bash.env_remove(name),
            };
        }
        bash.env("PATH", format!("{folder}:{path}")).env("HOME", self.dir.path());
        bash.env("WHIMBREL_ENDPOINT", &self.service.endpoint).env("WHIMBREL_PROJECT", &self.service.project);
        bash.env("WHIMBREL_AK", &self.service.ak).env("WHIMBREL_SK", &self.service.sk);
        let output = bash.output().unwrap();
        let seen = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "a command of docs/{page} failed:\n{seen}");
    }

    fn copied(&self, bucket: &str, prefix: &str) -> usize {
        self.target.bucket(bucket).objects().iter().filter(|(key, _)| key.starts_with(prefix)).count()
    }
}

#[test]
fn guide_start_runs() {
    let lab = Lab::start();
    lab.follow("start.md");
    assert!(lab.dir.path().join("mnt/backup/photos/b.jpg").exists(), "the first copy of docs/start.md");
}

#[test]
fn guide_copy_a_bucket_runs() {
    let lab = Lab::start();
    lab.follow("copy-a-bucket.md");
    assert_eq!((lab.copied("photos-copy", "2024/"), lab.copied("photos-copy", "archive/")), (20, 20));
}

#[test]
fn guide_sync_runs() {
    let lab = Lab::start();
    lab.target.bucket("photos-copy").put("extra.jpg", "extra");
    lab.follow("sync.md");
    assert_eq!((lab.copied("photos-copy", "20"), lab.copied("photos-copy", "extra")), (23, 0));
}

#[test]
fn guide_directories_runs() {
    let lab = Lab::start();
    lab.follow("stores/directories.md");
    assert_eq!(lab.copied("photos", "2024/a.jpg"), 1);
}

#[test]
fn guide_move_40_tb_runs() {
    let lab = Lab::start();
    lab.follow("move-40-tb.md");
    assert_eq!((lab.copied("rehearsal", "2019/"), lab.copied("photos", "20")), (3, 23));
}
