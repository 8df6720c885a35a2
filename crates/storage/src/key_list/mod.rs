//! Sources that a list file names: keys of a bucket (oms.md §4.3), or URLs (§4.4). The file is read once as a
//! stream and becomes a sorted key space, so that everything else treats it like a bucket.
//!
//! Decision: ADR 0007, `docs/adr/0007-lists-are-key-spaces.md`.

mod line;
mod page;
mod sorted;
mod urls;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use model::error::{Error, Kind, Result};
use model::key::{Key, Order};

use page::page;

pub use line::ListForm;
pub use sorted::Sorted;
pub use urls::UrlListStore;

use crate::capability::Capability;
use crate::egress::Egress;
use crate::meta::Meta;
use crate::{ListRequest, ObjectStore, Page, Position, Probe, ReadRequest, Reading, SharedStore, StartAfter};

/// Largest list file, bytes (oms.md §4.3).
pub const FILE_MAX: u64 = 1 << 30;
/// List files of one folder, one more than a group may have, so that it is told from a full one.
pub const FOLDER_MAX: usize = 2001;
/// Pages of one folder: other objects between its list files are skipped.
const PAGES_MAX: usize = 1000;

/// Where the sorted list of a task lies under the data directory.
pub fn path_in(data_dir: &Path, task: i64) -> PathBuf {
    data_dir.join("lists").join(format!("{task}.list"))
}

/// Checks what a list file's name, size and metadata say (oms.md §4.3).
///
/// # Errors
/// [`Kind::ListMissing`], [`Kind::ListTooLarge`], [`Kind::ListMetadata`] or [`Kind::Archived`].
pub async fn check(files: &SharedStore, key: &Key) -> Result<Meta> {
    let refused = |kind, why: String| Error::new(kind, "list_file", format!("`{key}`: {why}"));
    if !key.as_bytes().ends_with(b".txt") {
        return Err(refused(Kind::ListTooLarge, "the name must end in .txt".into()));
    }
    let meta = files.head(key, None).await.map_err(|f| match f.kind {
        Kind::NotFound => refused(Kind::ListMissing, "does not exist".into()),
        _ => f,
    })?;
    if meta.size > FILE_MAX {
        return Err(refused(Kind::ListTooLarge, format!("{} bytes exceed 1 GiB", meta.size)));
    }
    if meta.archived {
        return Err(refused(Kind::Archived, "is archived; hint: restore it first".into()));
    }
    if !files.capability().metadata || files.service().is_none() {
        // A directory knows no content types.
        return Ok(meta);
    }
    let text = |name: &str| meta.header(name).and_then(|v| v.to_str().ok()).unwrap_or_default().trim();
    let kind = text("content-type").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !may_be_text(&kind) {
        return Err(refused(Kind::ListMetadata, format!("Content-Type must be text/plain, not `{kind}`")));
    }
    if !matches!(text("content-encoding").to_ascii_lowercase().as_str(), "" | "identity") {
        return Err(refused(Kind::ListMetadata, "Content-Encoding must not be set".into()));
    }
    Ok(meta)
}

/// Many uploaders name no type, or one that says nothing (Terraform's acceptance tests: `binary/octet-stream`); each line is
/// checked anyway. A type that says something else is believed.
fn may_be_text(kind: &str) -> bool {
    const SAYS_NOTHING: [&str; 4] =
        ["", "binary/octet-stream", "application/octet-stream", "application/x-www-form-urlencoded"];
    kind.starts_with("text/") || SAYS_NOTHING.contains(&kind)
}

/// Reads a list file line by line.
///
/// # Errors
/// [`Kind::ListMalformed`] and its like, naming the line; [`Kind::ListEmpty`]; else from the store.
pub async fn lines(
    files: &SharedStore,
    key: &Key,
    form: ListForm,
    mut each: impl FnMut(line::Line) -> Result<()>,
) -> Result<u64> {
    let meta = check(files, key).await?;
    let request = ReadRequest { size: Some(meta.size), range: None, if_match: Some(meta.etag) };
    let mut body = files.read(key, &request).await?.body;
    let (mut rest, mut number, mut named) = (Vec::new(), 0, 0);
    let mut take = |text: &[u8]| -> Result<()> {
        number += 1;
        if let Some(line) = line::read(form, text, number)? {
            named += 1;
            each(line)?;
        }
        Ok(())
    };
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk?;
        let mut from = 0;
        for (i, _) in chunk.iter().enumerate().filter(|(_, b)| **b == b'\n') {
            if rest.is_empty() {
                take(&chunk[from..i])?;
            } else {
                rest.extend_from_slice(&chunk[from..i]);
                take(&rest)?;
                rest.clear();
            }
            from = i + 1;
        }
        rest.extend_from_slice(&chunk[from..]);
        if rest.len() > line::LINE_MAX + 1 {
            take(&rest)?;
        }
    }
    take(&rest)?;
    if named == 0 {
        return Err(Error::new(Kind::ListEmpty, "list_file", format!("the list `{key}` is empty")));
    }
    Ok(named)
}

