//! `docs/generated/bounds.md`: every numeric constant of the sources, with its value, its unit and its place.
//!
//! The sources are read as text, file by file in the order of their paths, so the page depends on nothing but them. Tests and the
//! crates that only tests and developers use are left out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Crates that are no part of the service.
const SKIPPED_CRATES: [&str; 2] = ["bench", "testkit"];
/// Constants that name a unit, not a bound.
const UNIT_NAMES: [&str; 5] = ["MIB", "GIB", "MINUTE_MS", "HOUR_MS", "DAY_MS"];
/// Words of a type that make its constants numeric.
const NUMERIC: [&str; 15] = [
    "Duration",
    "RangeInclusive",
    "Range",
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "usize",
    "i8",
    "i16",
    "i32",
    "i64",
    "f32",
    "f64",
];

/// One constant as it stands in the source.
#[derive(Debug, PartialEq, Eq)]
struct Constant {
    name: String,
    kind: String,
    expression: String,
    /// First sentence of its doc comment.
    doc: String,
}

/// The page for the workspace at `root`.
pub(crate) fn page(root: &Path) -> Result<String, String> {
    let mut text = String::from(
        "# Timings and bounds\n\nWritten by `cargo x gen`; do not edit. Every numeric constant of the service, by file. \
         Ki, Mi and Gi are powers of 1024.\n\n| name | value | unit | where | what |\n|---|---|---|---|---|\n",
    );
    for path in source_files(root)? {
        let source = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let place = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        let constants = constants(&source);
        let known: HashMap<&str, &str> =
            constants.iter().map(|c| (c.name.as_str(), c.expression.as_str())).collect();
        for c in constants.iter().filter(|c| !UNIT_NAMES.contains(&c.name.as_str())) {
            let (value, unit) = value_and_unit(c, &known);
            let doc = c.doc.replace('|', "\\|");
            text.push_str(&format!("| `{}` | {value} | {unit} | `{place}` | {doc} |\n", c.name));
        }
    }
    Ok(text)
}

/// Source files of the service below `crates/*/src`, sorted; test modules in files of their own are left out.
pub(crate) fn source_files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in sorted_entries(&root.join("crates"))? {
        let skipped = entry.file_name().is_some_and(|n| SKIPPED_CRATES.iter().any(|s| *s == n));
        if !skipped && entry.join("src").is_dir() {
            collect_sources(&entry.join("src"), &mut found)?;
        }
    }
    found.sort();
    Ok(found)
}

fn collect_sources(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    for path in sorted_entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_test = name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs");
        if path.is_dir() && !is_test {
            collect_sources(&path, found)?;
        } else if name.ends_with(".rs") && !is_test {
            found.push(path);
        }
    }
    Ok(())
}

fn sorted_entries(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", dir.display());
    let entries = std::fs::read_dir(dir).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|e| e.path()).collect();
    paths.sort();
    Ok(paths)
}

/// Numeric constants of a source text outside of its test modules, in order.
fn constants(source: &str) -> Vec<Constant> {
    let (mut found, mut doc) = (Vec::new(), Vec::new());
    let mut lines = without_test_modules(source).into_iter();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim());
            continue;
        }
        if line.starts_with("#[") {
            continue;
        }
        if let Some((name, rest)) = constant_start(line) {
            let mut rest = rest.to_owned();
            while !rest.ends_with(';') {
                let Some(more) = lines.next() else { break };
                rest = format!("{} {}", rest.trim_end(), more.trim());
            }
            let parts = rest.trim_end_matches(';').split_once(" = ");
            if let Some((kind, expression)) = parts.filter(|(kind, _)| is_numeric(kind)) {
                found.push(Constant {
                    name: name.to_owned(),
                    kind: kind.trim().to_owned(),
                    expression: expression.trim().to_owned(),
                    doc: first_sentence(&doc.join(" ")),
                });
            }
        }
        doc.clear();
    }
    found
}

