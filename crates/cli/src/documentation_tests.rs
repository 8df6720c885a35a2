//! Tests of the user documentation against this program: commands parse, configurations are accepted, policies are JSON.
//!
//! Links and the structure of the book are tested by `xtask/src/book.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::args::Cli;

/// Fewest of each kind: an extraction that finds nothing must not pass.
const COMMANDS_MIN: usize = 60;
const CONFIGURATIONS_MIN: usize = 10;
const POLICIES_MIN: usize = 5;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Pages, examples and the README, as (name, text). Generated pages and decision records show no commands to run.
fn pages() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("docs"), root().join("examples"), root().join("deploy")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !["generated", "adr"].contains(&name.as_str()) {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    for name in ["README.md", "CONTRIBUTING.md", "llms.txt"] {
        found.push((name.to_owned(), std::fs::read_to_string(root().join(name)).unwrap()));
    }
    found
}

/// Code blocks of a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let (mut found, mut current): (Vec<String>, Option<String>) = (Vec::new(), None);
    let mut is_other = false;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut current) {
            (Some(_), Some(_)) => found.extend(current.take()),
            (Some(_), None) if is_other => is_other = false,
            (Some(tag), None) if tag.trim() == language => current = Some(String::new()),
            (Some(_), None) => is_other = true,
            (None, Some(text)) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// Texts in backticks outside of code blocks. In the tables of pages about other tools the first column is theirs.
fn spans(name: &str, page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_block = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_block = !is_block;
        } else if !is_block {
            let is_foreign = name.contains("/from-") && line.starts_with('|');
            let line = if is_foreign { line.splitn(3, '|').nth(2).unwrap_or_default() } else { line };
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The simple commands of a shell text, as words: as far as pages use the shell. Variables read as `1`.
fn simple_commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let mut commands = vec![vec![]];
    let (mut word, mut is_word, mut quote, mut is_target) = (String::new(), false, None, false);
    let mut chars = text.chars().peekable();
    let end =
        |word: &mut String, is_word: &mut bool, is_target: &mut bool, commands: &mut Vec<Vec<String>>| {
            if std::mem::take(is_word) {
                let word = std::mem::take(word);
                if !std::mem::take(is_target) {
                    commands.last_mut().unwrap().push(word);
                }
            }
        };
    while let Some(c) = chars.next() {
        let variable = c == '$' && quote != Some('\'') && chars.peek().is_some_and(|n| *n != '(');
        match (c, quote) {
            _ if variable => {
                while chars.peek().is_some_and(|n| n.is_alphanumeric() || matches!(n, '_' | '{' | '}')) {
                    chars.next();
                }
                word.push('1');
                is_word = true;
            }
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                is_word = true;
            }
            ('#', None) if !is_word => {
                while chars.peek().is_some_and(|n| *n != '\n') {
                    chars.next();
                }
            }
            ('>' | '<', None) => {
                if word.parse::<u8>().is_ok() {
                    (word, is_word) = (String::new(), false);
                }
                end(&mut word, &mut is_word, &mut is_target, &mut commands);
                is_target = true;
            }
            (' ' | '\t', None) => end(&mut word, &mut is_word, &mut is_target, &mut commands),
            ('\n' | ';' | '|' | '&' | '(' | ')', None) => {
                end(&mut word, &mut is_word, &mut is_target, &mut commands);
                is_target = false;
                commands.push(vec![]);
            }
            (c, None) => {
                word.push(c);
                is_word = true;
            }
        }
    }
    end(&mut word, &mut is_word, &mut is_target, &mut commands);
    commands
}

/// The arguments of a command that runs this program.
fn whimbrel(mut words: &[String]) -> Option<&[String]> {
    let is_assignment = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
    };
    if words.first().is_some_and(|w| w == "sudo") {
        words = words.get(if words.get(1).is_some_and(|w| w == "-u") { 3 } else { 1 }..)?;
    }
    let at = words.iter().position(|w| !is_assignment(w))?;
    let words = &words[at..];
    words.first()?.split('/').next_back().filter(|name| *name == "whimbrel").map(|_| words)
}

