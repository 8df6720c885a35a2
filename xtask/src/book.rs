//! Tests of the user documentation: `docs/` is an mdBook whose pages are all in `SUMMARY.md`, whose links and anchors resolve and do not
//! leave the book; the Chinese pages have the sections of the English ones; alert rules and dashboards use metrics that exist.
//!
//! Commands, configuration and policies in the pages are tested by `crates/cli/src/documentation_tests.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Fewest pages, links and codes: a folder that is not found must not pass.
const PAGES_MIN: usize = 30;
const LINKS_MIN: usize = 100;
const CODES_MIN: usize = 50;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Markdown files below a folder, relative to the root of the workspace.
fn pages(folder: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                found.insert(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found
}

/// Lines outside of code blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut is_block = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_block ^= is_fence;
        !is_block && !is_fence
    })
}

/// A line without its code spans, whose brackets are no links.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// Targets of links to files of the repository.
fn links(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(page) {
        for rest in without_code(line).split("](").skip(1) {
            let link = rest.split(')').next().unwrap_or_default();
            if !link.contains("://") && !link.starts_with("mailto:") {
                found.push(link.to_owned());
            }
        }
    }
    found
}

/// The anchor that mdBook and GitHub derive from a heading.
fn anchor_of(heading: &str) -> String {
    heading
        .trim()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn headings(page: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(page).filter_map(|line| {
        let level = line.chars().take_while(|c| *c == '#').count();
        (level > 0).then(|| line[level..].strip_prefix(' ').map(|text| (level, text)))?
    })
}

/// Anchors of a page; a repeated heading has a number.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    headings(page)
        .map(|(_, text)| {
            let anchor = anchor_of(text);
            let count = seen.entry(anchor.clone()).or_default();
            *count += 1;
            if *count == 1 { anchor } else { format!("{anchor}-{}", *count - 1) }
        })
        .collect()
}

/// Resolves `..` without reading the file system.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// Files and anchors that links of a page name and that do not exist.
fn dead_links(path: &Path, page: &str) -> Vec<String> {
    let mut dead = Vec::new();
    for link in links(page) {
        let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
        let target = match file {
            "" => path.to_owned(),
            file => normal(&path.parent().unwrap_or(Path::new("")).join(file)),
        };
        let is_dead = if !root().join(&target).exists() {
            true
        } else if anchor.is_empty() {
            false
        } else {
            !anchors(&read(&root().join(&target))).contains(anchor)
        };
        if is_dead {
            dead.push(format!("{}: {link}", path.display()));
        }
    }
    dead
}

#[test]
fn every_page_is_in_the_summary_once() {
    let summary = read(&root().join("docs/SUMMARY.md"));
    let listed = links(&summary);
    let mut seen = BTreeSet::new();
    for link in &listed {
        assert!(seen.insert(link.clone()), "docs/SUMMARY.md lists {link} twice");
    }
    let listed: BTreeSet<PathBuf> = listed.iter().map(|link| Path::new("docs").join(link)).collect();
    let mut pages = pages("docs");
    pages.remove(Path::new("docs/SUMMARY.md"));
    assert!(pages.len() >= PAGES_MIN, "only {} pages found", pages.len());
    let missing: Vec<_> = pages.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not list {missing:?}");
    let dead: Vec<_> = listed.difference(&pages).collect();
    assert!(dead.is_empty(), "docs/SUMMARY.md lists pages that do not exist: {dead:?}");
}

#[test]
fn every_link_and_anchor_resolves() {
    let mut files = pages("docs");
    files.extend(pages("examples"));
    for file in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "llms.txt"]
    {
        files.insert(file.into());
    }
    let texts: Vec<(&PathBuf, String)> = files.iter().map(|path| (path, read(&root().join(path)))).collect();
    let count: usize = texts.iter().map(|(_, text)| links(text).len()).sum();
    assert!(count >= LINKS_MIN, "only {count} links found");
    let dead: Vec<String> = texts.iter().flat_map(|(path, text)| dead_links(path, text)).collect();
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