/// Lines of a source text without its modules for tests.
fn without_test_modules(source: &str) -> Vec<&str> {
    let (mut kept, mut lines) = (Vec::new(), source.lines().peekable());
    while let Some(line) = lines.next() {
        let is_module = lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        if line == "#[cfg(test)]" && is_module {
            while lines.next().is_some_and(|inside| inside != "}") {}
        } else {
            kept.push(line);
        }
    }
    kept
}

/// The name of the constant that a line declares, and the rest of the line behind `NAME: `.
fn constant_start(line: &str) -> Option<(&str, &str)> {
    let after_visibility = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => line,
    };
    let (name, rest) = after_visibility.strip_prefix("const ")?.split_once(": ")?;
    let is_name = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    is_name.then_some((name, rest))
}

/// True for a number, a duration, and pairs or intervals of them.
fn is_numeric(kind: &str) -> bool {
    let kind = kind.replace("std::time::", "").replace("std::ops::", "");
    !kind.contains(['&', '['])
        && kind
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|w| !w.is_empty())
            .all(|w| NUMERIC.contains(&w))
}

/// The first sentence of a doc comment, with links as plain text.
fn first_sentence(doc: &str) -> String {
    let end = doc.find(". ").map_or(doc.len(), |at| at + 1);
    doc[..end].replace("[`", "`").replace("`]", "`")
}

/// How a value is shown, and its unit: that of a duration, or what the constant's name or doc comment says.
fn value_and_unit(c: &Constant, known: &HashMap<&str, &str>) -> (String, String) {
    if c.kind.ends_with("Duration") {
        for (call, unit) in [("from_secs(", "s"), ("from_millis(", "ms"), ("from_micros(", "µs")] {
            let argument = c.expression.split_once(call).and_then(|(_, rest)| rest.strip_suffix(')'));
            if let Some(number) = argument.and_then(|text| evaluate(text, known)) {
                return (grouped(number), unit.to_owned());
            }
        }
        return (format!("`{}`", c.expression), String::new());
    }
    let unit = unit_of_name(&c.name).or_else(|| unit_of_doc(&c.doc).map(str::to_owned)).unwrap_or_default();
    let Some(number) = evaluate(&c.expression, known) else {
        return (format!("`{}`", c.expression), unit);
    };
    if c.expression.contains("<<") || unit.starts_with("bytes") {
        return (with_binary_prefix(number), unit);
    }
    (grouped(number), unit)
}

/// The unit that the words of a name tell: `LEASE_MS`, `WINDOW_KEYS`, `MAX_CONNECTIONS_PER_ADDRESS`.
fn unit_of_name(name: &str) -> Option<String> {
    let words: Vec<&str> = name.split('_').collect();
    let unit = words.iter().find_map(|word| match *word {
        "MS" | "S" => Some(word.to_ascii_lowercase()),
        "ADDRESS" | "LOSS" => None,
        "SECONDS" => Some("s".to_owned()),
        word if word.len() > 2 && word.ends_with('S') => Some(word.to_ascii_lowercase()),
        _ => None,
    })?;
    if words.ends_with(&["PER", "S"]) { Some(format!("{unit}/s")) } else { Some(unit) }
}

/// The unit that a doc comment tells: `Longest line, bytes.`, `Bytes sorted in memory at once.`
fn unit_of_doc(doc: &str) -> Option<&'static str> {
    let says = |word: &str| doc.contains(&format!(", {word}"));
    match doc {
        _ if doc.starts_with("Bytes ") || says("bytes") => Some("bytes"),
        _ if says("milliseconds") => Some("ms"),
        _ if says("seconds") => Some("s"),
        _ => None,
    }
}

/// The value of an integer expression of literals, constants of the same file, `+`, `-`, `*` and `<<`.
fn evaluate(expression: &str, known: &HashMap<&str, &str>) -> Option<u128> {
    let expression = expression.trim();
    // The operators from the weakest to the strongest; each splits at its last occurrence.
    for operator in [" << ", " + ", " - ", " * "] {
        if let Some((left, right)) = expression.rsplit_once(operator) {
            let (left, right) = (evaluate(left, known)?, evaluate(right, known)?);
            return match operator {
                " << " => left.checked_shl(u32::try_from(right).ok()?),
                " + " => left.checked_add(right),
                " - " => left.checked_sub(right),
                _ => left.checked_mul(right),
            };
        }
    }
    let digits = expression.replace('_', "");
    let literal = match digits.strip_prefix("0x") {
        Some(hex) => u128::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    };
    // A constant cannot refer to itself, so this ends.
    literal.or_else(|| evaluate(known.get(expression)?, known))
}

