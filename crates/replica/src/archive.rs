//! Backups that come packed: zip, tar, gzip and tar.gz, recognised by their content, unpacked under a ceiling.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use model::failure::{Failure, Kind, Result, Side};

use crate::file::{parts, unread};

/// Bytes that one archive may unpack to, unless the caller says otherwise: what is larger is a bomb or belongs unpacked.
pub const UNPACKED_MAX: u64 = 1 << 40;
/// Files of one archive.
const FILES_MAX: usize = 10_000;
/// Archives within archives.
const DEPTH_MAX: u32 = 2;
/// Where a tar says that it is one.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packed {
    Zip,
    Gzip,
    Tar,
    Not,
}

fn form(path: &Path) -> Result<Packed> {
    let mut first = [0; 512];
    let mut file = File::open(path).map_err(|e| unread(path, &e))?;
    let mut n = 0;
    while n < first.len() {
        match file.read(&mut first[n..]).map_err(|e| unread(path, &e))? {
            0 => break,
            more => n += more,
        }
    }
    let first = &first[..n];
    Ok(match first {
        _ if first.starts_with(b"PK\x03\x04") => Packed::Zip,
        _ if first.starts_with(&[0x1f, 0x8b]) => Packed::Gzip,
        _ if first.get(TAR_MAGIC) == Some(b"ustar") => Packed::Tar,
        _ => Packed::Not,
    })
}

/// True when a file is an archive, by its content.
///
/// # Errors
/// When it cannot be read.
pub fn is_archive(path: &Path) -> Result<bool> {
    Ok(path.is_file() && form(path)? != Packed::Not)
}

/// What an archive unpacks into.
struct Unpacking<'d> {
    dir: &'d Path,
    left: u64,
    /// A folder for each folder of the archive, so that no name of it becomes a path of ours.
    folders: BTreeMap<PathBuf, usize>,
    files: Vec<PathBuf>,
}

/// Unpacks an archive into `dir` and answers the backup files in it, in its own order. Parts of an append-only file are named
/// by their manifest; what is no backup is left out. `ceiling` bounds the unpacked bytes.
///
/// # Errors
/// [`Kind::Corrupt`] for an archive that is damaged, [`Kind::TooLarge`] above the ceiling, [`Kind::Invalid`] when it holds no
/// backup.
pub fn unpack(path: &Path, dir: &Path, ceiling: u64) -> Result<Vec<PathBuf>> {
    let mut into = Unpacking { dir, left: ceiling, folders: BTreeMap::new(), files: Vec::new() };
    into.archive(path, 0)?;
    let manifests: Vec<&PathBuf> =
        into.files.iter().filter(|f| f.extension().is_some_and(|e| e == "manifest")).collect();
    if !manifests.is_empty() {
        let mut all = Vec::new();
        for manifest in manifests {
            all.extend(parts(manifest)?);
        }
        return Ok(all);
    }
    let mut found = Vec::new();
    for file in into.files {
        if is_backup(&file)? {
            found.push(file);
        }
    }
    if found.is_empty() {
        let m = format!("{}: the archive holds no RDB file and no append-only file", path.display());
        return Err(Failure::new(Kind::Invalid, "unpack", m).at(Side::Source));
    }
    Ok(found)
}

/// Begins as a snapshot or an append-only file does.
fn is_backup(path: &Path) -> Result<bool> {
    let mut first = Vec::new();
    let file = File::open(path).map_err(|e| unread(path, &e))?;
    file.take(9).read_to_end(&mut first).map_err(|e| unread(path, &e))?;
    Ok(first.starts_with(b"REDIS") || first.starts_with(b"VALKEY") || matches!(first[..], [b'*' | b'#', ..]))
}

fn damaged(path: &Path, e: &dyn std::fmt::Display) -> Failure {
    Failure::new(Kind::Corrupt, "unpack", format!("{}: the archive is damaged: {e}", path.display()))
        .at(Side::Source)
}

