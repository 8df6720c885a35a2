//! Record files in the destination bucket: success, skip and failed lists (OMS §4.7), made from the outcome
//! file and the failure rows once a task has ended.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use model::error::{Error, Kind, Result, Side};
use model::key::Key;
use model::parent::Parent;
use model::spec::ReportForm;
use model::task::TaskId;
use storage::{Body, Meta, SharedStore};
use store::{FailedObject, Store};

use crate::ledger::outcome;

use crate::report::table;

/// True for a record file of a task at a target (OMS §4.7).
pub fn is_record(key: &[u8]) -> bool {
    ["oms/task/", "oms/task_group/", "oms/sync_task/"].iter().any(|f| key.starts_with(f.as_bytes()))
}

/// The largest record file, bytes; longer lists go on in a further file.
const FILE_MAX: u64 = 4 << 30;
/// Lines of a failed list (OMS §4.7).
const FAILED_MAX: u64 = 100_000;

/// The per-object failure code of the failed list (OMS §4.7). Kind and side decide; the operation only separates
/// requests for metadata from requests for data.
pub fn failure_code(failure: &Error) -> &'static str {
    match (failure.kind, failure.side, failure.op) {
        (_, _, "restore") => "RESTORE_SRC_OBJ_FAILURE",
        (Kind::Archived, ..) => "MIGRATE_SRC_ARCHIVE_OBJ_FAILURE",
        (Kind::TooLarge, ..) => "OBJ_SIZE_EXCEEDED",
        (Kind::Mismatch, Side::Target, _) => "CHECK_OBJ_CONSISTENCY_FAILURE",
        (Kind::InvalidKey, Side::Target, _) => "OBJ_KEY_TOO_LONG",
        (_, Side::Source, "head" | "list" | "tags") => "GET_SRC_OBJ_META_FAILURE",
        (_, Side::Source, _) => "GET_SRC_OBJ_FAILURE",
        (_, Side::Target, "head" | "list") => "GET_DST_OBJ_META_FAILURE",
        _ => "UPLOAD_DST_OBJ_FAILURE",
    }
}

/// `yyyyMMddHHmmssSSS` of an instant, UTC.
pub fn stamp(ms: i64) -> String {
    let t = model::instant::utc(ms);
    let (date, clock) = (t.date(), t.time());
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}{:03}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        ms.rem_euclid(1000)
    )
}

/// What became of the record files of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Records {
    /// Key of the failed list.
    pub failed_key: Option<String>,
    /// The failed list holds every failed object.
    pub failed_complete: Option<bool>,
    /// Code of why the failed list could not be stored.
    pub failed_error: Option<String>,
    /// Code of why the success list could not be stored.
    pub success_error: Option<String>,
    /// Code of why the skip list could not be stored.
    pub skip_error: Option<String>,
}

/// What is to be written, and where.
#[derive(Debug)]
pub struct Plan {
    /// Task.
    pub task: TaskId,
    /// Name of the task, part of every key.
    pub name: String,
    /// What the task belongs to, part of every key.
    pub member: Parent,
    /// The outcome file.
    pub outcome: PathBuf,
    /// How much of it belongs to the ledger, bytes.
    pub outcome_len: u64,
    /// Write success and skip lists.
    pub outcomes: bool,
    /// Write the failed list.
    pub failures: bool,
    /// Per-object reports to write in addition to the lists.
    pub reports: Vec<ReportForm>,
    /// Objects failed in all.
    pub failed: u64,
    /// Now, milliseconds: part of every key.
    pub now: i64,
}

fn text_meta() -> Meta {
    let value = (HeaderName::from_static("content-type"), HeaderValue::from_static("text/plain"));
    Meta { headers: vec![value], ..Meta::default() }
}

fn key(plan: &Plan, kind: &str, stamp: &str, suffix: &str) -> Key {
    let (before, after) = plan.member.record_paths(&plan.name);
    Key::from(format!("{before}{kind}_object_lists/{after}{stamp}{suffix}.{kind}_list.txt"))
}

/// Writes all lists that are asked for and not empty. Trouble is reported in the answer, never as a failure of
/// the task.
pub async fn write(plan: &Plan, store: &Store, target: &SharedStore) -> Records {
    let mut records = Records::default();
    let stamp = stamp(plan.now);
    if plan.outcomes {
        for (mark, kind) in [('C', "success"), ('S', "skip")] {
            let error = match one_list(plan, target, mark, kind, &stamp).await {
                Ok(true) => None,
                Ok(false) => {
                    tracing::warn!(task = plan.task, "the {kind} list is incomplete: outcomes were lost");
                    Some("OMS.0308".to_owned())
                }
                Err(f) => {
                    tracing::warn!(task = plan.task, "cannot write the {kind} list: {f}");
                    Some("OMS.0304".to_owned())
                }
            };
            match mark {
                'C' => records.success_error = error,
                _ => records.skip_error = error,
            }
        }
    }
    for form in &plan.reports {
        if let Err(f) = report_file(plan, target, *form, &stamp).await {
            tracing::warn!(task = plan.task, "cannot write the report: {f}");
        }
    }
    if plan.failures && plan.failed > 0 {
        match failed_list(plan, store, target, &stamp).await {
            Ok((key, complete)) => {
                records.failed_key = Some(key.to_text().into_owned());
                records.failed_complete = Some(complete);
                records.failed_error = (!complete).then(|| "OMS.0305".to_owned());
            }
            Err(f) => {
                tracing::warn!(task = plan.task, "cannot write the list of failed objects: {f}");
                records.failed_complete = Some(false);
                records.failed_error = Some("OMS.0304".to_owned());
            }
        }
    }
    records
}

