//! What the service can do.

use model::key::Order;

use crate::StartAfter;
use crate::capability::{Capability, PartProof};

impl Capability {
    /// Block blobs (Azure "Scalability and performance targets for Blob Storage").
    pub const AZURE: Capability = Capability {
        list_order: Order::Bytes,
        list_start_after: StartAfter::Unproved,
        list_allowed: true,
        list_keys_only: false,
        mtime_kept: false,
        write_checksum: false,
        write_crc: crate::capability::WriteCrc::None,
        etag_is_md5: true,
        part_proof: PartProof::Crc64,
        crc64_ecma: false,
        multipart: true,
        uploads_listed: false,
        part_min_bytes: 1,
        part_max_count: 50_000,
        write_max_bytes: 4000 << 20,
        read_if_match: true,
        head_part: false,
        tags: true,
        metadata: true,
        acl: false,
        versions: false,
        storage_class: true,
        key_max_bytes: 4096,
        copy: false,
    };
}
