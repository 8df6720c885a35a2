//! Audit lines for whatever ships logs: JSON, one line each, appended to a file or written to the standard output.
//!
//! A line is written before its call is answered. One thread writes, so that a disk or a pipe that is slow stops no other
//! request; a caller waits for its line for at most `WRITE_TIMEOUT`. After a rename, the new file is opened at the next SIGHUP.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::error::{Error, Kind, Result};
use serde_json::json;
use store::AuditLine;
use tokio::sync::{mpsc, oneshot};

/// Lines that wait to be written, at most 4 KiB each.
const QUEUE_LINES: usize = 1024;
/// The longest time that an answer waits for its line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where lines are written now.
#[derive(Debug, Default)]
pub struct Outputs {
    file: Option<(PathBuf, File)>,
    stdout: bool,
    /// The last line was not written whole.
    is_torn: AtomicBool,
}

struct PendingLine {
    outputs: Arc<Outputs>,
    line: String,
    done: oneshot::Sender<io::Result<()>>,
}

/// The writer of audit lines.
#[derive(Debug)]
pub struct AuditFile {
    outputs: Mutex<Arc<Outputs>>,
    lines: mpsc::Sender<PendingLine>,
}

fn failed(what: &str, e: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Internal, "audit", format!("{what}: {e}"))
}

impl Outputs {
    /// Opens what the configuration names; the file is made with mode 0600.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the file cannot be appended to.
    pub fn open(config: &config::Audit) -> Result<Self> {
        let file = config.file.as_ref().map(|path| {
            let opened = File::options().create(true).append(true).mode(0o600).open(path);
            let opened = opened.map_err(|e| {
                Error::new(Kind::Invalid, "configuration", format!("audit.file: {path}: {e}")).caused_by(e)
            });
            opened.map(|file| (Path::new(path).to_owned(), file))
        });
        Ok(Self { file: file.transpose()?, stdout: config.stdout, is_torn: AtomicBool::new(false) })
    }

    fn is_none(&self) -> bool {
        self.file.is_none() && !self.stdout
    }

    fn append(&self, line: &str) -> io::Result<()> {
        if let Some((path, mut file)) = self.file.as_ref().map(|(path, file)| (path, file)) {
            // What was cut off by a full disk stays a line of its own.
            let begin = if self.is_torn.swap(true, Ordering::Relaxed) { "\n" } else { "" };
            let written = file.write_all(format!("{begin}{line}\n").as_bytes());
            written.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
            self.is_torn.store(false, Ordering::Relaxed);
        }
        if self.stdout {
            let mut out = io::stdout().lock();
            out.write_all(format!("{line}\n").as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }
}

impl AuditFile {
    /// Starts the writer thread with these outputs.
    ///
    /// # Errors
    /// [`Kind::Internal`] when no thread can be started.
    pub fn start(outputs: Outputs) -> Result<Self> {
        let (lines, mut queue) = mpsc::channel::<PendingLine>(QUEUE_LINES);
        let write = move || {
            while let Some(pending) = queue.blocking_recv() {
                let _ = pending.done.send(pending.outputs.append(&pending.line));
            }
        };
        std::thread::Builder::new().name("audit".into()).spawn(write).map_err(|e| failed("thread", &e))?;
        Ok(Self { outputs: Mutex::new(Arc::new(outputs)), lines })
    }

    /// Replaces the outputs, at a reload.
    pub fn replace(&self, outputs: Outputs) {
        *self.outputs.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(outputs);
    }

    /// Writes a line; returns when it is written.
    ///
    /// # Errors
    /// [`Kind::Internal`] when it could not be written, or not in time; it may be written later in that case.
    pub async fn write(&self, line: &AuditLine) -> Result<()> {
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if outputs.is_none() {
            return Ok(());
        }
        let (done, reply) = oneshot::channel();
        let pending = PendingLine { outputs, line: text(line), done };
        let written = async {
            self.lines.send(pending).await.map_err(|e| failed("the writer has ended", &e))?;
            reply
                .await
                .map_err(|e| failed("the writer has ended", &e))?
                .map_err(|e| failed("not written", &e))
        };
        let late = |_| failed("not written", &format!("no progress in {} s", WRITE_TIMEOUT.as_secs()));
        tokio::time::timeout(WRITE_TIMEOUT, written).await.map_err(late)?
    }
}

/// A line as the API shows it.
fn text(line: &AuditLine) -> String {
    json!({
        "at": line.at, "request_id": line.request_id, "project_id": line.project, "principal": line.principal,
        "role": line.role, "address": line.address, "action": line.action, "target": line.target,
        "status": line.status,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn line(id: &str) -> AuditLine {
        AuditLine {
            at: 1,
            request_id: id.into(),
            project: "p".into(),
            principal: "AK\n\"".into(),
            action: "POST".into(),
            target: "/v2/p/tasks".into(),
            status: 200,
            address: "192.0.2.1".into(),
            role: "operator".into(),
        }
    }

    fn ids(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        let id = |l: &str| serde_json::from_str::<serde_json::Value>(l).unwrap()["request_id"].to_string();
        text.lines().map(id).collect()
    }

    #[tokio::test]
    async fn sec_f26_audit_lines_are_appended_and_rotation_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let config = config::Audit { file: Some(path.display().to_string()), stdout: false };
        let audit = AuditFile::start(Outputs::open(&config).unwrap()).unwrap();
        audit.write(&line("1")).await.unwrap();
        assert_eq!(ids(&path), ["\"1\""], "written before the call returns");
        let old = dir.path().join("audit.jsonl.1");
        std::fs::rename(&path, &old).unwrap();
        audit.write(&line("2")).await.unwrap();
        audit.replace(Outputs::open(&config).unwrap());
        audit.write(&line("3")).await.unwrap();
        assert_eq!((ids(&old), ids(&path)), (vec!["\"1\"".into(), "\"2\"".into()], vec!["\"3\"".into()]));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        audit.replace(Outputs::open(&config).unwrap());
        audit.write(&line("4")).await.unwrap();
        assert_eq!(ids(&path).len(), 2, "what is there is not cut off");
    }

    #[tokio::test]
    async fn sec_f26_unwritable_audit_file_is_reported() {
        let nowhere = config::Audit { file: Some("/nowhere/audit.jsonl".into()), stdout: false };
        assert_eq!(Outputs::open(&nowhere).unwrap_err().kind, Kind::Invalid);
        let full = config::Audit { file: Some("/dev/full".into()), stdout: false };
        let audit = AuditFile::start(Outputs::open(&full).unwrap()).unwrap();
        let failure = audit.write(&line("1")).await.unwrap_err();
        assert!(failure.message.contains("/dev/full"), "{failure}");
        let none = AuditFile::start(Outputs::default()).unwrap();
        none.write(&line("1")).await.unwrap();
    }
}
