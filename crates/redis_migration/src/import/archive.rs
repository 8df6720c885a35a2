//! Backups that come packed: zip, tar, gzip and tar.gz, recognised by their content, unpacked under a ceiling.

mod tar_reader;
mod zip_reader;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use model::error::{Error, Kind, Result, Side};
use storage::disk_space;

use self::tar_reader::TarReader;
use self::zip_reader::ZipReader;
use crate::import::files::{backup_files, read_failure};

/// Bytes that one archive may unpack to, unless the caller says otherwise: what is larger is a bomb or belongs unpacked.
pub const UNPACKED_MAX: u64 = 1 << 40;
/// An archive may always unpack to so much, bytes.
const UNPACKED_MIN: u64 = 1 << 30;
/// And beyond that to so many times its own length: dumps become a tenth or a twentieth.
const UNPACK_RATIO_MAX: u64 = 200;
/// Files of one archive, those included that are archives themselves.
const FILES_MAX: usize = 10_000;
/// Longest name within an archive, bytes: the folders are remembered.
const NAME_MAX: usize = 4096;
/// Archives within archives.
const DEPTH_MAX: u32 = 2;
/// Where a tar says that it is one.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArchiveFormat {
    Zip,
    Gzip,
    Tar,
    NotAnArchive,
}

fn detect_format(path: &Path) -> Result<ArchiveFormat> {
    let mut first = [0; 512];
    let mut file = File::open(path).map_err(|e| read_failure(path, &e))?;
    let mut n = 0;
    while n < first.len() {
        match file.read(&mut first[n..]).map_err(|e| read_failure(path, &e))? {
            0 => break,
            more => n += more,
        }
    }
    let first = &first[..n];
    Ok(match first {
        _ if first.starts_with(b"PK\x03\x04") => ArchiveFormat::Zip,
        _ if first.starts_with(&[0x1f, 0x8b]) => ArchiveFormat::Gzip,
        _ if first.get(TAR_MAGIC) == Some(b"ustar") => ArchiveFormat::Tar,
        _ => ArchiveFormat::NotAnArchive,
    })
}

/// True when a file is an archive, by its content.
///
/// # Errors
/// When it cannot be read.
pub fn is_archive(path: &Path) -> Result<bool> {
    Ok(path.is_file() && detect_format(path)? != ArchiveFormat::NotAnArchive)
}

/// What an archive unpacks into.
struct Unpacker<'d> {
    dir: &'d Path,
    left: u64,
    /// Bytes that were written since the free space was checked.
    bytes_since_check: u64,
    /// Files that were written.
    written: usize,
    /// A folder for each folder of the archive, so that no name in it becomes a path of this process.
    folders: BTreeMap<PathBuf, usize>,
    files: Vec<PathBuf>,
}

/// Unpacks an archive into `dir` and answers the backup files in it, in its own order. Parts of an append-only file are named
/// by their manifest; files that are not backups are ignored. `ceiling` bounds the unpacked bytes, and so does the archive's own length.
///
/// # Errors
/// [`Kind::Corrupt`] for an archive that is damaged, [`Kind::TooLarge`] above a bound, [`Kind::NoSpace`] when only the reserve
/// of the disk is left, [`Kind::Invalid`] when it holds no backup.
pub fn unpack(path: &Path, dir: &Path, ceiling: u64) -> Result<Vec<PathBuf>> {
    let len = std::fs::metadata(path).map_err(|e| read_failure(path, &e))?.len();
    let left = ceiling.min(len.saturating_mul(UNPACK_RATIO_MAX).max(UNPACKED_MIN));
    let mut into =
        Unpacker { dir, left, bytes_since_check: 0, written: 0, folders: BTreeMap::new(), files: Vec::new() };
    into.archive(path, 0)?;
    let manifests: Vec<&PathBuf> =
        into.files.iter().filter(|f| f.extension().is_some_and(|e| e == "manifest")).collect();
    if !manifests.is_empty() {
        let mut all = Vec::new();
        for manifest in manifests {
            all.extend(backup_files(manifest)?);
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
        let m =
            format!("{}: the archive does not contain an RDB file or an append-only file", path.display());
        return Err(Error::new(Kind::Invalid, "unpack", m).at(Side::Source));
    }
    Ok(found)
}

/// Begins as a snapshot or an append-only file does.
fn is_backup(path: &Path) -> Result<bool> {
    let mut first = Vec::new();
    let file = File::open(path).map_err(|e| read_failure(path, &e))?;
    file.take(9).read_to_end(&mut first).map_err(|e| read_failure(path, &e))?;
    Ok(first.starts_with(b"REDIS") || first.starts_with(b"VALKEY") || matches!(first[..], [b'*' | b'#', ..]))
}

fn damaged(path: &Path, e: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Corrupt, "unpack", format!("{}: the archive is damaged: {e}", path.display()))
        .at(Side::Source)
}

