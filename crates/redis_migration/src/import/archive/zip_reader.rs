//! A zip by its directory, entry after entry, in bounded memory: an archive may claim any number of entries.

use std::fs::File;
use std::io::{BufReader, Error, ErrorKind, Read, Result, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

/// The end record and the longest comment behind it, bytes.
const END_MAX: u64 = 22 + 0xffff;
/// A number of four bytes that stands in an extra field instead.
const IN_ZIP64: u64 = 0xffff_ffff;

/// What the directory says of a file.
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) is_file: bool,
    is_encrypted: bool,
    method: u64,
    sum: u64,
    compressed_size: u64,
    size: u64,
    at: u64,
}

/// Reads the directory of a zip.
pub(super) struct ZipReader {
    path: PathBuf,
    directory: Take<BufReader<File>>,
    /// Entries that were not read yet.
    remaining: u64,
}

/// A number of `n` bytes, the least first.
fn number(bytes: &[u8], at: usize, n: usize) -> u64 {
    bytes[at..at + n].iter().rev().fold(0, |all, b| (all << 8) | u64::from(*b))
}

fn wrong<T>(what: &str) -> Result<T> {
    Err(Error::other(what))
}

impl ZipReader {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let len = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(len.saturating_sub(END_MAX)))?;
        let mut tail = Vec::new();
        file.by_ref().take(END_MAX).read_to_end(&mut tail)?;
        let is_end = |at: &usize| {
            let record = &tail[*at..];
            record.len() >= 22
                && record.starts_with(b"PK\x05\x06")
                && 22 + number(record, 20, 2) <= record.len() as u64
        };
        let Some(end) = (0..tail.len()).rev().find(is_end) else {
            return wrong(
                "the ZIP central directory is \
             missing",
            );
        };
        let (mut remaining, mut size, mut from) =
            (number(&tail, end + 10, 2), number(&tail, end + 12, 4), number(&tail, end + 16, 4));
        let is_large = remaining == 0xffff || size == IN_ZIP64 || from == IN_ZIP64;
        if is_large && end >= 20 && tail[end - 20..].starts_with(b"PK\x06\x07") {
            file.seek(SeekFrom::Start(number(&tail, end - 12, 8)))?;
            let mut record = [0; 56];
            file.read_exact(&mut record)?;
            if !record.starts_with(b"PK\x06\x06") {
                return wrong("the offset of the ZIP central directory is wrong");
            }
            (remaining, size, from) =
                (number(&record, 32, 8), number(&record, 40, 8), number(&record, 48, 8));
        }
        file.seek(SeekFrom::Start(from))?;
        Ok(Self { path: path.to_owned(), directory: BufReader::new(file).take(size), remaining })
    }

    /// The next entry of the directory.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.remaining == 0 {
            return Ok(None);
        }
        self.remaining -= 1;
        let mut head = [0; 46];
        self.directory.read_exact(&mut head)?;
        if !head.starts_with(b"PK\x01\x02") {
            return wrong("invalid entry in the ZIP central directory");
        }
        let name = self.bytes(number(&head, 28, 2))?;
        let extra = self.bytes(number(&head, 30, 2))?;
        self.bytes(number(&head, 32, 2))?;
        let mut wide = field(&extra, 1);
        let mut length = |at: usize| match number(&head, at, 4) {
            IN_ZIP64 => {
                let Some((first, rest)) = wide.split_at_checked(8) else {
                    return wrong("a ZIP64 length is missing");
                };
                wide = rest;
                Ok(number(first, 0, 8))
            }
            short => Ok(short),
        };
        // They stand in this order in the extra field.
        let (size, compressed_size, at) = (length(24)?, length(20)?, length(42)?);
        let is_link = head[5] == 3 && (number(&head, 38, 4) >> 16) & 0o170_000 == 0o120_000;
        Ok(Some(Entry {
            is_file: !name.ends_with(b"/") && !is_link,
            name,
            is_encrypted: number(&head, 8, 2) & 1 == 1,
            method: number(&head, 10, 2),
            sum: number(&head, 16, 4),
            compressed_size,
            size,
            at,
        }))
    }

    fn bytes(&mut self, n: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.directory.by_ref().take(n).read_to_end(&mut out)?;
        if (out.len() as u64) < n {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(out)
    }

    /// The bytes of a file; an error at their end when they are not those that the directory speaks of.
    pub(super) fn content(&self, entry: &Entry) -> Result<Content> {
        if entry.is_encrypted {
            return wrong("encrypted files are not supported");
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(entry.at))?;
        let mut head = [0; 30];
        file.read_exact(&mut head)?;
        if !head.starts_with(b"PK\x03\x04") {
            return wrong("the offset of a file in the ZIP archive is wrong");
        }
        let begin = entry.at.saturating_add(30 + number(&head, 26, 2) + number(&head, 28, 2));
        file.seek(SeekFrom::Start(begin))?;
        let compressed_size = BufReader::new(file).take(entry.compressed_size);
        let from: Box<dyn Read> = match entry.method {
            0 => Box::new(compressed_size),
            8 => Box::new(DeflateDecoder::new(compressed_size)),
            _ => return wrong("unsupported compression method (only deflate is supported)"),
        };
        Ok(Content { from, crc: Crc::new(), read: 0, size: entry.size, sum: entry.sum })
    }
}

/// An extra field; empty when it is not there.
fn field(mut extra: &[u8], id: u64) -> &[u8] {
    while extra.len() >= 4 {
        let len = usize::try_from(number(extra, 2, 2)).unwrap_or(0);
        let Some((first, rest)) = extra.split_at_checked(4 + len) else { break };
        if number(first, 0, 2) == id {
            return &first[4..];
        }
        extra = rest;
    }
    &[]
}

/// The bytes of a file of a zip.
pub(super) struct Content {
    from: Box<dyn Read>,
    crc: Crc,
    read: u64,
    size: u64,
    sum: u64,
}

impl Read for Content {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = self.from.read(buf)?;
        self.crc.update(&buf[..n]);
        self.read += n as u64;
        if n == 0 && !buf.is_empty() && (self.read, u64::from(self.crc.sum())) != (self.size, self.sum) {
            return wrong("a local file header does not match the ZIP central directory");
        }
        Ok(n)
    }
}