/// As [`sorted`], from a list of keys on this machine.
///
/// # Errors
/// [`Kind::ListMissing`] when it cannot be read; else as [`lines`].
pub fn sorted_from_file(from: &Path, path: &Path) -> Result<Arc<Sorted>> {
    use std::io::BufRead;
    if let Some(there) = Sorted::open_if_there(path)? {
        return Ok(Arc::new(there));
    }
    let missing = |e: std::io::Error| {
        Error::new(Kind::ListMissing, "list_file", format!("{}: {e}", from.display())).caused_by(e)
    };
    let mut reader = std::io::BufReader::new(std::fs::File::open(from).map_err(missing)?);
    let mut sorter = sorted::Sorter::new(path)?;
    let (mut text, mut number) = (Vec::new(), 0);
    loop {
        text.clear();
        let mut bounded = std::io::Read::take(&mut reader, line::LINE_MAX as u64 + 2);
        if bounded.read_until(b'\n', &mut text).map_err(missing)? == 0 {
            break;
        }
        number += 1;
        let bare = text.strip_suffix(b"\n").unwrap_or(&text);
        if let Some(line) = line::read(ListForm::Keys, bare, number)? {
            sorter.push(line)?;
        }
    }
    Ok(Arc::new(sorter.finish()?))
}

/// As [`sorted`], from a list of URLs that is itself on the web.
///
/// # Errors
/// As [`sorted`]; when the list cannot be fetched.
pub async fn sorted_from_url(url: &str, path: &Path) -> Result<Arc<Sorted>> {
    if let Some(there) = Sorted::open_if_there(path)? {
        return Ok(Arc::new(there));
    }
    let key = Key::from("list.txt");
    let mut one = sorted::Sorter::new(&path.with_extension("url"))?;
    one.push(line::Line { key: key.as_bytes().to_vec(), url: url.to_owned() })?;
    let spool = path.parent().unwrap_or(Path::new(".")).to_owned();
    let web: SharedStore = Arc::new(UrlListStore::new(Arc::new(one.finish()?), Egress::anywhere(), spool));
    sorted(&web, &key, ListForm::Urls, path).await
}

/// As [`sorted`], from keys in hand.
///
/// # Errors
/// From the disk.
pub fn sorted_keys(keys: &[String], path: &Path) -> Result<Arc<Sorted>> {
    let mut sorter = sorted::Sorter::new(path)?;
    for key in keys {
        sorter.push(line::Line { key: key.as_bytes().to_vec(), url: String::new() })?;
    }
    Ok(Arc::new(sorter.finish()?))
}

/// The list files that stand directly in a folder: every key ending in `.txt` (oms.md §4.4); at most [`FOLDER_MAX`].
///
/// # Errors
/// When the folder cannot be listed; [`Kind::ListTooLarge`] when its listing does not come to an end.
pub async fn in_folder(files: &SharedStore, folder: &str) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    let mut from = Position::Start;
    for _ in 0..PAGES_MAX {
        let request =
            ListRequest { prefix: folder.to_owned(), from: from.clone(), max: 1000, delimiter: Some('/') };
        let page = files.list(&request).await?;
        let names = page.entries.iter().filter_map(|e| e.key.as_str()).filter(|k| k.ends_with(".txt"));
        keys.extend(names.map(str::to_owned).take(FOLDER_MAX - keys.len()));
        if keys.len() == FOLDER_MAX {
            return Ok(keys);
        }
        match page.next {
            Some(next) if next == from => {
                let m = format!("the continuation token of the listing of `{folder}` did not advance");
                return Err(Error::new(Kind::OutOfOrderListing, "list", m));
            }
            Some(next) => from = next,
            None => return Ok(keys),
        }
    }
    let m = format!(
        "the listing of `{folder}` has more than {PAGES_MAX} pages; hint: put the list files into a separate folder"
    );
    Err(Error::new(Kind::ListTooLarge, "list", m))
}

/// The sorted list of a task: the one on the disk, or made now from the list file.
///
/// # Errors
/// As [`lines`].
pub async fn sorted(files: &SharedStore, key: &Key, form: ListForm, path: &Path) -> Result<Arc<Sorted>> {
    if let Some(there) = Sorted::open_if_there(path)? {
        return Ok(Arc::new(there));
    }
    let mut sorter = sorted::Sorter::new(path)?;
    lines(files, key, form, |line| sorter.push(line)).await?;
    Ok(Arc::new(sorter.finish()?))
}

