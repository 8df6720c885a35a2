//! The outcome file: one line per settled object, appended before its checkpoint counts.
//!
//! `mark TAB url-encoded key TAB size TAB modified-ms TAB method TAB result`, where the mark is `C` copied,
//! `S` skipped, `F` failed, `G` gone, `D` deleted. Lines beyond the length in the ledger do not count and are
//! cut off on resume.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use model::count::Proof;
use model::failure::{Failure, Kind, Result};
use model::key::Key;

/// How an object ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Transferred, with the proof that was used.
    Copied(Proof),
    /// Left alone.
    Skipped(&'static str),
    /// Given up.
    Failed(Failure),
    /// No longer at the source.
    Gone,
    /// Removed from the target, because the source does not have it.
    Deleted,
    /// Archived, and asked to be restored: it is settled later, and counts for nothing until then.
    Waiting,
}

/// Appends one line to `out`.
pub fn line(out: &mut String, outcome: &Outcome, key: &Key, size: u64, modified_ms: i64) {
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
}

impl OutcomeFile {
    /// Opens or makes the file and cuts it to the length that the ledger knows.
    ///
    /// # Errors
    /// [`Kind::NoSpace`], [`Kind::ReadOnly`] or [`Kind::Internal`] with the path.
    pub fn open(path: &Path, len: u64) -> Result<Self> {
        let at = |e| failed(path, &e);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(at)?;
        }
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(at)?;
        let have = file.metadata().map_err(at)?.len();
        // A shorter file than the ledger knows has lost lines with the machine's power; it goes on from there.
        let len = len.min(have);
        file.set_len(len).map_err(at)?;
        Ok(Self { file, path: path.to_owned(), len })
    }

    /// Appends lines and makes them durable; answers the new length.
    ///
    /// # Errors
    /// As [`OutcomeFile::open`].
    pub fn append(&mut self, lines: &str) -> Result<u64> {
        if !lines.is_empty() {
            let mut write = || {
                self.file.seek(SeekFrom::Start(self.len))?;
                self.file.write_all(lines.as_bytes())?;
                self.file.sync_data()
            };
            write().map_err(|e| failed(&self.path, &e))?;
            self.len += lines.len() as u64;
        }
        Ok(self.len)
    }
}

fn failed(path: &Path, e: &std::io::Error) -> Failure {
    let kind = match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::NoSpace,
        std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => Kind::ReadOnly,
        _ => Kind::Internal,
    };
    Failure::new(kind, "outcome", format!("{}: {e}", path.display()))
}

/// Where the outcome file of a task lives under the data directory.
pub fn path_in(data_dir: &Path, task: i64) -> PathBuf {
    data_dir.join("outcomes").join(format!("{task}.tsv"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_whatever_the_key_holds() {
        let mut out = String::new();
        let failure = Failure::new(Kind::Forbidden, "read", "no\tway\n");
        line(&mut out, &Outcome::Failed(failure), &Key::from("a\tb\nü/x"), 5, 7);
        assert_eq!(out.lines().count(), 1);
        assert!(out.starts_with("F\ta%09b%0A%C3%BC/x\t5\t7\tread\t"));
    }
}
