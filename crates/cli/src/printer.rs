//! The only place that prints: results to stdout, everything else to stderr.
#![expect(clippy::print_stderr, reason = "this is the printer")]

use std::io::{IsTerminal, Write};

/// What the user wants to see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    quiet: bool,
    terminal: bool,
    colour: bool,
}

impl Printer {
    /// By flags, terminal and `NO_COLOR`.
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { quiet, terminal, colour: terminal && std::env::var_os("NO_COLOR").is_none() }
    }

    /// True when a progress bar can be drawn.
    pub(crate) fn draws(&self) -> bool {
        self.terminal && !self.quiet
    }

    /// A result.
    pub(crate) fn result(&self, text: &str) {
        // A closed pipe is the reader's choice, not an error.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// Asks on the terminal; without one the answer is no.
    pub(crate) fn confirms(&self, question: &str) -> bool {
        if !self.terminal || !std::io::stdin().is_terminal() {
            return false;
        }
        eprint!("{question} [y/N] ");
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    /// A line for people.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.clear_line();
            eprintln!("{text}");
        }
    }

    /// An error, with what to do about it.
    pub(crate) fn error(&self, text: &str, hint: Option<&str>) {
        self.clear_line();
        let (on, off) = if self.colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        // Text of other parties must not control the terminal.
        let safe: String =
            text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
        eprintln!("{on}error:{off} {safe}");
        if let Some(hint) = hint {
            eprintln!("\nhint: {hint}");
        }
    }

    /// Draws over the current line; only on a terminal.
    pub(crate) fn progress(&self, text: &str) {
        if self.draws() {
            eprint!("\r\x1b[2K{text}");
            let _ = std::io::stderr().flush();
        }
    }

    fn clear_line(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }
}

/// A key as it may stand on a terminal: control characters cannot act there.
pub(crate) fn printable(key: &model::key::Key) -> String {
    let text = key.to_string();
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text }
}