/// The whole outcome file in another form, as one object.
async fn report_file(plan: &Plan, target: &SharedStore, form: ReportForm, stamp: &str) -> Result<()> {
    let (from, temp) = (plan.outcome.clone(), plan.outcome.with_extension(table::extension(form)));
    let (len, to, kind) = (plan.outcome_len, temp.clone(), table::content_type(form));
    #[expect(clippy::disallowed_methods, reason = "one at a time per ended task")]
    let made = tokio::task::spawn_blocking(move || table::write(&from, len, &to, form)).await;
    made.map_err(|e| Error::new(Kind::Internal, "report", e.to_string()))??;
    let here = |e: std::io::Error| Error::new(Kind::Internal, "report", e.to_string());
    let size = std::fs::metadata(&temp).map_err(here)?.len();
    let value = (HeaderName::from_static("content-type"), HeaderValue::from_static(kind));
    let meta = Meta { headers: vec![value], size, ..Meta::default() };
    let (before, after) = plan.member.record_paths(&plan.name);
    let key = Key::from(format!("{before}reports/{after}{stamp}.{}", table::extension(form)));
    let written = target.write(&key, &meta, file_body(&temp, 0, size).map_err(here)?).await;
    let _ = std::fs::remove_file(&temp);
    written.map(drop)
}

/// Writes one list; false when it is incomplete, because outcomes were lost.
async fn one_list(plan: &Plan, target: &SharedStore, mark: char, kind: &str, stamp: &str) -> Result<bool> {
    let here = |e: std::io::Error| Error::new(Kind::Internal, "records", e.to_string());
    let temp = plan.outcome.with_extension(kind);
    let (from, len, to) = (plan.outcome.clone(), plan.outcome_len, temp.clone());
    #[expect(clippy::disallowed_methods, reason = "one at a time per ended task")]
    let filtered =
        tokio::task::spawn_blocking(move || filter(outcome::lines(&from, len)?, &to, mark).map_err(here));
    let filtered = filtered.await.map_err(|e| Error::new(Kind::Internal, "records", e.to_string()))?;
    let (sizes, complete) = filtered?;
    let mut at = 0;
    for (i, size) in sizes.into_iter().enumerate() {
        let suffix = if i == 0 { String::new() } else { format!("_{}", i + 1) };
        let body = file_body(&temp, at, size).map_err(here)?;
        target.write(&key(plan, kind, stamp, &suffix), &text_meta(), body).await?;
        at += size;
    }
    let _ = std::fs::remove_file(&temp);
    Ok(complete)
}

/// Copies the lines with a mark, without it; answers the sizes of the pieces, none above [`FILE_MAX`], and whether no line was
/// lost.
fn filter(mut reader: impl BufRead, to: &Path, mark: char) -> std::io::Result<(Vec<u64>, bool)> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(to)?);
    let (mut pieces, mut complete) = (Vec::new(), true);
    let mut size = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        complete &= line.first() != Some(&b'L');
        if line.first() == Some(&(mark as u8)) && line.len() > 2 {
            let text = &line[2..];
            if size + text.len() as u64 > FILE_MAX {
                pieces.push(size);
                size = 0;
            }
            out.write_all(text)?;
            size += text.len() as u64;
        }
    }
    out.flush()?;
    if size > 0 {
        pieces.push(size);
    }
    Ok((pieces, complete))
}

fn file_body(path: &Path, from: u64, len: u64) -> std::io::Result<Body> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let (tx, rx) = tokio::sync::mpsc::channel(2);
    #[expect(clippy::disallowed_methods, reason = "one at a time per ended task")]
    tokio::task::spawn_blocking(move || {
        let mut left = len;
        while left > 0 {
            let mut chunk = vec![0; usize::try_from(left.min(256 << 10)).unwrap_or(0)];
            let read = file.read(&mut chunk);
            let chunk = match read {
                Ok(n) if n > 0 => {
                    chunk.truncate(n);
                    left -= n as u64;
                    Ok(Bytes::from(chunk))
                }
                _ => Err(Error::new(Kind::Internal, "records", "the list file is truncated")),
            };
            let end = chunk.is_err();
            if tx.blocking_send(chunk).is_err() || end {
                return;
            }
        }
    });
    Ok(Body::channel(rx, len))
}