/// The keys of a list, as a view of the bucket that holds them.
#[derive(Debug)]
pub struct KeyListStore {
    inner: SharedStore,
    list: Arc<Sorted>,
    capability: Capability,
}

impl KeyListStore {
    /// `list` over `inner`.
    pub fn new(inner: SharedStore, list: Arc<Sorted>) -> Self {
        let capability = Capability {
            list_order: Order::Bytes,
            list_start_after: StartAfter::Exact,
            list_keys_only: true,
            ..*inner.capability()
        };
        Self { inner, list, capability }
    }
}

#[async_trait]
impl ObjectStore for KeyListStore {
    fn capability(&self) -> &Capability {
        &self.capability
    }
    fn service(&self) -> Option<String> {
        self.inner.service()
    }
    fn bucket(&self) -> &str {
        self.inner.bucket()
    }
    fn location(&self) -> String {
        self.inner.location()
    }
    fn listed_store(&self) -> Option<SharedStore> {
        Some(self.inner.clone())
    }
    async fn probe(&self, prefix: &str) -> Result<Probe> {
        self.inner.probe(prefix).await
    }
    async fn list(&self, request: &ListRequest) -> Result<Page> {
        page(&self.list, request)
    }
    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta> {
        self.inner.head(key, part).await
    }
    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading> {
        self.inner.read(key, request).await
    }
    async fn restore(&self, key: &Key, days: u32) -> Result<()> {
        self.inner.restore(key, days).await
    }
    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>> {
        self.inner.tags(key).await
    }
    async fn acl(&self, key: &Key) -> Result<Option<&'static str>> {
        self.inner.acl(key).await
    }
    async fn buckets(&self) -> Result<Vec<String>> {
        self.inner.buckets().await
    }
}

#[cfg(test)]
mod folders {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Entry;
    use crate::etag::Etag;

    /// Its listing has no end; names end so.
    #[derive(Debug)]
    struct Endless(&'static str, AtomicUsize);

    #[async_trait]
    impl ObjectStore for Endless {
        fn capability(&self) -> &Capability {
            &Capability::S3
        }
        fn location(&self) -> String {
            "nowhere".into()
        }
        async fn probe(&self, _: &str) -> Result<Probe> {
            Ok(Probe::default())
        }
        async fn list(&self, _: &ListRequest) -> Result<Page> {
            let page = self.1.fetch_add(1, Ordering::SeqCst);
            let entry = |i: usize| Entry {
                key: Key::from(format!("f/{page:06}-{i:03}{}", self.0)),
                size: 0,
                modified_ms: 0,
                written_ms: 0,
                etag: Etag::None,
                class: None,
            };
            let entries: Vec<Entry> = (0..100).map(entry).collect();
            let next = entries.last().map(|e| Position::After(e.key.clone()));
            Ok(Page { entries, folders: vec![], next })
        }
        async fn head(&self, _: &Key, _: Option<u32>) -> Result<Meta> {
            Err(Error::new(Kind::Unsupported, "head", "nothing is here"))
        }
        async fn read(&self, _: &Key, _: &ReadRequest) -> Result<Reading> {
            Err(Error::new(Kind::Unsupported, "read", "nothing is here"))
        }
        async fn tags(&self, _: &Key) -> Result<Vec<(String, String)>> {
            Ok(vec![])
        }
        async fn buckets(&self) -> Result<Vec<String>> {
            Ok(vec![])
        }
    }

    #[tokio::test]
    async fn sec_f28_endless_folder_listing_is_bounded() {
        let lists = Arc::new(Endless(".txt", AtomicUsize::new(0)));
        let files: SharedStore = lists.clone();
        assert_eq!(in_folder(&files, "f/").await.unwrap().len(), FOLDER_MAX);
        assert_eq!(lists.1.load(Ordering::SeqCst), FOLDER_MAX.div_ceil(100));
        let others = Arc::new(Endless(".csv", AtomicUsize::new(0)));
        let files: SharedStore = others.clone();
        assert_eq!(in_folder(&files, "f/").await.unwrap_err().kind, Kind::ListTooLarge);
        assert_eq!(others.1.load(Ordering::SeqCst), PAGES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cl_f04_list_content_types_are_accepted() {
        let fine = ["text/plain", "text/csv", "", "binary/octet-stream", "application/octet-stream"];
        assert!(fine.iter().all(|kind| may_be_text(kind)));
        for kind in ["image/png", "application/gzip", "application/json", "application/x-tar"] {
            assert!(!may_be_text(kind), "{kind}");
        }
    }
}
