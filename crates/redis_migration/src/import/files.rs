//! The files that make a backup, and where each of them ends.

use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use model::error::{Error, Kind, Result, Side};
use redis_proto::aof;
use redis_proto::resp::Commands;

/// Bytes of one read of a backup file.
pub(super) const READ_BYTES: usize = 256 << 10;

/// Longest AOF manifest, bytes.
const MANIFEST_MAX: u64 = 1 << 20;
/// So much is read at once from the end of a file, bytes.
const CHUNK_BYTES: u64 = 64 << 10;

pub(crate) fn read_failure(path: &Path, e: &std::io::Error) -> Error {
    let kind = match e.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        std::io::ErrorKind::PermissionDenied => Kind::Forbidden,
        _ => Kind::Invalid,
    };
    Error::new(kind, "read", format!("{}: {e}", path.display())).at(Side::Source)
}

/// The files that a path stands for: itself, or the parts that the manifest of a folder names.
///
/// # Errors
/// When a folder holds no manifest, or more than one, or one that cannot be read.
pub fn backup_files(path: &Path) -> Result<Vec<PathBuf>> {
    let is_manifest = |p: &Path| p.extension().is_some_and(|e| e == "manifest");
    let manifest = if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| read_failure(path, &e))?;
        let mut found: Vec<PathBuf> =
            entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_manifest(p)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => one,
            _ => {
                let m = format!(
                    "{}: a folder of append-only files must contain exactly one manifest",
                    path.display()
                );
                return Err(Error::new(Kind::Invalid, "read", m).at(Side::Source));
            }
        }
    } else if is_manifest(path) {
        path.to_owned()
    } else {
        return Ok(vec![path.to_owned()]);
    };
    let mut text = Vec::new();
    let file = std::fs::File::open(&manifest).map_err(|e| read_failure(&manifest, &e))?;
    file.take(MANIFEST_MAX).read_to_end(&mut text).map_err(|e| read_failure(&manifest, &e))?;
    let wrong =
        |e| Error::new(Kind::Invalid, "read", format!("{}: {e}", manifest.display())).at(Side::Source);
    let dir = manifest.parent().unwrap_or(Path::new("."));
    Ok(aof::manifest(&text)
        .map_err(wrong)?
        .into_iter()
        .map(|(name, _)| dir.join(OsStr::from_bytes(&name)))
        .collect())
}

/// How long a file is without the NUL bytes at its end, and with them. A machine that loses its power leaves such a tail:
/// the length of the file was written, and its bytes were not.
pub(super) fn data_end(path: &Path) -> Result<(u64, u64)> {
    let failed = |e: std::io::Error| read_failure(path, &e);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let (mut end, mut buf) = (length, Vec::new());
    while end > 0 {
        let n = end.min(CHUNK_BYTES);
        file.seek(SeekFrom::Start(end - n)).map_err(failed)?;
        buf.clear();
        (&mut file).take(n).read_to_end(&mut buf).map_err(failed)?;
        match buf.iter().rposition(|b| *b != 0) {
            Some(last) => return Ok((end - n + last as u64 + 1, length)),
            None => end -= n,
        }
    }
    Ok((0, length))
}

/// Gives further bytes of a file to its commands, up to where they end.
pub(super) fn push_until(commands: &mut Commands, bytes: &[u8], end: u64) {
    let at = commands.offset() + commands.waiting() as u64;
    let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
    commands.push(&bytes[..bytes.len().min(left)]);
}
