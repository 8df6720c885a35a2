//! How a store behaves.

use model::error::Kind;
use model::key::{Key, Order};
use storage::Capability;

/// The order in which keys are listed, whatever is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// By their bytes (AWS "ListObjectsV2").
    Bytes,
    /// As a walk through folders.
    Segments,
    /// Keys in folders before all others.
    FoldersFirst,
    /// By a hash of the key, as directory buckets do (AWS "ListObjectsV2": directory buckets).
    Hash,
    /// Each walk has an order of its own, which its tokens keep.
    Unstable,
}

/// How a listing begins after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After it.
    Honoured,
    /// With it.
    Inclusive,
    /// At the first key.
    Ignored,
    /// It is refused.
    Refused,
}

/// What an ETag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtagKind {
    /// The MD5 of the bytes, or of the MD5s of the parts.
    Md5,
    /// A tag that looks like an MD5 and is none, and says so (encryption with a key service).
    Opaque,
    /// There is none.
    None,
}

/// Attributes of an object that a store keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptChecksums {
    /// The CRC-64/NVME.
    pub crc64: bool,
    /// The CRC-32C.
    pub crc32c: bool,
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFault {
    /// It is refused before anything happens.
    Refused(Kind),
    /// It is done, and its answer is lost.
    Lost,
    /// The body says that it is shorter than the object.
    Short,
    /// The body ends before it should.
    Cut,
    /// One byte of the body is another.
    Changed,
    /// The body comes in four pieces, a millisecond apart.
    Slow,
}

/// The behaviour of one store.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// What the connector says that it can do.
    pub capability: Capability,
    /// The order of listings.
    pub listing: Listing,
    /// How listings begin after a key.
    pub start: Start,
    /// Keys of a page.
    pub page: usize,
    /// Of 100 pages so many come empty first, with a token.
    pub empty_pages: u32,
    /// So many tokens are refused when they are sent, one in six: they have expired.
    pub tokens_expire: u32,
    /// What ETags are.
    pub etag: EtagKind,
    /// Listings tell ETags.
    pub listed_etags: bool,
    /// What is kept of objects.
    pub keeps: KeptChecksums,
    /// Bytes that the headers of an object may have; more are refused (AWS: 2 KB of user metadata).
    pub headers_max: usize,
    /// What goes wrong in so many of 1000 requests.
    pub faults: Vec<(u32, ModelFault)>,
    /// Reads and writes of these keys are always refused so.
    pub broken: Vec<(Key, Kind)>,
    /// These may be neither written over nor removed: they are locked, and the store keeps no versions.
    pub locked: Vec<Key>,
    /// These are gone when they are first read.
    pub vanishing: Vec<Key>,
    /// These are listed, and never found.
    pub hidden: Vec<Key>,
    /// These are found, and never listed: a listing lags behind.
    pub unlisted: Vec<Key>,
    /// These are written again when they are first read.
    pub changing: Vec<Key>,
    /// How far its clock is ahead of that of this process, milliseconds: what is written is dated by it.
    pub skew_ms: i64,
    /// From this request on the container is gone.
    pub ends_at: Option<u64>,
}

impl Behaviour {
    /// A store that does what is documented.
    pub fn exact() -> Self {
        Self {
            capability: Capability {
                part_min_bytes: 1,
                acl: false,
                versions: false,
                copy: false,
                tags: false,
                write_crc: storage::WriteCrc::None,
                ..Capability::S3
            },
            listing: Listing::Bytes,
            start: Start::Honoured,
            page: 1000,
            empty_pages: 0,
            tokens_expire: 0,
            etag: EtagKind::Md5,
            listed_etags: true,
            keeps: KeptChecksums::default(),
            headers_max: usize::MAX,
            faults: Vec::new(),
            broken: Vec::new(),
            locked: Vec::new(),
            vanishing: Vec::new(),
            hidden: Vec::new(),
            unlisted: Vec::new(),
            changing: Vec::new(),
            skew_ms: 0,
            ends_at: None,
        }
    }

    /// A behaviour by chance; what happens to single keys is drawn by the test.
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        let mut drawn = Self::exact();
        drawn.listing = *random
            .choice(&[
                Listing::Bytes,
                Listing::Bytes,
                Listing::Segments,
                Listing::FoldersFirst,
                Listing::Hash,
            ])
            .unwrap_or(&Listing::Bytes);
        drawn.start = *random
            .choice(&[Start::Honoured, Start::Honoured, Start::Inclusive, Start::Ignored, Start::Refused])
            .unwrap_or(&Start::Honoured);
        drawn.page = random.usize(1..12);
        drawn.empty_pages = if random.u32(0..4) == 0 { 30 } else { 0 };
        drawn.etag = *random
            .choice(&[EtagKind::Md5, EtagKind::Md5, EtagKind::Opaque, EtagKind::None])
            .unwrap_or(&EtagKind::Md5);
        drawn.capability.etag_is_md5 = drawn.etag == EtagKind::Md5;
        drawn.listed_etags = random.u32(0..4) > 0;
        drawn.keeps = KeptChecksums { crc64: random.bool(), crc32c: random.u32(0..4) == 0 };
        if random.u32(0..5) == 0 {
            // The connector was told the order.
            drawn.capability.list_order = match drawn.listing {
                Listing::Bytes => Order::Bytes,
                Listing::Segments => Order::Segments,
                _ => Order::Unknown,
            };
        }
        let passing = [
            ModelFault::Refused(Kind::Throttled),
            ModelFault::Refused(Kind::Unavailable),
            ModelFault::Refused(Kind::Connect),
            ModelFault::Refused(Kind::Timeout),
            ModelFault::Lost,
            ModelFault::Short,
            ModelFault::Cut,
            ModelFault::Changed,
        ];
        for fault in passing {
            if random.u32(0..4) == 0 {
                drawn.faults.push((random.u32(1..60), fault));
            }
        }
        drawn
    }

    /// What a walk through the listing sorts by.
    pub(super) fn rank(&self, key: &Key, walk: u64) -> (u64, Vec<u8>) {
        let bytes = key.as_bytes();
        let hash =
            |seed: u64| bytes.iter().fold(seed, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        match self.listing {
            Listing::Bytes => (0, bytes.to_vec()),
            // `/` sorts below every other byte.
            Listing::Segments => (0, bytes.iter().map(|b| if *b == b'/' { 0 } else { *b }).collect()),
            Listing::FoldersFirst => (u64::from(!bytes.contains(&b'/')), bytes.to_vec()),
            Listing::Hash => (hash(0xcbf2_9ce4_8422_2325), bytes.to_vec()),
            Listing::Unstable => (hash(walk.wrapping_mul(0x9e37_79b9_7f4a_7c15)), bytes.to_vec()),
        }
    }
}