impl Unpacking<'_> {
    fn archive(&mut self, path: &Path, depth: u32) -> Result<()> {
        let packed = form(path)?;
        if packed != Packed::Not && depth > DEPTH_MAX {
            let m = format!("{}: archives within archives within archives", path.display());
            return Err(Failure::new(Kind::Invalid, "unpack", m).at(Side::Source));
        }
        let open = || File::open(path).map(BufReader::new).map_err(|e| unread(path, &e));
        match packed {
            Packed::Not => {
                self.files.push(path.to_owned());
                Ok(())
            }
            Packed::Zip => self.zip(path, open()?, depth),
            Packed::Tar => self.tar(path, open()?, depth),
            Packed::Gzip => {
                let name = path.file_stem().unwrap_or_default().to_os_string();
                let inner =
                    self.write(Path::new(&name), &mut flate2::bufread::MultiGzDecoder::new(open()?), path)?;
                self.archive(&inner, depth + 1)
            }
        }
    }

    fn zip<R: Read + Seek>(&mut self, path: &Path, from: R, depth: u32) -> Result<()> {
        let mut zip = zip::ZipArchive::new(from).map_err(|e| damaged(path, &e))?;
        for i in 0..zip.len() {
            let mut entry = zip.by_index(i).map_err(|e| damaged(path, &e))?;
            if entry.is_file() {
                let name = PathBuf::from(entry.name());
                let inner = self.write(&name, &mut entry, path)?;
                self.archive(&inner, depth + 1)?;
            }
        }
        Ok(())
    }

    fn tar(&mut self, path: &Path, from: impl Read, depth: u32) -> Result<()> {
        let mut tar = tar::Archive::new(from);
        for entry in tar.entries().map_err(|e| damaged(path, &e))? {
            let mut entry = entry.map_err(|e| damaged(path, &e))?;
            if entry.header().entry_type().is_file() {
                let name = entry.path().map_err(|e| damaged(path, &e))?.into_owned();
                let inner = self.write(&name, &mut entry, path)?;
                self.archive(&inner, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Writes a file of an archive, under a path that is ours but for its last name.
    fn write(&mut self, name: &Path, from: &mut dyn Read, archive: &Path) -> Result<PathBuf> {
        let next = self.folders.len();
        let folder = archive.join(name.parent().unwrap_or(Path::new("")));
        let folder = self.dir.join(format!("{:04}", self.folders.entry(folder).or_insert(next)));
        std::fs::create_dir_all(&folder).map_err(|e| unread(&folder, &e))?;
        let last = name.file_name().unwrap_or("file".as_ref());
        let mut path = folder.join(last);
        if path.exists() {
            path = folder.join(format!("{}-{}", self.files.len(), last.to_string_lossy()));
        }
        if self.files.len() >= FILES_MAX {
            let m = format!("{}: the archive holds more than {FILES_MAX} files", archive.display());
            return Err(Failure::new(Kind::TooLarge, "unpack", m).at(Side::Source));
        }
        let mut to = File::create(&path).map_err(|e| unread(&path, &e))?;
        let mut buf = vec![0; 256 << 10];
        loop {
            let n = from.read(&mut buf).map_err(|e| damaged(archive, &e))?;
            if n == 0 {
                return Ok(path);
            }
            self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
                let m = format!("{}: the archive unpacks to more than is allowed", archive.display());
                Failure::new(Kind::TooLarge, "unpack", m).at(Side::Source)
            })?;
            to.write_all(&buf[..n]).map_err(|e| unread(&path, &e))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &[u8] = b"REDIS0009\xff\0\0\0\0\0\0\0\0";

    fn tar_gz(files: &[(&str, &[u8])]) -> Vec<u8> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn unpacked(bytes: &[u8], ceiling: u64) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        std::fs::write(&path, bytes).unwrap();
        let into = dir.path().join("into");
        let found = unpack(&path, &into, ceiling)?;
        assert!(found.iter().all(|f| f.starts_with(&into)), "{found:?}");
        Ok(found.iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn archives_hold_backups_and_other_things() {
        let packed = tar_gz(&[("readme.txt", b"hello"), ("a/b/shard-0.rdb", DUMP), ("c/shard-0.rdb", DUMP)]);
        assert_eq!(unpacked(&packed, 1 << 20).unwrap(), ["shard-0.rdb", "shard-0.rdb"]);
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in [("x.rdb", DUMP), ("inner.tar.gz", &packed)] {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        let zip = zip.finish().unwrap().into_inner();
        assert_eq!(unpacked(&zip, 1 << 20).unwrap(), ["x.rdb", "shard-0.rdb", "shard-0.rdb"]);
        assert_eq!(unpacked(&zip[..zip.len() / 2], 1 << 20).unwrap_err().kind, Kind::Corrupt);
        assert_eq!(unpacked(&tar_gz(&[("readme.txt", b"hello")]), 1 << 20).unwrap_err().kind, Kind::Invalid);
    }

    #[test]
    fn a_manifest_names_the_parts() {
        let manifest = b"file a.base.rdb seq 1 type b\nfile a.incr.aof seq 1 type i\n";
        let packed = tar_gz(&[
            ("d/a.incr.aof", b"*1\r\n$4\r\nPING\r\n"),
            ("d/a.base.rdb", DUMP),
            ("d/a.manifest", manifest),
        ]);
        assert_eq!(unpacked(&packed, 1 << 20).unwrap(), ["a.base.rdb", "a.incr.aof"]);
    }

    #[test]
    fn bombs_are_too_large() {
        let packed = tar_gz(&[("zeros.rdb", &vec![0; 4 << 20])]);
        assert!(packed.len() < 64 << 10);
        assert_eq!(unpacked(&packed, 1 << 20).unwrap_err().kind, Kind::TooLarge);
    }
}
