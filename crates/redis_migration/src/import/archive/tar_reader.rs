//! A tar, entry after entry, in bounded memory: an archive may claim any length for a name or for attributes, so those are
//! read up to a bound only.

use std::ffi::OsStr;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use tar::{GnuHeader, Header};

/// Bytes of a tar block.
const BLOCK: usize = 512;
/// Longest extension header, bytes.
const EXTENSION_MAX: u64 = 1 << 20;
/// Where the header of a sparse file, and each block that continues it, say that another block follows.
const SPARSE_CONTINUES_AT: usize = 504;

/// An entry: its content is read from the [`TarReader`].
pub(super) struct Entry {
    pub(super) name: PathBuf,
    pub(super) is_file: bool,
}

/// Reads a tar from its beginning to its end.
pub(super) struct TarReader<R> {
    from: R,
    /// Bytes of the content that were not read yet, and behind them up to the end of the block.
    remaining: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, remaining: 0, padding: 0 }
    }

    /// The next entry; unread bytes of the previous one are skipped.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>> {
        let (mut name, mut size) = (None, None);
        loop {
            self.skip_rest()?;
            let Some(block) = self.header()? else { return Ok(None) };
            let header = Header::from_byte_slice(&block);
            let kind = header.entry_type();
            self.set_size(header.entry_size()?);
            if kind.is_gnu_longname() {
                let mut text = self.extension()?;
                text.truncate(text.iter().position(|b| *b == 0).unwrap_or(text.len()));
                name.get_or_insert(text);
            } else if kind.is_pax_local_extensions() {
                for (key, value) in records(&self.extension()?)? {
                    match key {
                        b"path" => name = Some(value.to_vec()),
                        b"size" => size = Some(number(value)?),
                        _ => {}
                    }
                }
            } else if !kind.is_gnu_longlink() && !kind.is_pax_global_extensions() {
                if kind.is_gnu_sparse() && header.as_gnu().is_some_and(GnuHeader::is_extended) {
                    self.skip_sparse_headers()?;
                }
                if let Some(size) = size {
                    self.set_size(size);
                }
                let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
                return Ok(Some(Entry { name: OsStr::from_bytes(&name).into(), is_file: kind.is_file() }));
            }
        }
    }

    fn set_size(&mut self, size: u64) {
        let block = BLOCK as u64;
        (self.remaining, self.padding) = (size, (block - size % block) % block);
    }

    fn skip_rest(&mut self) -> Result<()> {
        for n in [std::mem::take(&mut self.remaining), std::mem::take(&mut self.padding)] {
            if std::io::copy(&mut self.from.by_ref().take(n), &mut std::io::sink())? < n {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = Vec::with_capacity(BLOCK);
        self.from.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        match block.is_empty() {
            true => Ok(None),
            false => block.try_into().map(Some).map_err(|_| ErrorKind::UnexpectedEof.into()),
        }
    }

    /// A header; none at the end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let Some(block) = self.block()?.filter(|b| b.iter().any(|b| *b != 0)) else { return Ok(None) };
        let plain = |(i, b): (usize, &u8)| if (148..156).contains(&i) { 32 } else { u32::from(*b) };
        let sum: u32 = block.iter().enumerate().map(plain).sum();
        match Header::from_byte_slice(&block).cksum()? == sum {
            true => Ok(Some(block)),
            false => Err(Error::other("invalid header checksum")),
        }
    }

    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.remaining > EXTENSION_MAX {
            let m =
                format!("the extension header has {} bytes; the maximum is {EXTENSION_MAX}", self.remaining);
            return Err(Error::new(ErrorKind::FileTooLarge, m));
        }
        let mut text = Vec::new();
        self.read_to_end(&mut text)?;
        Ok(text)
    }

    fn skip_sparse_headers(&mut self) -> Result<()> {
        while self.block()?.ok_or(ErrorKind::UnexpectedEof)?[SPARSE_CONTINUES_AT] == 1 {}
        Ok(())
    }
}

/// The content of the entry.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = self.from.by_ref().take(self.remaining).read(buf)?;
        if n == 0 && self.remaining > 0 && !buf.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= n as u64;
        Ok(n)
    }
}

fn number(text: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(text).ok().and_then(|n| n.parse().ok());
    text.ok_or_else(|| Error::other("invalid number in an extension header"))
}

/// Keys and values: `LENGTH KEY=VALUE\n`, where the length is that of all of it.
fn records(mut text: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let wrong = || Error::other("invalid extension header");
    let mut all = Vec::new();
    while !text.is_empty() {
        let begin = text.iter().position(|b| *b == b' ').ok_or_else(wrong)? + 1;
        let end = usize::try_from(number(&text[..begin - 1])?).map_err(|_| wrong())?;
        let record = text.get(begin..end).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(wrong)?;
        let at = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
        all.push((&record[..at], &record[at + 1..]));
        text = &text[end..];
    }
    Ok(all)
}
