//! Tests of `ARCHITECTURE.md`: what it names exists, the glossary stays short, and module heads name the decision records.

use std::path::{Path, PathBuf};

/// Most words of the glossary (style.md).
const GLOSSARY_WORDS_MAX: usize = 25;
/// Fewest rows of a walk: a table that is not found must not pass.
const WALK_ROWS_MIN: usize = 15;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn architecture() -> String {
    std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

/// Where a path of the page is: below the root of the workspace or below `crates`.
fn find(path: &str) -> Option<PathBuf> {
    [root().join(path), root().join("crates").join(path)].into_iter().find(|p| p.exists())
}

/// Texts in backticks outside of code blocks.
fn code_spans(page: &str) -> Vec<&str> {
    let mut spans = Vec::new();
    let mut is_block = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_block = !is_block;
        } else if !is_block {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// True for a text that looks like a path of the repository.
fn is_path(span: &str) -> bool {
    let is_plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    is_plain && !span.starts_with('/') && (span.contains('/') || span.ends_with(".rs"))
}

/// `file: function` of a text.
fn file_and_function(span: &str) -> Option<(&str, &str)> {
    span.split_once(".rs: ").map(|(file, function)| (&span[..file.len() + 3], function))
}

/// The text of a section, up to the next heading of the same or a higher level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let begin = page.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("`{heading}` is missing")) + 1;
    let level = heading.chars().take_while(|c| *c == '#').count();
    let rest = &page[begin..];
    let ends = |line: &str| {
        let marks = line.chars().take_while(|c| *c == '#').count();
        marks > 0 && marks <= level
    };
    let mut length = 0;
    for (i, line) in rest.split_inclusive('\n').enumerate() {
        if i > 0 && ends(line) {
            break;
        }
        length += line.len();
    }
    &rest[..length]
}

/// Rows of the tables of a section, without their heads.
fn rows(section: &str) -> usize {
    let lines: Vec<&str> = section.lines().filter(|l| l.starts_with('|')).collect();
    let heads = lines.iter().filter(|l| l.starts_with("|---")).count();
    lines.len() - 2 * heads
}

#[test]
fn architecture_paths_exist() {
    let page = architecture();
    let links = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let paths: Vec<&str> = code_spans(&page)
        .into_iter()
        .map(|span| file_and_function(span).map_or(span, |(file, _)| file))
        .filter(|span| is_path(span))
        .chain(links.filter(|link| !link.contains("://")))
        .collect();
    assert!(paths.len() > 100, "only {} paths found in ARCHITECTURE.md", paths.len());
    let missing: Vec<&str> = paths.into_iter().filter(|path| find(path).is_none()).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names files that do not exist: {missing:?}");
}

#[test]
fn architecture_functions_exist() {
    let page = architecture();
    let mut missing = Vec::new();
    for (file, function) in code_spans(&page).into_iter().filter_map(file_and_function) {
        let text = find(file).and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let is_there = ["(", "<"].iter().any(|next| text.contains(&format!("fn {function}{next}")));
        if !is_there {
            missing.push(format!("{file}: {function}"));
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md names functions that do not exist: {missing:?}");
}

#[test]
fn architecture_has_three_walks() {
    let page = architecture();
    for heading in ["### A stop request", "### One object key", "### One Redis command"] {
        let found = rows(section(&page, heading));
        assert!(found >= WALK_ROWS_MIN, "`{heading}` has {found} rows");
    }
}

#[test]
fn architecture_glossary_stays_short() {
    let page = architecture();
    let found = rows(section(&page, "## Glossary"));
    assert!((1..=GLOSSARY_WORDS_MAX).contains(&found), "the glossary has {found} words");
}

#[test]
fn every_decision_is_named_in_a_module_head() {
    let sources = crate::bounds::source_files(&root()).unwrap();
    let heads: Vec<String> = sources
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
        })
        .collect();
    for entry in std::fs::read_dir(root().join("docs/adr")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let link = format!("docs/adr/{name}");
        assert!(heads.iter().any(|head| head.contains(&link)), "no module head names {link}");
    }
    for head in &heads {
        for rest in head.split("docs/adr/").skip(1) {
            let name = rest.split(['`', ')', ' ']).next().unwrap_or_default();
            assert!(root().join("docs/adr").join(name).exists(), "a module head names docs/adr/{name}");
        }
    }
}
