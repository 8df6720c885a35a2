//! How the scripted server behaves.

use std::time::Duration;

use model::key::Order;

use crate::faults::Faults;
use crate::script::Script;

/// What the server does with the checksum of a body that is sent with it. MD5s are verified wherever checksums are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksums {
    /// It knows none: headers are ignored, and frames with their trailer become bytes of the object.
    #[default]
    Unknown,
    /// Headers and trailers that name one are refused.
    Refused,
    /// Headers are repeated unread.
    Repeated,
    /// Headers are verified, frames become bytes of the object.
    Headers,
    /// Headers and trailers are verified.
    Verified,
    /// As that, but `aws-chunked` stays the Content-Encoding of objects.
    EncodingKept,
}

impl Checksums {
    pub(super) fn verifies(self) -> bool {
        matches!(self, Checksums::Headers | Checksums::Verified | Checksums::EncodingKept)
    }
}

/// How the server behaves.
#[derive(Debug)]
pub struct Options {
    /// Order of listings.
    pub order: Order,
    /// Delay of each listing page.
    pub list_delay: Duration,
    /// Delay of each other request.
    pub delay: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// Forget bodies that are written; their ETags are those of the pattern of their length.
    pub discard: bool,
    /// Answer like a vendor whose own headers begin so (`x-obs-`): with opaque ETags and the CRC-64/ECMA of each
    /// object, to requesters who pay.
    pub vendor: Option<&'static str>,
    /// What is done with checksums that are sent.
    pub checksums: Checksums,
    /// As a bucket with Object Lock, refuse objects and parts that come without a checksum.
    pub checksum_demanded: bool,
    /// What single requests are answered in place of the server.
    pub script: Option<Script>,
    /// Keep a log of requests.
    pub log: bool,
    /// Threads.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            order: Order::Bytes,
            list_delay: Duration::ZERO,
            delay: Duration::ZERO,
            faults: Faults::none(),
            discard: false,
            vendor: None,
            checksums: Checksums::Unknown,
            checksum_demanded: false,
            script: None,
            log: true,
            threads: 1,
        }
    }
}
