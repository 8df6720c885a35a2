//! Text of others in logs and on terminals: keys, messages of servers and paths of requests may contain control characters,
//! which would forge log lines or control a terminal.

use std::fmt::{self, Write as _};

/// Shows a text with control characters as escapes, `\n` and `\u{1b}`; everything else stays as it is.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a str);

/// Characters that no output contains: C0, DEL and C1, the line and paragraph separators, and characters that change
/// the direction of text (Unicode UAX #9).
fn is_control(c: char) -> bool {
    let bidi =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || bidi
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(is_control) {
            f.write_str(&rest[..at])?;
            let mut chars = rest[at..].chars();
            for escaped in chars.next().into_iter().flat_map(char::escape_debug) {
                f.write_char(escaped)?;
            }
            rest = chars.as_str();
        }
        f.write_str(rest)
    }
}

/// The beginning of a text, at most `max` bytes, without a broken character.
pub fn beginning(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_f37_control_characters_are_escaped() {
        for (text, shown) in [
            ("photos/日 1.jpg", "photos/日 1.jpg"),
            ("a\n2026 INFO forged", "a\\n2026 INFO forged"),
            ("\u{1b}[2J\u{7}\r\0", "\\u{1b}[2J\\u{7}\\r\\0"),
            ("\u{9b}31m\u{85}\u{7f}", "\\u{9b}31m\\u{85}\\u{7f}"),
            ("\u{2028}\u{2029}\u{202e}\u{2066}", "\\u{2028}\\u{2029}\\u{202e}\\u{2066}"),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!((beginning("日本", 5), beginning("ab", 5), beginning("", 0)), ("日", "ab", ""));
    }
}
