//! What the service can do.

use model::key::Order;

use crate::StartAfter;
use crate::capability::{Capability, PartProof};

impl Capability {
    /// Google Cloud Storage (Google "Quotas and limits").
    pub const GOOGLE: Capability = Capability {
        list_order: Order::Bytes,
        list_start_after: StartAfter::Unproved,
        list_allowed: true,
        list_keys_only: false,
        mtime_kept: false,
        write_checksum: false,
        write_crc: crate::capability::WriteCrc::None,
        etag_is_md5: true,
        part_proof: PartProof::Md5,
        crc64_ecma: false,
        multipart: true,
        uploads_listed: false,
        part_min_bytes: 1,
        part_max_count: 10_000,
        write_max_bytes: 5 << 40,
        read_if_match: true,
        head_part: false,
        tags: false,
        metadata: true,
        acl: false,
        versions: false,
        storage_class: true,
        key_max_bytes: 1024,
        copy: false,
    };
}
