//! The outcome file: one line per settled object, appended before its checkpoint counts.
//!
//! `mark TAB url-encoded key TAB size TAB modified-ms TAB method TAB result`, where the mark is `C` copied,
//! `S` skipped, `F` failed, `G` gone, `D` deleted; `L` stands where earlier lines were lost. Lines beyond the length in the ledger do not count and are
//! cut off on resume.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::count::{Counters, Proof, Tally};
use model::error::{Error, Result};
use model::key::Key;
use model::task::TaskId;
use store::Store;

/// How an object ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Transferred, with the proof that was used.
    Copied(Proof),
    /// Left alone.
    Skipped(&'static str),
    /// Given up.
    Failed(Error),
    /// No longer at the source.
    Gone,
    /// Removed from the target, because the source does not have it.
    Deleted,
    /// Archived, and asked to be restored: it is settled later, and counts for nothing until then.
    Waiting,
}

impl Outcome {
    /// Counts an object of `size` bytes that ended so.
    pub(crate) fn count(&self, counters: &mut Counters, size: u64) {
        match self {
            Outcome::Copied(proof) => counters.copied_one(size, *proof),
            Outcome::Skipped(_) => counters.skipped += Tally::one(size),
            Outcome::Failed(_) => counters.failed += Tally::one(size),
            Outcome::Gone => counters.gone += Tally::one(size),
            Outcome::Deleted => counters.deleted += Tally::one(size),
            Outcome::Waiting => {}
        }
    }
}

/// Appends one line to `out`.
pub fn append_line(out: &mut String, outcome: &Outcome, key: &Key, size: u64, modified_ms: i64) {
    let mark = match outcome {
        Outcome::Waiting => return,
        Outcome::Copied(_) => 'C',
        Outcome::Skipped(_) => 'S',
        Outcome::Failed(_) => 'F',
        Outcome::Gone => 'G',
        Outcome::Deleted => 'D',
    };
    out.push(mark);
    out.push('\t');
    storage::s3::sign::encode(out, key.as_bytes(), true);
    let _ = write!(out, "\t{size}\t{modified_ms}\t");
    match outcome {
        Outcome::Copied(proof) => out.push_str(match proof {
            Proof::Digest => "digest\tequal",
            Proof::Etag => "etag\tequal",
            Proof::Crc64 => "crc64\tequal",
            Proof::Size => "size\tequal",
        }),
        Outcome::Skipped(why) => {
            out.push_str("compare\t");
            out.push_str(why);
        }
        Outcome::Failed(failure) => {
            out.push_str(failure.op);
            out.push('\t');
            out.extend(
                failure.to_string().chars().map(|c| if matches!(c, '\t' | '\r' | '\n') { ' ' } else { c }),
            );
        }
        Outcome::Gone => out.push_str("read\tgone"),
        Outcome::Deleted => out.push_str("delete\tdeleted"),
        Outcome::Waiting => {}
    }
    out.push('\n');
}

/// An outcome file opened for appending.
#[derive(Debug)]
pub struct OutcomeFile {
    file: File,
    path: PathBuf,
    len: u64,
    lost: u64,
}

impl OutcomeFile {
    /// Opens or makes the file and cuts it to the length that the ledger knows.
    ///
    /// # Errors
    /// As [`Error::of_own_file`].
    pub fn open(path: &Path, len: u64) -> Result<Self> {
        let at = |e| failed(path, e);
        if let Some(dir) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = options.open(path).map_err(at)?;
        let have = file.metadata().map_err(at)?.len();
        // A shorter file than the ledger knows has lost lines, and says so itself from there on.
        let kept = if have < len { whole_lines(&file, have).map_err(at)? } else { len };
        file.set_len(kept).map_err(at)?;
        let lost = len.saturating_sub(kept);
        let mut opened = Self { file, path: path.to_owned(), len: kept, lost };
        if lost > 0 {
            opened.append(&lost_line(lost))?;
        }
        Ok(opened)
    }

    /// Bytes that the ledger knows of and that were not there any more.
    pub fn lost_bytes(&self) -> u64 {
        self.lost
    }

    /// Length that belongs to the ledger, bytes.
    #[expect(clippy::len_without_is_empty, reason = "a position, not a collection")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Forgets all lines.
    ///
    /// # Errors
    /// As [`OutcomeFile::open`].
    pub fn clear(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(|e| failed(&self.path, e))?;
        self.len = 0;
        Ok(())
    }

    /// Appends lines and makes them durable; answers the new length.
    ///
    /// # Errors
    /// As [`OutcomeFile::open`].
    pub fn append(&mut self, lines: &str) -> Result<u64> {
        self.append_bytes(lines.as_bytes())
    }

