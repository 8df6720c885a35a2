//! Archives whose bytes depend on their entries only: sorted, with one time for all, and with no owner of this machine.

use std::collections::BTreeMap;
use std::io::Write;

use sha2::Digest;

/// What an entry is.
#[derive(Clone)]
pub(crate) enum Content {
    Directory,
    File(Vec<u8>),
}

#[derive(Clone)]
struct Entry {
    mode: u32,
    /// User and group; 0 is root.
    owner: u32,
    content: Content,
}

/// Entries of an archive by path, relative to its root and without a leading `./`.
#[derive(Clone, Default)]
pub(crate) struct Tree(BTreeMap<String, Entry>);

impl Tree {
    /// Adds a file of root, and its parent directories.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.add(path, mode, 0, Content::File(content.into()));
    }

    /// Adds a directory, and its parent directories.
    pub(crate) fn directory(&mut self, path: &str, mode: u32, owner: u32) {
        self.add(path, mode, owner, Content::Directory);
    }

    fn add(&mut self, path: &str, mode: u32, owner: u32, content: Content) {
        for (at, _) in path.match_indices('/') {
            let parent = Entry { mode: 0o755, owner: 0, content: Content::Directory };
            self.0.entry(path[..at].to_owned()).or_insert(parent);
        }
        self.0.insert(path.to_owned(), Entry { mode, owner, content });
    }

    /// Files as (path, mode, bytes), in the order of their paths.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, u32, &[u8])> {
        self.0.iter().filter_map(|(path, entry)| match &entry.content {
            Content::File(bytes) => Some((path.as_str(), entry.mode, bytes.as_slice())),
            Content::Directory => None,
        })
    }

    /// A tar archive. `prefix` begins each path, such as `package/`; `time` is in seconds since 1970.
    pub(crate) fn tar(&self, prefix: &str, time: u64) -> Result<Vec<u8>, String> {
        let mut builder = tar::Builder::new(Vec::new());
        if !prefix.is_empty() {
            append(
                &mut builder,
                prefix,
                &Entry { mode: 0o755, owner: 0, content: Content::Directory },
                time,
            )?;
        }
        for (path, entry) in &self.0 {
            let slash = if matches!(entry.content, Content::Directory) { "/" } else { "" };
            append(&mut builder, &format!("{prefix}{path}{slash}"), entry, time)?;
        }
        builder.into_inner().map_err(|e| format!("cannot write a tar archive: {e}"))
    }
}

fn append(builder: &mut tar::Builder<Vec<u8>>, path: &str, entry: &Entry, time: u64) -> Result<(), String> {
    let mut header = tar::Header::new_ustar();
    // `set_path` removes the `./` that dpkg writes before each path.
    let name = header.as_old_mut().name.get_mut(..path.len());
    name.ok_or_else(|| format!("cannot write a tar archive: path `{path}` has more than 100 bytes"))?
        .copy_from_slice(path.as_bytes());
    let (kind, bytes): (_, &[u8]) = match &entry.content {
        Content::Directory => (tar::EntryType::Directory, &[]),
        Content::File(bytes) => (tar::EntryType::Regular, bytes),
    };
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.into());
    header.set_gid(entry.owner.into());
    header.set_mtime(time);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    builder.append(&header, bytes).map_err(|e| format!("cannot write a tar archive: {e}"))
}

/// Compresses without a name and a time in the header.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::default());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .map_err(|e| format!("cannot compress {} bytes: {e}", bytes.len()))
}

/// SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn hex_digest(bytes: &[u8]) -> String {
    digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
