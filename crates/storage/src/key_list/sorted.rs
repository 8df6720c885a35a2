//! A list file turned into a sorted key space on this machine's disk: read once as a stream, sorted in pieces of
//! bounded memory, merged, each key once. Afterwards it is paged through like a bucket.
//!
//! A record is `key length (u32 LE) · URL length (u32 LE) · key · URL`.

use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use model::error::{Error, Kind, Result};

use super::line::Line;

/// Bytes sorted in memory at once.
const PIECE_BYTES: usize = 24 << 20;
/// Every so many records one offset is kept in memory.
const STEP: usize = 256;

fn failed(path: &Path, e: std::io::Error) -> Error {
    Error::of_own_file("list_file", path, e)
}

fn put(out: &mut impl Write, line: &Line) -> std::io::Result<()> {
    let len = |n: usize| u32::try_from(n).map(u32::to_le_bytes).map_err(std::io::Error::other);
    out.write_all(&len(line.key.len())?)?;
    out.write_all(&len(line.url.len())?)?;
    out.write_all(&line.key)?;
    out.write_all(line.url.as_bytes())
}

/// The next record; none at the end.
fn read_line(from: &mut impl Read) -> std::io::Result<Option<Line>> {
    let mut head = [0; 8];
    match from.read_exact(&mut head) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let (key, url) = lengths(&head);
    let mut text = vec![0; key + url];
    from.read_exact(&mut text)?;
    let url = String::from_utf8(text.split_off(key)).map_err(std::io::Error::other)?;
    Ok(Some(Line { key: text, url }))
}

fn lengths(head: &[u8; 8]) -> (usize, usize) {
    let n = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]) as usize;
    (n(0), n(4))
}

/// Sorts lines as they come.
#[derive(Debug)]
pub(super) struct Sorter {
    path: PathBuf,
    piece: Vec<Line>,
    held: usize,
    pieces: Vec<PathBuf>,
}

impl Drop for Sorter {
    fn drop(&mut self) {
        for piece in &self.pieces {
            let _ = std::fs::remove_file(piece);
        }
    }
}

impl Sorter {
    /// The sorted file will be at `path`.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub(super) fn new(path: &Path) -> Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
        }
        Ok(Self { path: path.to_owned(), piece: Vec::new(), held: 0, pieces: Vec::new() })
    }

    /// Takes one line.
    ///
    /// # Errors
    /// [`Kind::NoSpace`] and its like, from the disk.
    pub(super) fn push(&mut self, line: Line) -> Result<()> {
        self.held += line.key.len() + line.url.len() + size_of::<Line>();
        self.piece.push(line);
        if self.held < PIECE_BYTES {
            return Ok(());
        }
        self.spill()
    }

    fn spill(&mut self) -> Result<()> {
        // The first line of a key wins, so the sort keeps the order of equals.
        self.piece.sort_by(|a, b| a.key.cmp(&b.key));
        self.piece.dedup_by(|b, a| a.key == b.key);
        let path = self.path.with_extension(format!("piece{}", self.pieces.len()));
        self.pieces.push(path.clone());
        let write = || {
            let mut out = BufWriter::new(File::create(&path)?);
            self.piece.iter().try_for_each(|line| put(&mut out, line))?;
            out.flush()
        };
        write().map_err(|e| failed(&path, e))?;
        self.piece = Vec::new();
        self.held = 0;
        Ok(())
    }

    /// Merges everything; the file appears under its name only when it is whole.
    ///
    /// # Errors
    /// [`Kind::ListEmpty`] when no line named anything; else from the disk.
    pub(super) fn finish(mut self) -> Result<Sorted> {
        if !self.piece.is_empty() {
            self.spill()?;
        }
        if self.pieces.is_empty() {
            return Err(Error::new(Kind::ListEmpty, "list_file", "the list file is empty"));
        }
        let temp = self.path.with_extension("merging");
        let merged = || -> std::io::Result<()> {
            let mut from = self
                .pieces
                .iter()
                .map(|p| Ok(BufReader::with_capacity(256 << 10, File::open(p)?)))
                .collect::<std::io::Result<Vec<_>>>()?;
            // The smallest key first, and of equal keys the earliest piece.
            let mut heap = BinaryHeap::new();
            for (i, reader) in from.iter_mut().enumerate() {
                if let Some(line) = read_line(reader)? {
                    heap.push(std::cmp::Reverse((line.key, i, line.url)));
                }
            }
            let mut out = BufWriter::with_capacity(1 << 20, File::create(&temp)?);
            let mut last: Option<Vec<u8>> = None;
            while let Some(std::cmp::Reverse((key, i, url))) = heap.pop() {
                if let Some(line) = read_line(&mut from[i])? {
                    heap.push(std::cmp::Reverse((line.key, i, line.url)));
                }
                if last.as_ref() != Some(&key) {
                    let line = Line { key, url };
                    put(&mut out, &line)?;
                    last = Some(line.key);
                }
            }
            out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            std::fs::rename(&temp, &self.path)
        };
        merged().map_err(|e| failed(&self.path, e))?;
        Sorted::open(&self.path)
    }
}

