//! `whimbrel(1)`, from the page of the command line that `cargo x gen` writes.

/// The manual page of a version. `page` is the Markdown page: a heading for each command, its help in a block.
pub(crate) fn page(page: &str, version: &str) -> String {
    let mut text = format!(
        ".TH WHIMBREL 1 \"\" \"whimbrel {version}\" \"\"\n.SH NAME\nwhimbrel \\- migrates object storage and Redis\n.SH COMMANDS\n"
    );
    let mut is_help = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_help = !is_help;
            text.push_str(if is_help { ".nf\n" } else { ".fi\n" });
        } else if is_help {
            text.push_str(&escape(line));
            text.push('\n');
        } else if let Some(command) = line.strip_prefix("## ") {
            text.push_str(&format!(".SS \"{}\"\n", escape(command.trim_matches('`'))));
        }
    }
    text
}

/// A line as text: no escapes, and no request at its beginning.
fn escape(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    #[test]
    fn help_is_kept_line_by_line() {
        let text = super::page("# Title\n\n## `whimbrel copy`\n\n```text\n.x a\\b --c\n```\n", "1.2.3");
        assert!(text.ends_with(".SS \"whimbrel copy\"\n.nf\n\\&.x a\\eb \\-\\-c\n.fi\n"), "{text}");
    }
}
