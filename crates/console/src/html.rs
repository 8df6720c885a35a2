//! Small pieces of HTML that templates put in as they are. Every text in them is escaped here.

use std::fmt::Write as _;

use model::printable::Printable;
use model::task::Visible;

use crate::text::Text;

/// A text for HTML, with control characters as escapes.
pub(crate) fn escape(text: &str) -> String {
    let shown = Printable(text).to_string();
    let mut out = String::with_capacity(shown.len());
    for c in shown.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A text with control characters as escapes, for templates, which escape what HTML needs.
pub(crate) fn plain(text: &str) -> String {
    Printable(text).to_string()
}

/// Characters of a place that a list shows; the style cuts off what is longer.
const PLACE_CHARS: usize = 30;

/// A `title` attribute for a text that a list may cut off.
pub(crate) fn long_title(text: &str) -> String {
    if text.chars().count() < PLACE_CHARS { String::new() } else { format!(r#" title="{}""#, escape(text)) }
}

/// A text in which names between backticks are set as code.
pub(crate) fn with_code(text: &str) -> String {
    let mut out = String::new();
    let mut parts = text.split('`');
    out.push_str(&escape(parts.next().unwrap_or_default()));
    let mut is_code = true;
    let mut rest = parts.peekable();
    while let Some(part) = rest.next() {
        match (is_code, rest.peek().is_some()) {
            (true, true) => {
                let _ = write!(out, "<code>{}</code>", escape(part));
            }
            // A backtick that nothing closes.
            (true, false) => {
                let _ = write!(out, "`{}", escape(part));
            }
            (false, _) => out.push_str(&escape(part)),
        }
        is_code = !is_code;
    }
    out
}

/// An icon of the sprite.
pub(crate) fn icon(name: &'static str) -> String {
    format!(r##"<svg class="i" aria-hidden="true"><use href="#i-{name}"/></svg>"##)
}

/// An icon in a colour of the style: `ok`, `warn`, `bad` or `run`.
pub(crate) fn tinted(name: &'static str, tint: &'static str) -> String {
    format!(r##"<svg class="i t-{tint}" aria-hidden="true"><use href="#i-{name}"/></svg>"##)
}

/// A state as icon and word.
pub(crate) fn badge(class: &'static str, name: &'static str, word: &str) -> String {
    format!(r#"<span class="badge {class}">{}{}</span>"#, icon(name), escape(word))
}

/// The state of a task.
pub(crate) fn task_badge(t: Text, state: Visible) -> String {
    let (class, name) = match state {
        Visible::Running => ("s-run", "play"),
        Visible::Waiting => ("", "clock"),
        Visible::Retrying => ("s-warn", "retry"),
        Visible::Pausing => ("s-run", "pause"),
        Visible::Paused => ("", "pause"),
        Visible::Failed => ("s-bad", "bad"),
        Visible::Succeeded => ("s-ok", "check"),
    };
    badge(class, name, t.state(state))
}

/// A bar of parts of one, each with its class.
pub(crate) fn bar(size: &'static str, label: &str, parts: &[(f64, &'static str)]) -> String {
    let mut out = format!(r#"<svg class="bar {size}" role="img" aria-label="{}">"#, escape(label));
    let mut x = 0.0;
    for (share, class) in parts {
        // What is there is seen, however small it is.
        let width = if *share > 0.0 { (share * 100.0).max(0.35) } else { continue };
        let width = width.min(100.0 - x).max(0.0);
        let _ = write!(out, r#"<rect x="{x:.2}%" width="{width:.2}%" height="100%" class="{class}"/>"#);
        x += width;
    }
    out.push_str("</svg>");
    out
}

/// A square of a legend.
pub(crate) fn swatch(class: &'static str) -> String {
    format!(r#"<svg class="sw" aria-hidden="true"><rect width="10" height="10" class="{class}"/></svg>"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_escaped() {
        let hostile = "<img src=x onerror=alert(1)>\"'&\u{1b}[2J\u{202e}";
        let shown = "&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;\\u{1b}[2J\\u{202e}";
        assert_eq!(escape(hostile), shown);
        assert_eq!(
            with_code(&format!("cannot write `{hostile}`")),
            format!("cannot write <code>{shown}</code>")
        );
        assert_eq!(with_code("a `b` c `<d`"), "a <code>b</code> c <code>&lt;d</code>");
        assert_eq!(with_code("a ` b"), "a ` b");
        assert_eq!(with_code("`"), "`");
        assert_eq!(with_code(""), "");
        assert!(!bar("sm", "<b>", &[]).contains("<b>"));
        assert_eq!(long_title("short\">"), "");
        assert!(long_title(&"\"><img>".repeat(9)).starts_with(" title=\"&quot;&gt;&lt;img&gt;"));
    }

    #[test]
    fn bar_never_exceeds_its_width() {
        let bar = bar("", "x", &[(0.999, "a"), (0.0001, "b"), (0.5, "c")]);
        assert!(bar.contains(r#"x="99.90%" width="0.10%""#), "{bar}");
        assert!(bar.contains(r#"x="100.00%" width="0.00%""#), "{bar}");
    }
}
