//! What a store can do, as data.
//!
//! Naming rule: a field names the operation, then the ability; limits carry their unit.

use model::key::Order;

/// What a store tells of a part that it has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartProof {
    /// Its MD5, as ETag.
    Md5,
    /// Its CRC-64/NVME.
    Crc64,
}

/// How a listing begins after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAfter {
    /// Exactly after the key: the order and the walk are our own.
    Exact,
    /// As documented, but not seen yet.
    Unproved,
    /// As documented, and seen to be so.
    Proved,
    /// Not at all, or in a way of its own: a walk begins at the first key.
    Broken,
}

/// How a write can carry the CRC-64/NVME of its body, so that the store refuses other bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteCrc {
    /// The store was not asked yet.
    Unproved,
    /// The store has not refused a wrong one: none is sent.
    #[default]
    None,
    /// In a header, for bodies that are in memory.
    Header,
    /// In a header, and behind the body in its `aws-chunked` framing.
    Trailer,
}

/// Abilities and limits of one opened store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// The order that listings keep.
    pub list_order: Order,
    /// How listings begin after a key.
    pub list_start_after: StartAfter,
    /// The credentials may list.
    pub list_allowed: bool,
    /// Listings tell keys only; each must be asked about.
    pub list_keys_only: bool,
    /// Objects keep the modification time that they are written with.
    pub mtime_kept: bool,
    /// Writes are refused without a checksum of their body.
    pub write_checksum: bool,
    /// How a CRC-64/NVME is sent with a write: as the store was seen to verify it.
    pub write_crc: WriteCrc,
    /// ETags of whole writes are the MD5 of the bytes.
    pub etag_is_md5: bool,
    /// What the store tells of a written part.
    pub part_proof: PartProof,
    /// The store keeps the CRC-64/ECMA of each object.
    pub crc64_ecma: bool,
    /// Multipart uploads exist.
    pub multipart: bool,
    /// An upload is known to the store from its beginning, and can be found there.
    pub uploads_listed: bool,
    /// Smallest part but the last, bytes.
    pub part_min_bytes: u64,
    /// Most parts of one upload.
    pub part_max_count: u32,
    /// Largest object in one write, bytes.
    pub write_max_bytes: u64,
    /// `If-Match` on reads is honoured.
    pub read_if_match: bool,
    /// `HEAD ?partNumber=` tells the layout of parts.
    pub head_part: bool,
    /// Objects carry tags.
    pub tags: bool,
    /// Objects carry user metadata and standard headers.
    pub metadata: bool,
    /// Objects have access rules of their own.
    pub acl: bool,
    /// Every version of a key can be listed and read.
    pub versions: bool,
    /// Storage classes can be chosen.
    pub storage_class: bool,
    /// Longest key, bytes.
    pub key_max_bytes: usize,
    /// Copies between buckets of one endpoint need no bytes through here.
    pub copy: bool,
}

impl Capability {
    /// A directory of the local machine.
    pub const FS: Capability = Capability {
        list_order: Order::Bytes,
        list_start_after: StartAfter::Exact,
        list_allowed: true,
        list_keys_only: false,
        mtime_kept: true,
        write_checksum: false,
        write_crc: WriteCrc::None,
        etag_is_md5: false,
        part_proof: PartProof::Crc64,
        crc64_ecma: false,
        multipart: true,
        uploads_listed: true,
        part_min_bytes: 1,
        part_max_count: 1 << 20,
        write_max_bytes: u64::MAX,
        read_if_match: true,
        head_part: false,
        tags: true,
        metadata: true,
        acl: false,
        versions: false,
        storage_class: false,
        key_max_bytes: 4095,
        copy: false,
    };
}
