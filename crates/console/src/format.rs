//! Numbers with their units, durations and times.

use std::borrow::Borrow;

use time::{OffsetDateTime, UtcOffset};

use crate::text::{Lang, Text};

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
/// A second, milliseconds.
const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A number of bytes and its unit: three digits, as `1.18` and `GiB`.
pub(crate) fn scaled(bytes: u64) -> (String, &'static str) {
    let mut value = bytes as f64;
    let mut unit = 0;
    // What would be shown as 1,000 or more has the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match (unit, value) {
        (0, _) => 0,
        (_, v) if v < 9.995 => 2,
        (_, v) if v < 99.95 => 1,
        _ => 0,
    };
    (format!("{value:.digits$}"), UNITS.get(unit).copied().unwrap_or("B"))
}

fn moment(ms: i64, zone: i32) -> OffsetDateTime {
    let offset = UtcOffset::from_whole_seconds(zone * 60).unwrap_or(UtcOffset::UTC);
    let utc = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    utc.unwrap_or(OffsetDateTime::UNIX_EPOCH).to_offset(offset)
}

/// An instant for machines: RFC 3339 in UTC.
pub(crate) fn machine_time(ms: i64) -> String {
    let at = moment(ms, 0);
    let (h, m, s) = at.to_hms();
    format!("{}-{:02}-{:02}T{h:02}:{m:02}:{s:02}Z", at.year(), u8::from(at.month()), at.day())
}

/// Hours, minutes and seconds.
pub(crate) fn clock(ms: i64, zone: i32) -> String {
    let (h, m, s) = moment(ms, zone).to_hms();
    format!("{h:02}:{m:02}:{s:02}")
}

/// The minute of the day.
pub(crate) fn minute_of_day(ms: i64, zone: i32) -> u16 {
    let at = moment(ms, zone);
    u16::from(at.hour()) * 60 + u16::from(at.minute())
}

