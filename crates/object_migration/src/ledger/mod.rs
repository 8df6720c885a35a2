//! The one writer of the ledger: gathers what ranges and uploads report, makes it durable, and commits it.
//!
//! Order of one commit: the target settles (file systems), the outcome lines are on disk, then one
//! transaction holds cursors, counters, failures and uploads. Where several processes share the database, it holds the
//! lines as well: the disk of a process may be gone when another goes on.
//!
//! Decision: ADR 0001, `docs/adr/0001-the-ledger-is-ranges-not-objects.md`.

pub mod outcome;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::error::{Error, Kind, Result};
use model::key::{Key, Order};
use model::task::TaskId;
use storage::SharedStore;
use store::{Checkpoint, FailedObject, NewRange, Pass, Restore, Store, UnresolvedUpload, Upload};
use tokio::sync::{mpsc, oneshot};

use crate::ledger::outcome::OutcomeFile;

/// Time between two commits of a running task.
const COMMIT_INTERVAL: Duration = Duration::from_millis(400);

/// What a range reports.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) lines: String,
    pub(crate) failed: Vec<FailedObject>,
    /// Archived objects to wait for.
    pub(crate) waiting: Vec<Restore>,
    /// Objects that are waited for no more.
    pub(crate) restored: Vec<Key>,
}

impl Report {
    /// How far a range got, and nothing else.
    pub(crate) fn only(checkpoint: Checkpoint) -> Self {
        Self { checkpoint, lines: String::new(), failed: vec![], waiting: vec![], restored: vec![] }
    }
}

pub(crate) enum Message {
    Report(Box<Report>),
    Split {
        lower: i64,
        upto: Key,
        upper: NewRange,
        done: oneshot::Sender<Result<()>>,
    },
    Flush(oneshot::Sender<Result<()>>),
    /// The copy begins again from nothing; a sentence says why.
    RestartCopy {
        why: String,
        orders: [Order; 2],
        done: oneshot::Sender<Result<()>>,
    },
}

/// Open uploads by key; none: finished since the last commit, to be forgotten.
pub(crate) type Uploads = Arc<Mutex<HashMap<Key, (Upload, bool)>>>;

/// The way to the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    messages: mpsc::Sender<Message>,
    pub(crate) uploads: Uploads,
    forgotten: Arc<Mutex<Vec<Key>>>,
}

pub(crate) struct LedgerTask {
    pub(crate) store: Store,
    pub(crate) task: TaskId,
    pub(crate) owner: String,
    pub(crate) fence: i64,
    pub(crate) target: SharedStore,
    pub(crate) outcome: PathBuf,
    pub(crate) outcome_len: u64,
    pub(crate) lease_until: i64,
}

fn writer_ended() -> Error {
    Error::new(Kind::LeaseLost, "ledger", "the ledger writer has stopped")
}

impl Ledger {
    /// Starts the writer; its handle gives the first error that made it end.
    pub(crate) fn start(
        task: LedgerTask,
        open: Vec<Upload>,
    ) -> (Ledger, tokio::task::JoinHandle<Result<()>>) {
        let (messages, inbox) = mpsc::channel(1024);
        let uploads: HashMap<Key, (Upload, bool)> =
            open.into_iter().map(|u| (u.key.clone(), (u, false))).collect();
        let ledger = Ledger { messages, uploads: Arc::new(Mutex::new(uploads)), forgotten: Arc::default() };
        let handle = tokio::spawn(task.run(inbox, ledger.uploads.clone(), ledger.forgotten.clone()));
        (ledger, handle)
    }

    pub(crate) async fn report(&self, report: Report) -> Result<()> {
        self.messages.send(Message::Report(Box::new(report))).await.map_err(|_| writer_ended())
    }

