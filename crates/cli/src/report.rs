//! Progress and summaries in people's units. `indicatif` draws the line (`printer.rs`) but does not format these: its sizes
//! have two decimals and its durations are words ("3 minutes"), too long for a line of seven numbers.

use object_migration::progress::Snapshot;

/// `1.5 MiB`
pub(crate) fn bytes(n: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut n, mut tx) = (n, 0);
    while n >= 1024.0 && tx + 1 < UNITS.len() {
        n /= 1024.0;
        tx += 1;
    }
    if tx == 0 { format!("{n:.0} B") } else { format!("{n:.1} {}", UNITS[tx]) }
}

/// `1h02m`, `3m20s` or `5s`
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

/// One line: objects, bytes, rate, time left, retries, limit.
pub(crate) fn line(now: &Snapshot) -> String {
    let settled = now.settled.settled();
    let done = settled.bytes;
    let of = |total: u64, known: bool| if known { format!("/{total}") } else { String::new() };
    let total = now.precounted.bytes.max(done);
    let left = if now.precount_done && now.speed > 1.0 {
        format!("  {} left", duration((total - done) as f64 / now.speed))
    } else {
        String::new()
    };
    let share = if now.precount_done && total > 0 {
        format!("{:3.0}%  ", done as f64 * 100.0 / total as f64)
    } else {
        String::new()
    };
    format!(
        "{share}{}{} objects  {}  {}/s{left}  {} retries  {} in flight",
        settled.objects,
        of(now.precounted.objects.max(settled.objects), now.precount_done),
        bytes(done as f64),
        bytes(now.speed),
        now.retries,
        now.limit,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_and_time_units_are_readable() {
        assert_eq!(bytes(1536.0), "1.5 KiB");
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(
            (duration(5.0), duration(200.0), duration(3725.0)),
            ("5s".into(), "3m20s".into(), "1h02m".into())
        );
    }
}
