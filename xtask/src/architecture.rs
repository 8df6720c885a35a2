//! Tests of `ARCHITECTURE.md` and `docs/threat-model.md`: files, functions, names and tests that they name exist. The glossary
//! stays short, the table of crates is that of the manifests, and module heads name the decision records.

use std::path::{Path, PathBuf};

/// Most words of the glossary (style.md).
const GLOSSARY_WORDS_MAX: usize = 25;
/// Fewest rows of a walk: a table that is not found must not pass.
const WALK_ROWS_MIN: usize = 15;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Pages whose names are checked, and the least number of paths and of names that each must have.
const PAGES: [(&str, usize, usize); 2] = [("ARCHITECTURE.md", 100, 30), ("docs/threat-model.md", 25, 20)];

fn page(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn architecture() -> String {
    page("ARCHITECTURE.md")
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

/// Names and the files that define them, from the form `` `NAME` in `FILE` ``; also `` `A` and `B` in `FILE` ``,
/// `` `A`, `B` in `FILE` `` and `` `NAME` (`FILE`) ``.
fn names_in_files(page: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for line in page.lines() {
        let pieces: Vec<&str> = line.split('`').collect();
        let mut names = Vec::new();
        for (i, span) in pieces.iter().enumerate().skip(1).step_by(2) {
            let before = pieces[i - 1].trim();
            if is_path(span) {
                if before == "in" || before == "(" {
                    found.extend(names.drain(..).map(|name| (name, *span)));
                }
                names.clear();
                continue;
            }
            if before != "," && before != "and" {
                names.clear();
            }
            let last = span.rsplit("::").next().unwrap_or_default();
            let last = last.split(['(', ' ']).next().unwrap_or_default();
            if !last.is_empty() && last.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                names.push(last);
            }
        }
    }
    found
}

/// True where a text has the name as a word.
fn has_word(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(is_word) && !text[at + name.len()..].starts_with(is_word))
}

/// The text of a file, or of all files of a folder.
fn text_of(path: &Path) -> String {
    if path.is_file() {
        return std::fs::read_to_string(path).unwrap_or_default();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| text_of(&entry.path())).collect()
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
fn paths_in_the_pages_exist() {
    for (name, paths_min, _) in PAGES {
        let page = page(name);
        let links = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let paths: Vec<&str> = code_spans(&page)
            .into_iter()
            .map(|span| file_and_function(span).map_or(span, |(file, _)| file))
            .filter(|span| is_path(span))
            .chain(links.filter(|link| !link.contains("://")))
            .collect();
        assert!(paths.len() >= paths_min, "only {} paths found in {name}", paths.len());
        let missing: Vec<&str> = paths.into_iter().filter(|path| find(path).is_none()).collect();
        assert!(missing.is_empty(), "{name} names files that do not exist: {missing:?}");
    }
}

#[test]
fn functions_and_names_in_the_pages_exist() {
    for (name, _, names_min) in PAGES {
        let page = page(name);
        let mut missing = Vec::new();
        for (file, function) in code_spans(&page).into_iter().filter_map(file_and_function) {
            let text = find(file).and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
            if !["(", "<"].iter().any(|next| text.contains(&format!("fn {function}{next}"))) {
                missing.push(format!("{file}: {function}"));
            }
        }
        let named = names_in_files(&page);
        assert!(named.len() >= names_min, "only {} names with a file found in {name}", named.len());
        for (word, file) in named {
            if !find(file).is_some_and(|path| has_word(&text_of(&path), word)) {
                missing.push(format!("`{word}` in `{file}`"));
            }
        }
        assert!(missing.is_empty(), "{name} names what does not exist: {missing:#?}");
    }
}

#[test]
fn tests_in_the_threat_model_exist() {
    let page = page("docs/threat-model.md");
    let sources = text_of(&root().join("crates"));
    let tests: Vec<&str> = code_spans(&page)
        .into_iter()
        .filter(|span| span.starts_with("sec_f") && !span.contains('…'))
        .collect();
    assert!(tests.len() > 50, "only {} tests found in docs/threat-model.md", tests.len());
    let missing: Vec<&str> =
        tests.into_iter().filter(|test| !sources.contains(&format!("fn {test}("))).collect();
    assert!(missing.is_empty(), "docs/threat-model.md names tests that do not exist: {missing:#?}");
}

#[test]
fn names_are_found_before_their_files() {
    let page = "`A` and `b` in `x/y.rs`, `C` (`x/z.rs`); `D` of `x/w.rs`, `E::f(g)` in `x/y.rs`, `h i`";
    assert_eq!(names_in_files(page), [("A", "x/y.rs"), ("b", "x/y.rs"), ("C", "x/z.rs"), ("f", "x/y.rs")]);
    assert!(has_word("fn a_b()", "a_b") && !has_word("fn a_bc()", "a_b") && !has_word("xa_b", "a_b"));
}

#[test]
fn crate_table_is_that_of_the_manifests() {
    let page = architecture();
    let crates: Vec<String> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let rows = section(&page, "## Crates").lines().filter(|line| line.starts_with("| `"));
    let mut listed = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        let shown = cells[cells.len() - 2]
            .split('(')
            .map(|part| part.split_once(')').map_or(part, |(_, rest)| rest))
            .collect::<String>();
        let mut shown: Vec<&str> = shown.split(',').map(str::trim).filter(|word| *word != "–").collect();
        let manifest = std::fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest
            .split("\n[dependencies]")
            .nth(1)
            .unwrap_or_default()
            .split("\n[")
            .next()
            .unwrap_or_default();
        let mut used: Vec<&str> = dependencies
            .lines()
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|word| crates.iter().any(|name| name == word))
            .collect();
        shown.sort_unstable();
        used.sort_unstable();
        assert_eq!(shown, used, "ARCHITECTURE.md against crates/{name}/Cargo.toml");
        listed.push(name);
    }
    let unlisted: Vec<&String> = crates.iter().filter(|name| !listed.contains(&name.as_str())).collect();
    assert!(unlisted.is_empty(), "crates without a row in ARCHITECTURE.md: {unlisted:?}");
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
