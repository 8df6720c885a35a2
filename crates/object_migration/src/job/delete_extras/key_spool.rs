//! Keys of extra objects, kept in a temporary file between their listing and their deletion.

use std::io::{Read, Seek, Write};

use model::error::{Error, Kind, Result};
use model::key::Key;

use super::ExtraObject;

/// Keys on the disk, in the order in which they were found.
#[derive(Debug)]
pub(super) struct KeySpool {
    file: std::io::BufWriter<std::fs::File>,
    reader: Option<std::io::BufReader<std::fs::File>>,
}

impl KeySpool {
    pub(super) fn new() -> Result<Self> {
        let file = tempfile::tempfile().map_err(spool_failed)?;
        Ok(Self { file: std::io::BufWriter::new(file), reader: None })
    }

    pub(super) fn push(&mut self, one: &ExtraObject) -> Result<()> {
        let text = one.to_ledger();
        let len = u32::try_from(text.as_bytes().len()).unwrap_or(u32::MAX);
        let written =
            self.file.write_all(&len.to_le_bytes()).and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(spool_failed)
    }

    pub(super) fn rewind(&mut self) -> Result<()> {
        let mut open = || {
            self.file.flush()?;
            let mut file = self.file.get_ref().try_clone()?;
            file.rewind()?;
            Ok(std::io::BufReader::new(file))
        };
        self.reader = Some(open().map_err(spool_failed)?);
        Ok(())
    }

    pub(super) fn next(&mut self, n: usize) -> Result<Vec<ExtraObject>> {
        let Some(reader) = &mut self.reader else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        let mut len = [0; 4];
        while out.len() < n {
            match reader.read_exact(&mut len) {
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => break,
                read => read.map_err(spool_failed)?,
            }
            let mut text = vec![0; u32::from_le_bytes(len) as usize];
            reader.read_exact(&mut text).map_err(spool_failed)?;
            out.extend(ExtraObject::from_ledger(&Key::new(text)));
        }
        Ok(out)
    }
}

fn spool_failed(e: std::io::Error) -> Error {
    Error::new(Kind::NoSpace, "delete", format!("cannot write the list of keys to delete: {e}")).caused_by(e)
}