impl Text {
    /// A whole number with separators: `629,652,227`.
    pub(crate) fn int(self, n: impl Borrow<u64>) -> String {
        let digits = n.borrow().to_string();
        let mut out = String::with_capacity(digits.len() + digits.len() / 3);
        for (i, c) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                out.push(',');
            }
            out.push(c);
        }
        out
    }

    /// Bytes: `258 TiB`.
    pub(crate) fn bytes(self, n: impl Borrow<u64>) -> String {
        let (value, unit) = scaled(*n.borrow());
        format!("{value} {unit}")
    }

    /// A part of a number of bytes, with one unit where both have the same: `258 / 413 TiB`.
    pub(crate) fn bytes_of(self, part: u64, all: u64) -> String {
        let ((value, unit), (whole, last)) = (scaled(part), scaled(all));
        if unit == last {
            format!("{value} / {whole} {last}")
        } else {
            format!("{value} {unit} / {whole} {last}")
        }
    }

    /// Bytes per second: `1.18 GiB/s`.
    pub(crate) fn speed(self, n: impl Borrow<u64>) -> String {
        format!("{}/s", self.bytes(n))
    }

    /// A share of one: `62.6 %`. Less than everything is never shown as 100.
    pub(crate) fn percent(self, share: f64) -> String {
        let tenths = (share.clamp(0.0, 1.0) * 1000.0).floor() / 10.0;
        let value = if share >= 1.0 { "100".to_owned() } else { format!("{tenths:.1}") };
        match self.lang() {
            Lang::En => format!("{value} %"),
            Lang::Zh => format!("{value}%"),
        }
    }

    /// A duration in its two largest units: `2 d 22 h`.
    pub(crate) fn duration(self, ms: i64) -> String {
        let ms = ms.max(0);
        let two = |big: i64, small: i64, units: fn(Text) -> (&'static str, &'static str)| {
            let (u, v) = units(self);
            if small == 0 { format!("{big} {u}") } else { format!("{big} {u} {small} {v}") }
        };
        match ms {
            ms if ms >= DAY_MS => two(ms / DAY_MS, ms % DAY_MS / HOUR_MS, |t| (t.unit_d(), t.unit_h())),
            ms if ms >= HOUR_MS => {
                two(ms / HOUR_MS, ms % HOUR_MS / MINUTE_MS, |t| (t.unit_h(), t.unit_min()))
            }
            ms if ms >= 10 * MINUTE_MS => two(ms / MINUTE_MS, 0, |t| (t.unit_min(), "")),
            ms if ms >= MINUTE_MS => {
                two(ms / MINUTE_MS, ms % MINUTE_MS / SECOND_MS, |t| (t.unit_min(), t.unit_s()))
            }
            ms if ms >= SECOND_MS => two(ms / SECOND_MS, 0, |t| (t.unit_s(), "")),
            ms => two(ms, 0, |_| ("ms", "")),
        }
    }

    /// An instant as people write it: the time alone on the same day, the year only when it is another one.
    pub(crate) fn time(self, ms: i64, zone: i32, now: i64) -> String {
        let (at, today) = (moment(ms, zone), moment(now, zone));
        let clock = format!("{:02}:{:02}", at.hour(), at.minute());
        if at.date() == today.date() {
            return clock;
        }
        let month = u8::from(at.month());
        let name: String = at.month().to_string().chars().take(3).collect();
        match (self.lang(), at.year() == today.year()) {
            (Lang::En, true) => format!("{} {name} {clock}", at.day()),
            (Lang::En, false) => format!("{} {name} {} {clock}", at.day(), at.year()),
            (Lang::Zh, true) => format!("{month}月{}日 {clock}", at.day()),
            (Lang::Zh, false) => format!("{}年{month}月{}日 {clock}", at.year(), at.day()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EN: Text = Text::new(Lang::En);
    const ZH: Text = Text::new(Lang::Zh);

    #[test]
    fn numbers_have_separators_and_units() {
        assert_eq!(
            (EN.int(0u64), EN.int(999u64), EN.int(1000u64)),
            ("0".into(), "999".into(), "1,000".into())
        );
        assert_eq!(EN.int(629_652_227u64), "629,652,227");
        for (n, want) in [
            (0u64, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1024, "1.00 KiB"),
            (1 << 30, "1.00 GiB"),
            (1_267_000_000, "1.18 GiB"),
            (283_800_000_000_000, "258 TiB"),
            (1023 << 40, "1.00 PiB"),
        ] {
            assert_eq!(EN.bytes(n), want, "{n}");
        }
    }

    #[test]
    fn less_than_everything_is_not_100_percent() {
        assert_eq!(
            (EN.percent(0.99999), EN.percent(1.0), ZH.percent(0.4567)),
            ("99.9 %".into(), "100 %".into(), "45.6%".into())
        );
    }

    #[test]
    fn durations_have_two_units() {
        for (ms, en, zh) in [
            (40, "40 ms", "40 ms"),
            (1_999, "1 s", "1 秒"),
            (61_000, "1 min 1 s", "1 分钟 1 秒"),
            (13 * MINUTE_MS, "13 min", "13 分钟"),
            (2 * HOUR_MS, "2 h", "2 小时"),
            (70 * HOUR_MS, "2 d 22 h", "2 天 22 小时"),
        ] {
            assert_eq!((EN.duration(ms), ZH.duration(ms)), (en.into(), zh.into()));
        }
    }

    #[test]
    fn times_are_as_short_as_they_can_be() {
        let now = 1_795_950_180_000; // 2026-11-29T13:03:00Z
        assert_eq!(machine_time(now), "2026-11-29T11:03:00Z");
        assert_eq!((EN.time(now, 60, now), clock(now, 60)), ("12:03".into(), "12:03:00".into()));
        assert_eq!(EN.time(now - DAY_MS, 0, now), "28 Nov 11:03");
        assert_eq!(ZH.time(now - DAY_MS, 0, now), "11月28日 11:03");
        assert_eq!(EN.time(now - 400 * DAY_MS, 0, now), "25 Oct 2025 11:03");
        assert_eq!(minute_of_day(now, -120), 9 * 60 + 3);
    }
}
