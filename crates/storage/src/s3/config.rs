//! What is needed to open a bucket.

use model::error::{Error, Kind, Result};
use model::key::Order;

use super::sign::Credentials;
use super::vendor::Vendor;
use crate::http::Client;

/// How a bucket is named in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `http://host/bucket/key`
    Path,
    /// `http://bucket.host/key`
    Virtual,
}

/// What is needed to open a bucket.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// The endpoint.
    pub client: Client,
    /// The bucket; empty for calls on the account.
    pub bucket: String,
    /// How the bucket is named.
    pub addressing: Addressing,
    /// Region to sign for.
    pub region: String,
    /// None: anonymous.
    pub credentials: Option<Credentials>,
    /// Set when the operator knows better than detection.
    pub order: Option<Order>,
    /// Says on reads that the requester pays.
    pub requester_pays: bool,
    /// Whose dialect is spoken.
    pub vendor: &'static Vendor,
}

/// A bucket that becomes part of a host's name is written like one.
pub(super) fn check_label(bucket: &str) -> Result<()> {
    let fits = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
        && !bucket.starts_with(['.', '-'])
        && !bucket.ends_with(['.', '-'])
        && !bucket.contains("..");
    fits.then_some(()).ok_or_else(|| {
        let m = format!(
            "bucket `{bucket}` cannot be part of a host name (3 to 63 lower-case letters, digits, `.` and `-`)"
        );
        Error::new(Kind::Invalid, "open", m)
    })
}

/// A bucket in a path is a segment of its own there.
pub(super) fn check_segment(bucket: &str) -> Result<()> {
    if bucket == "." || bucket == ".." || bucket.bytes().any(|b| b.is_ascii_control()) {
        return Err(Error::new(
            Kind::Invalid,
            "open",
            format!("`{}` is not a valid bucket name", bucket.escape_debug()),
        ));
    }
    Ok(())
}
