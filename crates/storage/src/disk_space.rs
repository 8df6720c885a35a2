//! What stays free on a disk that others fill through this service, so that its own records can still be written there.

use std::path::Path;

use model::error::{Error, Kind, Result};

/// One part in so many of the disk stays free.
const RESERVED_FRACTION: u64 = 20;
/// At most so much stays free, bytes.
const MAX_RESERVED_BYTES: u64 = 1 << 30;

/// Bytes that may be written between two looks.
pub const CHECK_INTERVAL_BYTES: u64 = 16 << 20;

fn is_enough(free: u64, whole: u64) -> bool {
    free >= (whole / RESERVED_FRACTION).min(MAX_RESERVED_BYTES)
}

/// Looks whether more may be written on the disk that holds `dir`; a disk that does not say is written.
///
/// # Errors
/// [`Kind::NoSpace`] when only the reserve is left.
pub fn check(dir: &Path) -> Result<()> {
    check_for(dir, 0)
}

/// As [`check`], before so many bytes are written.
///
/// # Errors
/// [`Kind::NoSpace`] when less than the reserve would be left.
pub fn check_for(dir: &Path, bytes: u64) -> Result<()> {
    let Ok(disk) = rustix::fs::statvfs(dir) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if is_enough(free.saturating_sub(bytes), disk.f_blocks.saturating_mul(disk.f_frsize)) {
        return Ok(());
    }
    let m = format!(
        "{}: only {} MiB are free, and a reserve is kept for the records of the service; hint: free disk space",
        dir.display(),
        free >> 20
    );
    Err(Error::new(Kind::NoSpace, "spool", m))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_f19_reserved_disk_space_stays_free() {
        assert!(is_enough(10 << 20, 200 << 20) && !is_enough(9 << 20, 200 << 20));
        assert!(is_enough(1 << 30, 1 << 50) && !is_enough((1 << 30) - 1, 1 << 50));
        assert!(check(Path::new("/nowhere/at/all")).is_ok());
        let full = check_for(&std::env::temp_dir(), u64::MAX).unwrap_err();
        assert_eq!(full.kind, Kind::NoSpace);
    }
}
