//! How requests name their bucket: in the path, or in the host name.

use model::error::{Error, Kind, Result};

/// How a bucket is named in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `http://host/bucket/key`
    Path,
    /// `http://bucket.host/key`
    Virtual,
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