fn is_help(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

#[test]
fn every_command_in_a_code_block_parses() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (name, page) in pages() {
        for block in blocks(&page, "sh") {
            for words in simple_commands(&block) {
                let Some(words) = whimbrel(&words) else { continue };
                count += 1;
                if let Err(e) = Cli::try_parse_from(words)
                    && !is_help(e.kind())
                {
                    wrong.push(format!("{name}: {}\n{e}", words.join(" ")));
                }
            }
        }
    }
    assert!(count >= COMMANDS_MIN, "only {count} commands found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Commands that the text names are abbreviated; their subcommands and flags exist.
#[test]
fn every_command_in_the_text_exists() {
    let mut wrong = Vec::new();
    for (name, page) in pages() {
        for span in spans(&name, &page).iter().filter(|s| s.starts_with("whimbrel ")) {
            let Err(e) = Cli::try_parse_from(span.split_whitespace().filter(|w| *w != "…")) else {
                continue;
            };
            let is_unknown = matches!(
                e.kind(),
                ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::InvalidValue
            );
            if is_unknown {
                wrong.push(format!("{name}: {span}\n{e}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn flags(command: &clap::Command, found: &mut BTreeSet<String>) {
    found.extend(command.get_arguments().filter_map(|a| a.get_long()).map(|long| format!("--{long}")));
    command.get_subcommands().for_each(|sub| flags(sub, found));
}

#[test]
fn every_flag_in_the_text_exists() {
    let mut known = BTreeSet::from(["--help".to_owned(), "--version".to_owned()]);
    flags(&Cli::command(), &mut known);
    let mut wrong = BTreeSet::new();
    for (name, page) in pages() {
        for span in spans(&name, &page).iter().filter(|s| s.starts_with("--")) {
            let flag = span.split([' ', '=']).next().unwrap_or_default();
            if !known.contains(flag) {
                wrong.insert(format!("{name}: {span}"));
            }
        }
    }
    assert!(wrong.is_empty(), "flags that no command has: {wrong:?}");
}

#[test]
fn every_configuration_is_accepted() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (name, page) in pages() {
        for block in blocks(&page, "toml") {
            count += 1;
            if let Err(e) = config::parse(&block, &BTreeMap::new()) {
                wrong.push(format!("{name}: {}\n{block}", e.message));
            }
        }
    }
    assert!(count >= CONFIGURATIONS_MIN, "only {count} configurations found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `limits.memory` and the like, and variables such as `WHIMBREL_LIMITS__MEMORY`.
#[test]
fn every_setting_in_the_text_exists() {
    let mut wrong = BTreeSet::new();
    for (name, page) in pages() {
        for span in spans(&name, &page) {
            let lower = span.to_ascii_lowercase();
            let key = lower.strip_prefix("whimbrel_").map_or(span.clone(), |rest| rest.replace("__", "."));
            let Some((section, key)) = key.split_once('.') else { continue };
            let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if !is_key || !["limits", "tls", "audit", "cutover"].contains(&section) {
                continue;
            }
            let found = config::parse(&format!("[{section}]\n{key} = 0\n"), &BTreeMap::new());
            if found.is_err_and(|e| e.message.starts_with("unknown key")) {
                wrong.insert(format!("{name}: {span}"));
            }
        }
    }
    assert!(wrong.is_empty(), "settings that do not exist: {wrong:?}");
}

#[test]
fn every_policy_is_json() {
    let mut count = 0;
    for (name, page) in pages() {
        for block in blocks(&page, "json") {
            count += 1;
            serde_json::from_str::<serde_json::Value>(&block)
                .unwrap_or_else(|e| panic!("{name}: {e}\n{block}"));
        }
    }
    assert!(count >= POLICIES_MIN, "only {count} JSON blocks found");
}

/// Grafana imports a dashboard only as a whole: each panel needs a query.
#[test]
fn dashboard_panels_have_queries() {
    let text = std::fs::read_to_string(root().join("deploy/dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(!panels.is_empty());
    for panel in panels {
        let query = panel["targets"][0]["expr"].as_str().unwrap_or_default();
        assert!(query.contains("whimbrel_"), "panel `{}` has no query", panel["title"]);
    }
}

#[test]
fn shell_text_is_split_into_commands() {
    let text = "export A=1 B=2   # whimbrel x\nid=$(whimbrel task create a:b c:d)\nwhimbrel copy 's3://a b' \\\n  d > out 2> err && ls | sort\n";
    let found: Vec<_> =
        simple_commands(text).iter().filter_map(|w| whimbrel(w).map(|w| w.join(","))).collect();
    assert_eq!(found, ["whimbrel,task,create,a:b,c:d", "whimbrel,copy,s3://a b,d"]);
}