/// A link to a file beside the book works on GitHub and is dead in the book.
#[test]
fn pages_link_into_the_book_only() {
    for path in pages("docs") {
        for link in links(&read(&root().join(&path))) {
            let file = link.split('#').next().unwrap_or_default();
            let target = normal(&path.parent().unwrap_or(Path::new("")).join(file));
            assert!(target.starts_with("docs"), "{}: {link} leaves the book", path.display());
        }
    }
}

#[test]
fn every_page_begins_with_one_title() {
    for path in pages("docs").into_iter().filter(|path| !path.ends_with("SUMMARY.md")) {
        let text = read(&root().join(&path));
        let titles = headings(&text).filter(|(level, _)| *level == 1).count();
        assert!(text.starts_with("# ") && titles == 1, "{} has {titles} titles", path.display());
    }
}

/// A Chinese page has the headings, tables and code blocks of its English page.
#[test]
fn chinese_pages_have_the_shape_of_the_english_ones() {
    let shape = |text: &str| {
        let levels: Vec<usize> = headings(text).map(|(level, _)| level).collect();
        let rows = text.lines().filter(|line| line.starts_with('|')).count();
        (levels, rows)
    };
    let commands = |text: &str| -> Vec<String> {
        let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        let lines = blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap_or_default());
        lines.map(|line| line.trim_end().to_owned()).filter(|line| !line.starts_with('#')).collect()
    };
    let chinese = pages("docs/zh");
    assert!(chinese.len() >= 5, "only {} Chinese pages", chinese.len());
    for path in chinese {
        let english = Path::new("docs").join(path.strip_prefix("docs/zh").unwrap());
        let (here, there) = (read(&root().join(&path)), read(&root().join(&english)));
        assert_eq!(shape(&here), shape(&there), "headings and rows of {}", path.display());
        assert_eq!(commands(&here), commands(&there), "commands of {}", path.display());
    }
}

/// Words in a text that are names of metrics.
fn metrics(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c))
        .filter(|w| w.starts_with("whimbrel_") && *w != "whimbrel_encoded")
        .map(str::to_owned)
        .collect()
}

#[test]
fn deployment_files_and_pages_name_existing_metrics_only() {
    let exposed = metrics(&read(&root().join("docs/generated/metrics.md")));
    assert!(exposed.len() >= 10, "{exposed:?}");
    let mut files: Vec<PathBuf> = pages("docs").into_iter().collect();
    for folder in ["deploy"] {
        let Ok(entries) = std::fs::read_dir(root().join(folder)) else { continue };
        files.extend(entries.map(|e| Path::new(folder).join(e.unwrap().file_name())));
    }
    for file in files {
        let used = metrics(&read(&root().join(&file)));
        let unknown: Vec<_> = used.difference(&exposed).collect();
        assert!(
            unknown.is_empty(),
            "{} names metrics that /metrics does not expose: {unknown:?}",
            file.display()
        );
    }
}

/// Codes of a family in a text, such as `TRF.0012`.
fn codes(text: &str, family: &str) -> BTreeSet<String> {
    text.split(&format!("{family}."))
        .skip(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>())
        .filter(|digits| digits.len() == 4)
        .collect()
}

/// Codes of requests and tasks are rows of the generated page; the others stand in the sources.
#[test]
fn pages_name_existing_error_codes_only() {
    let page = read(&root().join("docs/generated/error-codes.md"));
    let (requests, tasks) = page.split_once("## Codes of tasks").unwrap();
    let sources: String =
        crate::bounds::source_files(&root()).unwrap().iter().map(|path| read(path)).collect();
    let mut count = 0;
    for path in pages("docs").into_iter().filter(|path| !path.starts_with("docs/generated")) {
        let text = read(&root().join(&path));
        for (family, rows) in [("OMS", requests), ("TRF", tasks)] {
            for code in codes(&text, family) {
                count += 1;
                assert!(rows.contains(&format!("| {code} |")), "{}: {family}.{code}", path.display());
            }
        }
        for family in ["DCS", "APIGW", "WB"] {
            for code in codes(&text, family) {
                count += 1;
                assert!(sources.contains(&format!("{family}.{code}")), "{}: {family}.{code}", path.display());
            }
        }
    }
    assert!(count >= CODES_MIN, "only {count} codes found");
}
