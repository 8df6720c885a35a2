//! Instants as calendar dates.

use time::OffsetDateTime;

/// Date and time of an instant in milliseconds, UTC; the epoch for an instant beyond the calendar.
pub fn utc(ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