/// An error of a reader of an archive: a limit was exceeded, or the data is corrupt.
fn broken(path: &Path, e: &std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::FileTooLarge => too_large(path, &e.to_string()),
        _ => damaged(path, e),
    }
}

fn too_large(path: &Path, why: &str) -> Error {
    let m = format!("{}: {why}; hint: unpack it, and import the files", path.display());
    Error::new(Kind::TooLarge, "unpack", m).at(Side::Source)
}

impl Unpacker<'_> {
    fn archive(&mut self, path: &Path, depth: u32) -> Result<()> {
        let packed = detect_format(path)?;
        if packed != ArchiveFormat::NotAnArchive && depth > DEPTH_MAX {
            let m = format!("{}: archives are nested more than two levels deep", path.display());
            return Err(Error::new(Kind::Invalid, "unpack", m).at(Side::Source));
        }
        let open = || File::open(path).map(BufReader::new).map_err(|e| read_failure(path, &e));
        match packed {
            ArchiveFormat::NotAnArchive => {
                self.files.push(path.to_owned());
                Ok(())
            }
            ArchiveFormat::Zip => self.zip(path, depth),
            ArchiveFormat::Tar => self.tar(path, open()?, depth),
            ArchiveFormat::Gzip => {
                let name = path.file_stem().unwrap_or_default().to_os_string();
                let inner =
                    self.write(Path::new(&name), &mut flate2::bufread::MultiGzDecoder::new(open()?), path)?;
                self.archive(&inner, depth + 1)
            }
        }
    }

    fn zip(&mut self, path: &Path, depth: u32) -> Result<()> {
        let mut zip = ZipReader::open(path).map_err(|e| broken(path, &e))?;
        while let Some(entry) = zip.next_entry().map_err(|e| broken(path, &e))? {
            if entry.is_file {
                let mut content = zip.content(&entry).map_err(|e| broken(path, &e))?;
                let inner = self.write(Path::new(OsStr::from_bytes(&entry.name)), &mut content, path)?;
                self.archive(&inner, depth + 1)?;
            }
        }
        Ok(())
    }

    fn tar(&mut self, path: &Path, from: impl Read, depth: u32) -> Result<()> {
        let mut reader = TarReader::new(from);
        while let Some(entry) = reader.next_entry().map_err(|e| broken(path, &e))? {
            if entry.is_file {
                let inner = self.write(&entry.name, &mut reader, path)?;
                self.archive(&inner, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Writes a file of an archive, under a path of which only the last name is from the archive.
    fn write(&mut self, name: &Path, from: &mut dyn Read, archive: &Path) -> Result<PathBuf> {
        if name.as_os_str().len() > NAME_MAX {
            return Err(too_large(archive, "a file name in the archive is longer than 4096 bytes"));
        }
        self.written += 1;
        if self.written > FILES_MAX {
            return Err(too_large(archive, &format!("the archive contains more than {FILES_MAX} files")));
        }
        let next = self.folders.len();
        let folder = archive.join(name.parent().unwrap_or(Path::new("")));
        let folder = self.dir.join(format!("{:04}", self.folders.entry(folder).or_insert(next)));
        std::fs::create_dir_all(&folder).map_err(|e| read_failure(&folder, &e))?;
        let last = name.file_name().unwrap_or("file".as_ref());
        let mut path = folder.join(last);
        if path.exists() {
            path = folder.join(format!("{}-{}", self.files.len(), last.to_string_lossy()));
        }
        let mut to = File::create(&path).map_err(|e| read_failure(&path, &e))?;
        let mut buf = vec![0; 256 << 10];
        loop {
            let n = from.read(&mut buf).map_err(|e| damaged(archive, &e))?;
            if n == 0 {
                return Ok(path);
            }
            let left = self.left.checked_sub(n as u64);
            self.left =
                left.ok_or_else(|| too_large(archive, "the unpacked size of the archive exceeds the limit"))?;
            self.bytes_since_check += n as u64;
            if self.bytes_since_check >= disk_space::CHECK_INTERVAL_BYTES {
                disk_space::check(self.dir)?;
                self.bytes_since_check = 0;
            }
            to.write_all(&buf[..n]).map_err(|e| read_failure(&path, &e))?;
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
    fn archive_entries_that_are_not_backups_are_skipped() {
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
    fn archive_manifest_names_the_parts() {
        let manifest = b"file a.base.rdb seq 1 type b\nfile a.incr.aof seq 1 type i\n";
        let packed = tar_gz(&[
            ("d/a.incr.aof", b"*1\r\n$4\r\nPING\r\n"),
            ("d/a.base.rdb", DUMP),
            ("d/a.manifest", manifest),
        ]);
        assert_eq!(unpacked(&packed, 1 << 20).unwrap(), ["a.base.rdb", "a.incr.aof"]);
    }

    /// A tar of extension headers, as their kinds say, each of which claims to be so long; zeros are its bytes.
    fn extended(kinds: &[u8], size: u64) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for kind in kinds {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::new(*kind));
            header.set_size(size);
            header.set_cksum();
            out.write_all(header.as_bytes()).unwrap();
            let zeros = vec![0; 1 << 20];
            for at in (0..size.next_multiple_of(512)).step_by(zeros.len()) {
                let n = (size.next_multiple_of(512) - at).min(zeros.len() as u64);
                out.write_all(&zeros[..n as usize]).unwrap();
            }
        }
        out.finish().unwrap()
    }

    #[test]
    fn sec_f13_sizes_claimed_by_an_archive_allocate_no_memory() {
        for kind in *b"Lx" {
            let refused = unpacked(&extended(&[kind], 8 << 20), 1 << 30).unwrap_err();
            assert!(
                refused.kind == Kind::TooLarge && refused.message.contains("extension header"),
                "{refused}"
            );
            assert!(unpacked(&extended(&[kind], 300), 1 << 30).is_err());
        }
        // Links and what concerns the whole archive are skipped, however long.
        let refused = unpacked(&extended(b"Kg", 8 << 20), 1 << 30).unwrap_err();
        assert_eq!(refused.kind, Kind::Invalid, "{refused}");
        // A name is bounded by itself, because its folder is remembered.
        let long = format!("{}/x.rdb", "d".repeat(5000));
        assert_eq!(unpacked(&tar_gz_of(&long), 1 << 30).unwrap_err().kind, Kind::TooLarge);
        assert_eq!(unpacked(&tar_gz_of(&format!("{}/x.rdb", "d".repeat(300))), 1 << 30).unwrap(), ["x.rdb"]);
        // A directory that claims four thousand million entries, none of which is there.
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("x.rdb", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(DUMP).unwrap();
        let mut zip = zip.finish().unwrap().into_inner();
        assert_eq!(unpacked(&zip, 1 << 20).unwrap(), ["x.rdb"]);
        let end = zip.len() - 22;
        let (size, from) = (zip[end + 12..end + 16].to_vec(), zip[end + 16..end + 20].to_vec());
        let mut record = b"PK\x06\x06".to_vec();
        record.extend_from_slice(&44u64.to_le_bytes());
        record.extend_from_slice(&[0; 12]);
        record.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0].repeat(2));
        for number in [size, from] {
            record.extend_from_slice(&number);
            record.extend_from_slice(&[0; 4]);
        }
        record.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        record.extend_from_slice(&(end as u64).to_le_bytes());
        record.extend_from_slice(&1u32.to_le_bytes());
        zip[end + 10..end + 12].fill(0xff);
        drop(zip.splice(end..end, record));
        assert_eq!(unpacked(&zip, 1 << 20).unwrap_err().kind, Kind::Corrupt);
        // A byte of the content is another one than its sum says.
        let mut stored = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let plain =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        stored.start_file("x.rdb", plain).unwrap();
        stored.write_all(DUMP).unwrap();
        let mut stored = stored.finish().unwrap().into_inner();
        let at = stored.windows(5).position(|w| w == b"REDIS").unwrap();
        stored[at + 10] ^= 1;
        assert_eq!(unpacked(&stored, 1 << 20).unwrap_err().kind, Kind::Corrupt);
    }

    /// One dump under a name that needs an extension header.
    fn tar_gz_of(name: &str) -> Vec<u8> {
        let mut tar =
            tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(DUMP.len() as u64);
        tar.append_data(&mut header, name, DUMP).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn archive_bomb_is_rejected_as_too_large() {
        let packed = tar_gz(&[("zeros.rdb", &vec![0; 4 << 20])]);
        assert!(packed.len() < 64 << 10);
        assert_eq!(unpacked(&packed, 1 << 20).unwrap_err().kind, Kind::TooLarge);
    }

    #[test]
    fn fuzz_archives() {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("a/x.rdb", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(DUMP).unwrap();
        let zip = zip.finish().unwrap().into_inner();
        let packed = tar_gz(&[("readme.txt", b"hello"), ("a/b/shard-0.rdb", DUMP)]);
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut plain).unwrap();
        testkit::fuzz::fuzz("archives", &[packed, plain, zip, extended(b"x", 300)], |input, _| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("backup");
            std::fs::write(&path, input).unwrap();
            if is_archive(&path).unwrap_or(false) {
                let into = dir.path().join("into");
                let found = unpack(&path, &into, 1 << 20).unwrap_or_default();
                assert!(found.iter().all(|file| file.starts_with(&into)), "{found:?}");
            }
        });
    }
}