/// A sorted list that can be paged through.
#[derive(Debug)]
pub struct Sorted {
    file: File,
    path: PathBuf,
    /// Offset of every [`STEP`]-th record.
    steps: Vec<u64>,
    len: u64,
}

impl Sorted {
    /// Opens a finished list; none when there is none yet.
    ///
    /// # Errors
    /// From the disk.
    pub fn open_if_there(path: &Path) -> Result<Option<Self>> {
        if path.exists() { Self::open(path).map(Some) } else { Ok(None) }
    }

    fn open(path: &Path) -> Result<Self> {
        let read = || -> std::io::Result<Self> {
            let file = File::open(path)?;
            let mut reader = BufReader::with_capacity(1 << 20, &file);
            let (mut steps, mut at, mut n) = (Vec::new(), 0u64, 0usize);
            while let Some(line) = read_line(&mut reader)? {
                if n.is_multiple_of(STEP) {
                    steps.push(at);
                }
                n += 1;
                at += 8 + line.key.len() as u64 + line.url.len() as u64;
            }
            Ok(Self { file, path: path.to_owned(), steps, len: at })
        };
        read().map_err(|e| failed(path, e))
    }

    fn key_at(&self, at: u64) -> std::io::Result<Vec<u8>> {
        let mut head = [0; 8];
        self.file.read_exact_at(&mut head, at)?;
        let mut key = vec![0; lengths(&head).0];
        self.file.read_exact_at(&mut key, at + 8)?;
        Ok(key)
    }

    /// Up to `max` lines whose keys sort after `after`, not before `from`, and begin with `prefix`.
    ///
    /// # Errors
    /// From the disk.
    pub fn after(&self, after: &[u8], prefix: &[u8], max: usize) -> Result<Vec<Line>> {
        self.lines(after.max(prefix), after, prefix, max).map_err(|e| failed(&self.path, e))
    }

    /// The line of a key.
    ///
    /// # Errors
    /// From the disk.
    pub fn find(&self, key: &[u8]) -> Result<Option<Line>> {
        let found = self.lines(key, b"", key, 1).map_err(|e| failed(&self.path, e))?;
        Ok(found.into_iter().next().filter(|line| line.key == key))
    }

    fn lines(&self, from: &[u8], after: &[u8], prefix: &[u8], max: usize) -> std::io::Result<Vec<Line>> {
        // The last step whose key is not behind `from`.
        let (mut lo, mut hi) = (0, self.steps.len());
        while lo + 1 < hi {
            let mid = lo.midpoint(hi);
            if self.key_at(self.steps[mid])?.as_slice() <= from { lo = mid } else { hi = mid }
        }
        let mut at = self.steps.get(lo).copied().unwrap_or(0);
        let mut found = Vec::new();
        let mut reader =
            BufReader::with_capacity(64 << 10, Section { file: &self.file, at: &mut at, len: self.len });
        while found.len() < max {
            let Some(line) = read_line(&mut reader)? else { break };
            if line.key.as_slice() < from || (!after.is_empty() && line.key.as_slice() <= after) {
                continue;
            }
            if !line.key.starts_with(prefix) {
                break;
            }
            found.push(line);
        }
        Ok(found)
    }
}

/// Reads a shared file from an offset on.
struct Section<'a> {
    file: &'a File,
    at: &'a mut u64,
    len: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.len - (*self.at).min(self.len)).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let n = self.file.read_at(&mut buffer[..want], *self.at)?;
        *self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsorted_list_is_sorted_without_duplicates_in_pages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.list");
        let mut sorter = Sorter::new(&path).unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        let mut wanted = std::collections::BTreeMap::new();
        // Enough for several pieces.
        for i in 0..300_000u32 {
            let key = format!("{:05}/{}", random.u32(0..90_000), "x".repeat(60));
            let url = format!("http://h/{i}");
            wanted.entry(key.clone().into_bytes()).or_insert(url.clone());
            sorter.push(Line { key: key.into_bytes(), url }).unwrap();
        }
        assert!(!sorter.pieces.is_empty() && !sorter.piece.is_empty(), "more than one piece");
        let sorted = sorter.finish().unwrap();
        let (mut met, mut after) = (Vec::new(), Vec::new());
        loop {
            let page = sorted.after(&after, b"", 999).unwrap();
            let Some(last) = page.last() else { break };
            after = last.key.clone();
            met.extend(page);
        }
        assert!(met.iter().map(|l| (&l.key, &l.url)).eq(wanted.iter()), "{} of {}", met.len(), wanted.len());
        assert_eq!(
            sorted.after(b"", b"00007/", 10).unwrap().len(),
            usize::from(wanted.keys().any(|k| k.starts_with(b"00007/")))
        );
        let some = wanted.iter().nth(4711).unwrap();
        assert_eq!(sorted.find(some.0).unwrap().unwrap().url, *some.1);
        assert!(sorted.find(b"nothing").unwrap().is_none());
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["1.list"], "no pieces are left");
    }
}
