//! Object stores behind one shape: list, head, read, write, multipart, copy, delete.
//!
//! A connector is opened for one bucket (or directory) and knows nothing of tasks. What it can do is data
//! ([`Capability`]); one conformance suite judges all of them. [`retrying::RetryingStore`] adds timeouts, retries,
//! the adaptive limit and request counts around any connector.

pub mod azure;
pub mod body;
pub mod capability;
pub mod cdn;
pub mod checksum;
pub mod disk_space;
pub mod egress;
pub mod etag;
pub mod fault;
mod framed;
pub mod fs;
pub mod google;
pub mod http;
mod idle;
pub mod key_list;
pub mod meta;
mod observation;
mod pooled_body;
pub mod prefixed;
mod quick_ack;
pub mod retrying;
pub mod s3;
pub mod single_object;
pub mod versioned;
pub mod xml;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use model::error::{Error, Kind, Result};
use model::key::Key;

pub use body::Body;
pub use capability::{Capability, StartAfter, WriteCrc};
use checksum::Checksums;
pub use etag::Etag;
pub use meta::Meta;

/// One listed object.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub size: u64,
    /// Last modification, milliseconds since the epoch.
    pub modified_ms: i64,
    /// When it was put where it is, milliseconds: the modification time, unless the store keeps that of the
    /// source, as a file does.
    pub written_ms: i64,
    /// Its ETag; for stores without one, a tag that changes when the object does.
    pub etag: Etag,
    /// Its storage class as the store names it, when not the default.
    pub class: Option<Box<str>>,
}

/// Where in a listing a page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// At the first key.
    #[default]
    Start,
    /// At the first key that sorts after this one in the store's order. It only begins a walk; a server may
    /// understand it in its own way (see [`capability::StartAfter`]).
    After(Key),
    /// Where the page before ended, in the store's own words. Only the store that gave it can read it.
    Token(Box<str>),
}

impl Position {
    /// After a key, or at the first key when it is empty.
    pub fn after(key: Key) -> Self {
        if key.is_empty() { Position::Start } else { Position::After(key) }
    }

    /// The key of [`Position::After`]; empty otherwise.
    pub fn after_key(&self) -> Key {
        match self {
            Position::After(key) => key.clone(),
            _ => Key::default(),
        }
    }
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Where the page begins.
    pub from: Position,
    /// Maximum number of keys, 1 to 1000.
    pub max: u32,
    /// Group keys below this character, as for one level of a folder tree.
    pub delimiter: Option<char>,
}

/// One page of a listing, in the store's order.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The objects.
    pub entries: Vec<Entry>,
    /// Common prefixes, when a delimiter was asked for.
    pub folders: Vec<String>,
    /// Where the next page begins; none when no key follows. A page may have no keys and still be followed.
    pub next: Option<Position>,
}

impl Page {
    /// True when more keys follow.
    pub fn more(&self) -> bool {
        self.next.is_some()
    }
}

/// What to read of an object.
#[derive(Clone, Debug, Default)]
pub struct ReadRequest {
    /// Length of the whole object as it was listed, bytes: used where an answer does not tell its length.
    pub size: Option<u64>,
    /// A byte range; none reads everything.
    pub range: Option<Range<u64>>,
    /// Refuse with [`model::error::Kind::Changed`] unless the ETag is this one.
    pub if_match: Option<Etag>,
}

impl ReadRequest {
    /// How many bytes the answer must have, where that is known before.
    pub fn expected_len(&self) -> Option<u64> {
        match &self.range {
            Some(range) => Some(range.end - range.start),
            None => self.size,
        }
    }
}

/// The failure of an answer whose length neither it nor the listing tells.
pub(crate) fn no_length(what: &str) -> Error {
    Error::new(Kind::Corrupt, "read", format!("{what}: the response has no Content-Length"))
}

/// An opened object: its metadata and its bytes.
#[derive(Debug)]
pub struct Reading {
    /// Metadata as far as the store sends it with a read.
    pub meta: Meta,
    /// The bytes asked for.
    pub body: Body,
}

