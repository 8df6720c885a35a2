//! `docs/benchmarks.md`: one part for each bench, each written by itself.

const PAGE: &str = "docs/benchmarks.md";
const HEAD: &str =
    "# Benchmarks\n\nWritten by `cargo x bench objects` and `cargo x bench redis`; do not edit.\n";
const PARTS: [&str; 2] = ["objects", "redis"];

fn marks(part: &str) -> (String, String) {
    (format!("<!-- {part} -->\n"), format!("<!-- end of {part} -->\n"))
}

/// Puts a part in its place and leaves the others as they are.
pub(crate) fn write(part: &str, text: &str) {
    let old = std::fs::read_to_string(PAGE).unwrap_or_default();
    let mut page = HEAD.to_owned();
    for name in PARTS {
        let (begin, end) = marks(name);
        let between = |page: &str| {
            let from = page.find(&begin)? + begin.len();
            Some(format!("{}\n", page[from..from + page[from..].find(&end)?].trim_end()))
        };
        let body = if name == part { Some(format!("\n{text}")) } else { between(&old) };
        if let Some(body) = body {
            page.push_str(&format!("\n{begin}{body}\n{end}"));
        }
    }
    std::fs::write(PAGE, page).expect("docs/benchmarks.md");
}