/// Digits in groups of three.
fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The number as a multiple of a power of 1024 where it is one.
fn with_binary_prefix(number: u128) -> String {
    for (shift, prefix) in [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
        if number > 0 && number.is_multiple_of(1 << shift) {
            return format!("{} {prefix}", grouped(number >> shift));
        }
    }
    grouped(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root of the workspace.
    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }

    fn shown(source: &str) -> Vec<(String, String, String)> {
        let all = constants(source);
        let known = all.iter().map(|c| (c.name.as_str(), c.expression.as_str())).collect();
        all.iter()
            .map(|c| {
                let (value, unit) = value_and_unit(c, &known);
                (c.name.clone(), value, unit)
            })
            .collect()
    }

    #[test]
    fn bounds_page_is_up_to_date() {
        let have = std::fs::read_to_string(root().join(crate::generate::BOUNDS)).unwrap_or_default();
        assert!(page(&root()).unwrap() == have, "docs/generated/bounds.md is out of date; run `cargo x gen`");
    }

    /// Sources that are being rewritten; their constants get descriptions with the rewrite.
    const WITHOUT_DESCRIPTIONS: [&str; 2] =
        ["`crates/storage/src/fs/", "`crates/object_migration/src/transfer/plan.rs`"];

    #[test]
    fn every_bound_has_a_description() {
        let page = page(&root()).unwrap();
        let is_empty = |row: &&str| row.starts_with("| `") && row.ends_with("|  |");
        let is_exempt = |row: &&str| WITHOUT_DESCRIPTIONS.iter().any(|path| row.contains(path));
        let empty: Vec<&str> = page.lines().filter(is_empty).filter(|row| !is_exempt(row)).collect();
        assert!(empty.is_empty(), "write a doc comment above each of these constants: {empty:#?}");
    }

    #[test]
    fn unit_is_not_taken_from_another_number_of_the_comment() {
        let source = "/// Requests at once: one holds its permit for 10 seconds.\nconst MAX_CONCURRENT: u64 = 32;\n\
            /// Longest wait, seconds.\nconst WAIT: u64 = 3;\n";
        let units: Vec<String> = shown(source).into_iter().map(|(_, _, unit)| unit).collect();
        assert_eq!(units, ["", "s"]);
    }

    #[test]
    fn constants_have_values_units_and_docs() {
        let source = "/// How long to wait. More text.\npub(crate) const STOP_GRACE: Duration = Duration::from_millis(1_300);\n\
            const MIB: u64 = 1 << 20;\nconst SINGLE_MAX_BYTES: u64 =\n    16 * MIB;\npub const WINDOW_KEYS: usize = 2048;\n\
            const MIN_BYTES_PER_S: u64 = 256 << 10;\nconst LEASE_MS: i64 = 5 * 60 * 1000;\nconst NAMES: [&str; 1] = [\"a\"];\n";
        let of = |name: &str, value: &str, unit: &str| (name.to_owned(), value.to_owned(), unit.to_owned());
        assert_eq!(
            shown(source),
            [
                of("STOP_GRACE", "1,300", "ms"),
                of("MIB", "1 Mi", ""),
                of("SINGLE_MAX_BYTES", "16 Mi", "bytes"),
                of("WINDOW_KEYS", "2,048", "keys"),
                of("MIN_BYTES_PER_S", "256 Ki", "bytes/s"),
                of("LEASE_MS", "300,000", "ms"),
            ]
        );
        assert_eq!(constants(source)[0].doc, "How long to wait.");
    }

    #[test]
    fn constants_of_test_modules_are_left_out() {
        let source = "#[cfg(test)]\nmod tests {\n    const NOW: i64 = 1;\n}\nconst LATER_MS: i64 = 2;\n";
        assert_eq!(constants(source).iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["LATER_MS"]);
    }
}