/// What a write produced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// The new object's ETag, or [`Etag::None`] when the store does not say.
    pub etag: Etag,
    /// Checksums of the new object, as far as the store tells them.
    pub sums: Checksums,
}

/// One finished part of a multipart upload.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct UploadedPart {
    /// Its number, from 1.
    pub number: u32,
    /// Its ETag as the store gave it, without quotes.
    pub etag: String,
    /// Its length in bytes.
    pub size: u64,
    /// The store said that its ETag is no digest (encryption with a key service).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque: bool,
    /// CRC-64/NVME of its bytes in flight, where it was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc64: Option<u64>,
    /// MD5 of its bytes in flight, where it was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<[u8; 16]>,
}

/// One version of a key, or the mark that it was deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// The version's name at the store.
    pub id: String,
    /// When it was made, milliseconds since the epoch.
    pub at_ms: i64,
    /// It is the newest of its key.
    pub latest: bool,
    /// What it is; none where it marks a deletion.
    pub entry: Option<Entry>,
}

/// A page of keys with all their versions, in the order of keys.
#[derive(Clone, Debug, Default)]
pub struct VersionPage {
    /// Each key with its versions, oldest first, complete; or why they cannot be had.
    pub keys: Vec<(Key, Result<Vec<Version>>)>,
    /// Where the next page begins; none when no key follows.
    pub next: Option<Position>,
}

/// What was found out about a bucket before any work starts.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// The server's own name for itself, for notes and logs.
    pub server: String,
    /// Difference of the server's clock to that of this process, milliseconds, if it sent its time.
    pub skew_ms: Option<i64>,
    /// Why the credentials may not list the bucket, which is there.
    pub list_refused: Option<Error>,
}

/// What the use of a store teaches about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Listings keep this order.
    ListOrder(model::key::Order),
    /// How listings begin after a key.
    StartAfter(StartAfter),
    /// Writes must carry a checksum of their body.
    WriteChecksum,
    /// How writes can carry a CRC-64/NVME.
    WriteCrc(WriteCrc),
    /// The credentials may not list.
    ListRefused,
}

fn read_only<T>(op: &'static str) -> Result<T> {
    Err(Error::new(Kind::Unsupported, op, "this source is read-only"))
}