    fn append_bytes(&mut self, lines: &[u8]) -> Result<u64> {
        if !lines.is_empty() {
            let mut write = || {
                self.file.seek(SeekFrom::Start(self.len))?;
                self.file.write_all(lines)?;
                self.file.sync_data()
            };
            write().map_err(|e| failed(&self.path, e))?;
            self.len += lines.len() as u64;
        }
        Ok(self.len)
    }
}

/// Writes the outcomes of a task that stand in the database to a file, up to the `len` bytes that the ledger knows of.
///
/// # Errors
/// When the database fails, or as [`OutcomeFile::open`].
pub async fn fetch(store: &Store, task: TaskId, path: &Path, len: u64) -> Result<()> {
    let mut file = OutcomeFile::open(path, 0)?;
    while file.len < len {
        let chunks = store.read().await?.outcomes(task, file.len).await?;
        let before = file.len;
        for (at, lines) in chunks {
            // A gap is found by the length of the file, and said like a lost end.
            if at == file.len && at + lines.len() as u64 <= len {
                file.append_bytes(&lines)?;
            }
        }
        if file.len == before {
            break;
        }
    }
    Ok(())
}

/// The line that stands where earlier lines were lost.
fn lost_line(lost: u64) -> String {
    format!("L\t\t{lost}\t0\toutcome\t{lost} bytes of earlier outcomes were lost\n")
}

/// The end of the last whole line within the first `have` bytes.
fn whole_lines(file: &File, have: u64) -> std::io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut end = have;
    let mut chunk = vec![0; 64 << 10];
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let part = &mut chunk[..usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The lines that belong to the ledger: the first `len` bytes of an outcome file. Where the file is missing or shorter, the
/// whole lines that are there, and one line with the mark `L` that says how many bytes were lost.
///
/// # Errors
/// As [`Error::of_own_file`], when the file cannot be read.
pub fn lines(path: &Path, len: u64) -> Result<Box<dyn BufRead + Send>> {
    let at = |e| failed(path, e);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && len == 0 => {
            return Ok(Box::new(std::io::empty()));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Box::new(std::io::Cursor::new(lost_line(len))));
        }
        Err(e) => return Err(at(e)),
    };
    let have = file.metadata().map_err(at)?.len();
    if have >= len {
        return Ok(Box::new(BufReader::new(file.take(len))));
    }
    let kept = whole_lines(&file, have).map_err(at)?;
    let lost = std::io::Cursor::new(lost_line(len - kept));
    Ok(Box::new(BufReader::new(file.take(kept)).chain(lost)))
}

fn failed(path: &Path, e: std::io::Error) -> Error {
    Error::of_own_file("outcome", path, e)
}

/// Where the outcome file of a task lives under the data directory.
pub fn path_in(data_dir: &Path, task: i64) -> PathBuf {
    data_dir.join("outcomes").join(format!("{task}.tsv"))
}

#[cfg(test)]
mod tests {
    use model::error::Kind;

    use super::*;

    #[test]
    fn f14_lost_outcomes_are_noted_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("o.tsv");
        let mut file = OutcomeFile::open(&path, 0).unwrap();
        let len = file.append("C\ta\t1\t0\tetag\tequal\nC\tb\t1\t0\tetag\tequal\n").unwrap();
        drop(file);
        File::options().write(true).open(&path).unwrap().set_len(len - 5).unwrap();
        let read = |len| {
            let mut text = String::new();
            lines(&path, len).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        let text = read(len);
        assert!(text.starts_with("C\ta\t") && text.lines().count() == 2 && text.contains("\nL\t"), "{text}");
        assert_eq!(read(len / 2).lines().count(), 1, "what the ledger does not know does not count");
        let file = OutcomeFile::open(&path, len).unwrap();
        assert!(file.lost_bytes() > 0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("C\ta\t") && text.lines().count() == 2 && text.contains("\nL\t"), "{text}");
        drop(file);
        std::fs::remove_file(&path).unwrap();
        assert!(read(len).starts_with("L\t\t") && read(0).is_empty());
        let file = OutcomeFile::open(&path, len).unwrap();
        assert_eq!((file.lost_bytes(), std::fs::read_to_string(&path).unwrap().lines().count()), (len, 1));
    }

    #[test]
    fn sec_f33_outcome_files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outcomes").join("1.tsv");
        drop(OutcomeFile::open(&path, 0).unwrap());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
    }

    #[test]
    fn outcome_stays_one_line_for_any_key() {
        let mut out = String::new();
        let failure = Error::new(Kind::Forbidden, "read", "no\tway\n");
        append_line(&mut out, &Outcome::Failed(failure), &Key::from("a\tb\nü/x"), 5, 7);
        assert_eq!(out.lines().count(), 1);
        assert!(out.starts_with("F\ta%09b%0A%C3%BC/x\t5\t7\tread\t"));
    }
}
