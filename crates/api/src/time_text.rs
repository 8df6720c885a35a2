//! Times as text.

/// `YYYY-MM-DDTHH:MM:SS.ffffffZ`: six digits of fraction, even when they are zero.
pub(crate) fn time_text(ms: i64) -> String {
    let t = model::instant::utc(ms);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        ms.rem_euclid(1000) * 1000
    )
}