/// One bucket, directory or list, opened with its credentials. Sources that are only read do not implement the methods that write.
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug {
    /// What this store can do, and in which order it lists.
    fn capability(&self) -> &Capability;

    /// Names the service and the identity used, so that two stores with one name can copy without moving
    /// bytes through here; none: they cannot.
    fn service(&self) -> Option<String> {
        None
    }

    /// The bucket's name, where there are buckets.
    fn bucket(&self) -> &str {
        ""
    }

    /// Where this is, for messages: never a secret.
    fn location(&self) -> String;

    /// This store, where it is a directory of this machine: files go from one to another without a stream.
    fn as_directory(&self) -> Option<&fs::Fs> {
        None
    }

    /// The bucket whose keys a list names, where this is such a list: what the bucket lists is not what the list names.
    fn listed_store(&self) -> Option<SharedStore> {
        None
    }

    /// Remembers what was learned by using the store; connectors themselves learn nothing.
    fn learn(&self, fact: Fact) {
        let _ = fact;
    }

    /// Checks that the bucket exists and may be listed below `prefix`, without changing anything.
    async fn probe(&self, prefix: &str) -> Result<Probe>;

    /// One page of keys.
    async fn list(&self, request: &ListRequest) -> Result<Page>;

    /// Metadata of one object; with `part`, its length and ETag as the store reports them for that part.
    async fn head(&self, key: &Key, part: Option<u32>) -> Result<Meta>;

    /// Opens an object for reading.
    async fn read(&self, key: &Key, request: &ReadRequest) -> Result<Reading>;

    /// Writes a whole object: afterwards it is there completely, or not at all.
    async fn write(&self, key: &Key, meta: &Meta, body: Body) -> Result<Written> {
        let _ = (key, meta, body);
        read_only("write")
    }

    /// Removes an object; it is no error if there is none.
    async fn delete(&self, key: &Key) -> Result<()> {
        let _ = key;
        read_only("delete")
    }

    /// Starts a multipart upload and gives its id.
    async fn begin_upload(&self, key: &Key, meta: &Meta) -> Result<String> {
        let _ = (key, meta);
        read_only("begin_upload")
    }

    /// Writes one part; `offset` is where its first byte stands in the object.
    async fn write_part(
        &self,
        key: &Key,
        upload: &str,
        number: u32,
        offset: u64,
        body: Body,
    ) -> Result<UploadedPart> {
        let _ = (key, upload, number, offset, body);
        read_only("write_part")
    }

    /// Finds out how writes can carry a CRC-64/NVME: small parts of `upload`, which becomes no object, are sent with a
    /// wrong one and with the right one.
    async fn prove_write_crc(&self, key: &Key, upload: &str) -> Result<WriteCrc> {
        let _ = (key, upload);
        Ok(WriteCrc::None)
    }

    /// Makes the object out of its parts, given in order.
    async fn complete_upload(&self, key: &Key, upload: &str, parts: &[UploadedPart]) -> Result<Written> {
        let _ = (key, upload, parts);
        read_only("complete_upload")
    }

    /// Forgets an upload and its parts; it is no error if there is none.
    async fn abort_upload(&self, key: &Key, upload: &str) -> Result<()> {
        let _ = (key, upload);
        read_only("abort_upload")
    }

    /// The finished parts of an upload.
    async fn list_parts(&self, key: &Key, upload: &str) -> Result<Vec<UploadedPart>> {
        let _ = (key, upload);
        read_only("list_parts")
    }

    /// Open uploads under a prefix as (key, upload id), the first thousand.
    async fn list_uploads(&self, prefix: &str) -> Result<Vec<(Key, String)>> {
        let _ = prefix;
        read_only("list_uploads")
    }

    /// Copies an object of another bucket of the same endpoint, without moving its bytes through here.
    async fn copy_from(&self, bucket: &str, from: &Key, to: &Key, if_match: &Etag) -> Result<Written> {
        let _ = (bucket, from, to, if_match);
        read_only("copy_from")
    }

    /// Asks for an archived object to be readable for some days; it is no error if that was asked already.
    async fn restore(&self, key: &Key, days: u32) -> Result<()> {
        let _ = (key, days);
        Err(Error::new(Kind::Unsupported, "restore", "this store does not support restores"))
    }

    /// Tags of an object.
    async fn tags(&self, key: &Key) -> Result<Vec<(String, String)>>;

    /// The canned access rule that comes nearest to an object's own; none: only its owner has access.
    async fn acl(&self, key: &Key) -> Result<Option<&'static str>> {
        let _ = key;
        Err(Error::new(Kind::Unsupported, "acl", "this store has no per-object ACLs"))
    }

    /// One page of keys with all their versions.
    async fn list_versions(&self, request: &ListRequest) -> Result<VersionPage> {
        let _ = request;
        Err(Error::new(Kind::Unsupported, "list_versions", "this store does not support versioning"))
    }

    /// True when an overwritten object stays readable as an older version.
    async fn keeps_versions(&self) -> Result<bool> {
        Ok(false)
    }

    /// The same store, whose reads are of one version; none where there are no versions.
    fn at_version(&self, version: &str) -> Option<SharedStore> {
        let _ = version;
        None
    }

    /// Makes everything written so far durable. The ledger counts a write only after this; a store whose
    /// acknowledged writes are durable already does nothing.
    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Listed files that cannot become objects (links to nowhere, pipes), with the reason; the first
    /// thousand.
    fn ignored_entries(&self) -> Vec<String> {
        Vec::new()
    }

    /// Buckets that the credentials can see; stores without buckets answer [`model::error::Kind::Unsupported`].
    async fn buckets(&self) -> Result<Vec<String>>;
}

/// A store that is shared between I/O threads.
pub type SharedStore = Arc<dyn ObjectStore>;
