//! Sizes as people write them: `512MiB`, `1GB`, `4096`.

/// Bytes of a size with an optional unit (powers of 1024 with `i`, of 1000 without); none if malformed.
pub fn bytes_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, tx) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor: u64 = match tx.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (bytes.is_finite() && (0.0..9.0e18).contains(&bytes)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::bytes_of;

    #[test]
    fn sizes_are_parsed_with_units() {
        for (text, want) in [
            ("512MiB", Some(512 << 20)),
            ("1.5k", Some(1536)),
            ("2GB", Some(2_000_000_000)),
            ("7", Some(7)),
            ("x", None),
            ("5 parsecs", None),
            ("-1", None),
        ] {
            assert_eq!(bytes_of(text), want, "{text}");
        }
    }
}