    /// Stores a split; both halves exist afterwards, or neither change happened.
    pub(crate) async fn split(&self, lower: i64, upto: Key, upper: NewRange) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let message = Message::Split { lower, upto, upper, done };
        self.messages.send(message).await.map_err(|_| writer_ended())?;
        answer.await.map_err(|_| writer_ended())?
    }

    /// Forgets what the copy pass has reached, counted and written down: it begins again in another order of listing.
    pub(crate) async fn restart_copy(&self, why: String, orders: [Order; 2]) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let message = Message::RestartCopy { why, orders, done };
        self.messages.send(message).await.map_err(|_| writer_ended())?;
        answer.await.map_err(|_| writer_ended())?
    }

    /// Waits until everything reported so far is durable.
    pub(crate) async fn flush(&self) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.messages.send(Message::Flush(done)).await.map_err(|_| writer_ended())?;
        answer.await.map_err(|_| writer_ended())?
    }

    fn open_uploads(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (Upload, bool)>> {
        self.uploads.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn upload_of(&self, key: &Key) -> Option<Upload> {
        self.open_uploads()
            .get(key)
            .map(|(u, _)| u.clone())
            .filter(|u| u.unresolved != UnresolvedUpload::OnlyUpload)
    }

    /// As [`Self::upload_of`], and also what only may have begun.
    pub(crate) fn any_upload_of(&self, key: &Key) -> Option<Upload> {
        self.open_uploads().get(key).map(|(u, _)| u.clone())
    }

    /// The upload has become an object. Another one whose outcome is unknown stays in the ledger and is checked at the end.
    pub(crate) fn mark_completed(&self, upload: &Upload) {
        match upload.unresolved {
            UnresolvedUpload::None => self.forget_upload(&upload.key),
            _ => {
                let left = Upload {
                    upload: String::new(),
                    unresolved: UnresolvedUpload::OnlyUpload,
                    ..upload.clone()
                };
                self.put_upload(left);
            }
        }
    }

    pub(crate) fn put_upload(&self, upload: Upload) {
        self.open_uploads().insert(upload.key.clone(), (upload, true));
    }

    pub(crate) fn forget_upload(&self, key: &Key) {
        let mut open = self.open_uploads();
        if open.remove(key).is_some() {
            // Under the lock of both, so that one commit sees both or neither.
            self.forgotten.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(key.clone());
        }
    }
}

/// Sends a result to the caller that waits for it, and returns it.
fn reply(done: oneshot::Sender<Result<()>>, result: Result<()>) -> Result<()> {
    let _ = done.send(result.clone());
    result
}

/// Uploads that have changed since the last commit, and keys whose upload is gone.
fn take_changed_uploads(uploads: &Uploads, forgotten: &Mutex<Vec<Key>>) -> (Vec<Upload>, Vec<Key>) {
    let mut open = uploads.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dirty = open.values_mut().filter(|(_, d)| *d).map(|(u, d)| {
        *d = false;
        u.clone()
    });
    let dirty = dirty.collect();
    let mut forgotten = forgotten.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    (dirty, std::mem::take(&mut *forgotten))
}

impl LedgerTask {
    async fn run(
        self,
        mut inbox: mpsc::Receiver<Message>,
        uploads: Uploads,
        forgotten: Arc<Mutex<Vec<Key>>>,
    ) -> Result<()> {
        let mut file = self.open_outcomes().await?;
        let mut early: HashMap<i64, Checkpoint> = HashMap::new();
        let mut tick = tokio::time::interval(COMMIT_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut batch, mut waiting): (Vec<Report>, Vec<oneshot::Sender<Result<()>>>) = (vec![], vec![]);
        loop {
            let due = tokio::select! {
                message = inbox.recv() => match message {
                    None => true,
                    Some(Message::Report(report)) => {
                        let last = report.checkpoint.done;
                        batch.push(*report);
                        last && batch.len() > 64
                    }
                    Some(Message::Flush(done)) => { waiting.push(done); true }
                    Some(Message::Split { lower, upto, upper, done }) => {
                        reply(done, self.split(lower, &upto, &upper).await)?;
                        // The lower range was done already, up to this very end.
                        batch.extend(early.remove(&lower).map(Report::only));
                        false
                    }
                    Some(Message::RestartCopy { why, orders, done }) => {
                        batch.clear();
                        early.clear();
                        reply(done, self.restart_copy(&mut file, &why, orders).await)?;
                        false
                    }
                },
                _ = tick.tick() => true,
            };
            if !due {
                continue;
            }
            let (dirty, dropped) = take_changed_uploads(&uploads, &forgotten);
            let result = if batch.is_empty() && dirty.is_empty() && dropped.is_empty() {
                Ok(())
            } else {
                let committed = self.commit(&mut file, std::mem::take(&mut batch), &dirty, &dropped).await;
                committed.map(|done| early.extend(done.into_iter().map(|c| (c.id, c))))
            };
            for done in waiting.drain(..) {
                let _ = done.send(result.clone());
            }
            result?;
            if inbox.is_closed() && inbox.is_empty() {
                return Ok(());
            }
        }
    }

    /// Opens the outcome file, after it was fetched from the other processes of a shared database.
    async fn open_outcomes(&self) -> Result<OutcomeFile> {
        if self.store.is_shared() {
            outcome::fetch(&self.store, self.task, &self.outcome, self.outcome_len).await?;
        }
        let file = OutcomeFile::open(&self.outcome, self.outcome_len)?;
        if file.lost_bytes() > 0 {
            self.note_lost_outcomes(&file).await?;
        }
        Ok(file)
    }

    async fn split(&self, lower: i64, upto: &Key, upper: &NewRange) -> Result<()> {
        let mut tx = self.store.write().await?;
        tx.hold_task(self.task, self.fence).await?;
        tx.lower_end(self.task, lower, self.fence, upto).await?;
        let new = std::slice::from_ref(upper);
        tx.insert_ranges(self.task, new, &self.owner, self.lease_until, self.fence).await?;
        tx.commit().await
    }

    /// What was in the outcome file and is lost with it is said in the task's note and in the file.
    async fn note_lost_outcomes(&self, file: &OutcomeFile) -> Result<()> {
        let note = format!(
            "{} bytes of per-object results were lost: lists and reports are incomplete",
            file.lost_bytes()
        );
        tracing::error!(task = self.task, "{note}");
        let mut tx = self.store.write().await?;
        tx.hold_task(self.task, self.fence).await?;
        tx.set_note(self.task, &note).await?;
        tx.set_outcome_len(self.task, file.len()).await?;
        tx.commit().await
    }

    async fn restart_copy(&self, file: &mut OutcomeFile, why: &str, orders: [Order; 2]) -> Result<()> {
        let mut tx = self.store.write().await?;
        tx.hold_task(self.task, self.fence).await?;
        tx.set_note(self.task, why).await?;
        tx.drop_ranges(self.task, Pass::Copy).await?;
        tx.drop_failures(self.task).await?;
        tx.set_outcome_len(self.task, 0).await?;
        tx.put_outcomes(self.task, 0, &[]).await?;
        tx.set_list_orders(self.task, orders[0], orders[1]).await?;
        tx.commit().await?;
        file.clear()
    }

    /// Answers the ranges that are done up to an end that is not stored yet.
    async fn commit(
        &self,
        file: &mut OutcomeFile,
        batch: Vec<Report>,
        dirty: &[Upload],
        dropped: &[Key],
    ) -> Result<Vec<Checkpoint>> {
        self.target.flush().await?;
        let mut lines = String::new();
        // Of several reports of one range only the last matters; its lines and failures all do.
        let mut last: HashMap<i64, Checkpoint> = HashMap::new();
        let (mut failed, mut waiting, mut restored) = (Vec::new(), Vec::new(), Vec::new());
        for report in batch {
            lines.push_str(&report.lines);
            failed.extend(report.failed);
            waiting.extend(report.waiting);
            restored.extend(report.restored);
            last.insert(report.checkpoint.id, report.checkpoint);
        }
        let len = file.append(&lines)?;
        let mut tx = self.store.work().await?;
        tx.hold_task(self.task, self.fence).await?;
        let mut early = Vec::new();
        for checkpoint in last.into_values() {
            if !tx.checkpoint(self.task, &checkpoint).await? {
                early.push(checkpoint);
            }
        }
        tx.put_failures(self.task, &failed).await?;
        tx.put_restores(self.task, &waiting).await?;
        tx.drop_restores(self.task, &restored).await?;
        // An upload that was forgotten and begun again since the last commit is known again.
        for key in dropped {
            tx.drop_upload(self.task, key).await?;
        }
        for upload in dirty {
            tx.put_upload(self.task, upload).await?;
        }
        if self.store.is_shared() && !lines.is_empty() {
            tx.put_outcomes(self.task, len - lines.len() as u64, lines.as_bytes()).await?;
        }
        tx.set_outcome_len(self.task, len).await?;
        tx.commit().await?;
        Ok(early)
    }
}
