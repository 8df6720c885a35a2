//! What the service can do.

use model::key::Order;

use crate::capability::{Capability, PartProof, StartAfter, WriteCrc};

impl Capability {
    /// Amazon S3 and whatever speaks its language fully.
    pub const S3: Capability = Capability {
        list_order: Order::Bytes,
        list_start_after: StartAfter::Unproved,
        list_allowed: true,
        list_keys_only: false,
        mtime_kept: false,
        write_checksum: false,
        write_crc: WriteCrc::Unproved,
        etag_is_md5: true,
        part_proof: PartProof::Md5,
        crc64_ecma: false,
        multipart: true,
        uploads_listed: true,
        part_min_bytes: 5 << 20,
        part_max_count: 10_000,
        write_max_bytes: 5 << 30,
        read_if_match: true,
        head_part: true,
        tags: true,
        metadata: true,
        acl: true,
        versions: true,
        storage_class: true,
        key_max_bytes: 1024,
        copy: true,
    };
}
