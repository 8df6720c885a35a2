//! Rules that a user sets on a task: what to overwrite, how to check, how fast, how much metadata.

use serde::{Deserialize, Serialize};

/// When an existing target object is replaced (OMS §4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overwrite {
    /// Never: an existing key is skipped without comparing.
    Never,
    /// When sizes differ or the source is newer.
    #[default]
    Newer,
    /// When checksums differ, or cannot be compared.
    Checksum,
    /// When checksums differ; where either side has none, as `Newer` (OMS §4.5).
    Crc64,
    /// Always.
    Always,
}

/// The weakest proof that counts as copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Equal digests wherever both sides can give one; where one cannot, length, and the record says so.
    #[default]
    Digest,
    /// Equal CRC-64 where the stores expose it, else as `Digest`.
    Crc64,
    /// Equal length.
    Size,
    /// What was received is what was written; nothing more is asked.
    None,
}

/// Which metadata is copied with an object (OMS §4.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetadataRule {
    /// Standard headers, user metadata and tags.
    #[default]
    All,
    /// Content-Type and Content-Encoding only.
    ContentType,
}

/// The target's storage class (OMS §4.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StoragePolicy {
    /// Frequent access.
    #[default]
    Standard,
    /// Infrequent access.
    Ia,
    /// Archive.
    Archive,
    /// Deep archive.
    DeepArchive,
    /// The class that corresponds to the source object's.
    SrcStorageMapping,
}

/// One daily bandwidth window (OMS §4.10): minutes of the day, both ends as written by the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// First minute, 0 to 1439.
    pub start: u16,
    /// Last minute, 0 to 1439, after `start`.
    pub end: u16,
    /// Bytes per second.
    pub max_bandwidth: u64,
}

/// Why a set of windows is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowError {
    /// More than five.
    TooMany,
    /// `max_bandwidth` outside the allowed range.
    OutOfRange,
    /// Malformed, equal or reversed times.
    BadTime,
    /// Two windows overlap; touching is allowed.
    Overlap,
}

/// Minutes of the day from `hh:mm`.
pub fn minute_of(text: &str) -> Option<u16> {
    let (h, m) = text.split_once(':')?;
    if h.len() != 2 || m.len() != 2 || !text.bytes().all(|b| b.is_ascii_digit() || b == b':') {
        return None;
    }
    let (h, m): (u16, u16) = (h.parse().ok()?, m.parse().ok()?);
    (h < 24 && m < 60).then_some(h * 60 + m)
}

/// `hh:mm` from minutes of the day.
pub fn clock_text(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// Checks a whole set against the rules of OMS §4.10; `range` is in bytes per second, inclusive.
pub fn check_windows(windows: &[Window], range: (u64, u64)) -> Result<(), WindowError> {
    if windows.len() > 5 {
        return Err(WindowError::TooMany);
    }
    for w in windows {
        if w.max_bandwidth < range.0 || w.max_bandwidth > range.1 {
            return Err(WindowError::OutOfRange);
        }
        if w.start >= w.end || w.end > 1439 {
            return Err(WindowError::BadTime);
        }
    }
    let mut sorted = windows.to_vec();
    sorted.sort_by_key(|w| w.start);
    if sorted.windows(2).any(|pair| pair[1].start < pair[0].end) {
        return Err(WindowError::Overlap);
    }
    Ok(())
}

/// The limit in force at a minute of the day, in bytes per second; none outside every window. At a shared
/// minute the later window applies, and the last minute of a window belongs to it.
pub fn limit_at(windows: &[Window], minute: u16) -> Option<u64> {
    windows
        .iter()
        .filter(|w| w.start <= minute && minute <= w.end)
        .max_by_key(|w| w.start)
        .map(|w| w.max_bandwidth)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const RANGE: (u64, u64) = (MIB, 200 * MIB);

    fn w(start: &str, end: &str, max: u64) -> Window {
        let minute = |t| minute_of(t).unwrap_or(9999);
        Window { start: minute(start), end: minute(end), max_bandwidth: max }
    }

    /// OMS appendix B, line 9.
    #[test]
    fn bandwidth_windows_match_the_specification() {
        assert_eq!(check_windows(&[w("15:00", "16:00", MIB), w("16:00", "17:00", MIB)], RANGE), Ok(()));
        assert_eq!(
            check_windows(&[w("15:00", "16:01", MIB), w("16:00", "17:00", MIB)], RANGE),
            Err(WindowError::Overlap)
        );
        assert_eq!(check_windows(&[w("00:00", "00:01", MIB); 6], RANGE), Err(WindowError::TooMany));
        assert_eq!(check_windows(&[w("15:00", "16:00", MIB - 1)], RANGE), Err(WindowError::OutOfRange));
        assert_eq!(check_windows(&[w("16:00", "15:00", MIB)], RANGE), Err(WindowError::BadTime));
        assert_eq!(minute_of("24:00"), None);
        assert_eq!(minute_of("1:00"), None);
        assert_eq!(minute_of("+1:00"), None);
    }

    #[test]
    fn later_window_applies_at_the_shared_minute() {
        let set = [w("15:00", "16:00", 1), w("16:00", "17:00", 2)];
        assert_eq!(limit_at(&set, 16 * 60), Some(2));
        assert_eq!(limit_at(&set, 15 * 60 + 59), Some(1));
        assert_eq!(limit_at(&set, 17 * 60 + 1), None);
        assert_eq!(limit_at(&[w("00:00", "23:59", 7)], 1439), Some(7));
    }
}