async fn failed_list(plan: &Plan, store: &Store, target: &SharedStore, stamp: &str) -> Result<(Key, bool)> {
    let mut text = String::new();
    let mut after = Key::default();
    let mut lines = 0;
    loop {
        let page = store.read().await?.failures(plan.task, &after, 1000).await?;
        let Some(last) = page.last() else { break };
        after = last.key.clone();
        for failed in &page {
            failed_line(&mut text, failed);
            lines += 1;
        }
    }
    let key = key(plan, "failed", stamp, "");
    target.write(&key, &text_meta(), Body::bytes(text)).await?;
    Ok((key, lines >= plan.failed.min(FAILED_MAX) && plan.failed <= FAILED_MAX))
}

/// `code TAB time TAB url-encoded key TAB key TAB description`.
fn failed_line(out: &mut String, failed: &FailedObject) {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if matches!(c, '\t' | '\r' | '\n') { ' ' } else { c }).collect()
    };
    let t = model::instant::utc(failed.at);
    out.push_str(failure_code(&failed.failure));
    out.push_str(&format!(
        "\t{:04}-{:02}-{:02} {:02}:{:02}:{:02}\t",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    ));
    storage::s3::sign::encode(out, failed.key.as_bytes(), true);
    out.push('\t');
    out.push_str(&plain(&failed.key.to_text()));
    out.push('\t');
    out.push_str(&plain(&failed.failure.to_string()));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_codes_follow_kind_side_and_step() {
        let code = |kind, side, op| failure_code(&Error::new(kind, op, "").at(side));
        for (kind, side, op, expected) in [
            (Kind::Mismatch, Side::Target, "verify", "CHECK_OBJ_CONSISTENCY_FAILURE"),
            (Kind::Mismatch, Side::Target, "write", "CHECK_OBJ_CONSISTENCY_FAILURE"),
            (Kind::Mismatch, Side::Target, "write_part", "CHECK_OBJ_CONSISTENCY_FAILURE"),
            (Kind::Mismatch, Side::Source, "read", "GET_SRC_OBJ_FAILURE"),
            (Kind::Corrupt, Side::Target, "write_part", "UPLOAD_DST_OBJ_FAILURE"),
            (Kind::Forbidden, Side::Target, "write", "UPLOAD_DST_OBJ_FAILURE"),
            (Kind::Unavailable, Side::Target, "head", "GET_DST_OBJ_META_FAILURE"),
            (Kind::InvalidKey, Side::Target, "write", "OBJ_KEY_TOO_LONG"),
            (Kind::TooLarge, Side::Target, "write", "OBJ_SIZE_EXCEEDED"),
            (Kind::Archived, Side::Source, "read", "MIGRATE_SRC_ARCHIVE_OBJ_FAILURE"),
            (Kind::Forbidden, Side::Source, "restore", "RESTORE_SRC_OBJ_FAILURE"),
            (Kind::Forbidden, Side::Source, "tags", "GET_SRC_OBJ_META_FAILURE"),
            (Kind::Forbidden, Side::Source, "read", "GET_SRC_OBJ_FAILURE"),
        ] {
            assert_eq!(code(kind, side, op), expected, "{kind:?} {side:?} {op}");
        }
    }

    #[test]
    fn failed_list_has_five_columns_on_one_line() {
        let failure = Error::new(Kind::Forbidden, "read", "a\tb\nc").at(Side::Source);
        let mut out = String::new();
        failed_line(&mut out, &FailedObject { key: Key::from("k\te y"), size: 1, failure, at: 0 });
        assert_eq!(out.lines().count(), 1);
        let columns: Vec<&str> = out.trim_end().split('\t').collect();
        assert_eq!(columns.len(), 5);
        assert_eq!(&columns[..4], ["GET_SRC_OBJ_FAILURE", "1970-01-01 00:00:00", "k%09e%20y", "k e y"]);
    }

    #[test]
    fn f14_failed_list_reports_missing_or_truncated_outcomes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("o.tsv"), dir.path().join("list"));
        let text = "C\ta\t1\t0\tetag\tequal\nS\tb\t1\t0\tcompare\texists\nC\tc\t1\t0\tetag\tequal\n";
        std::fs::write(&from, text).unwrap();
        let len = text.len() as u64;
        let listed = |len| {
            let (sizes, complete) = filter(outcome::lines(&from, len).unwrap(), &to, 'C').unwrap();
            (sizes.len(), complete, std::fs::read_to_string(&to).unwrap().lines().count())
        };
        assert_eq!(listed(len), (1, true, 2));
        std::fs::write(&from, &text[..text.len() - 3]).unwrap();
        assert_eq!(listed(len), (1, false, 1));
        // What was appended behind the last commit is none of it.
        std::fs::write(&from, format!("{text}C\td\t1\t0\tetag\tequal\n")).unwrap();
        assert_eq!(listed(len), (1, true, 2));
        std::fs::remove_file(&from).unwrap();
        assert_eq!(listed(len), (0, false, 0));
        assert_eq!(listed(0), (0, true, 0));
    }

    #[test]
    fn timestamps_have_milliseconds() {
        assert_eq!(stamp(1_768_465_800_123), "20260115083000123");
    }
}
