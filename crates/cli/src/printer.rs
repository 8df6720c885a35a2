//! The only place that prints: results to stdout, everything else to stderr. A line that cannot be written is lost: the disk
//! of a log may be full, and the reader of a pipe may have ended.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::printable::Printable;

/// What the user wants to see.
#[derive(Clone, Debug)]
pub(crate) struct Printer {
    quiet: bool,
    terminal: bool,
    colour: bool,
    /// The line of progress, from its first text on. It is truncated to the width of the terminal, and removed while
    /// something else is printed and at the end.
    progress: OnceLock<ProgressBar>,
}

impl Printer {
    /// By flags, terminal and `NO_COLOR`.
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { quiet, terminal, colour, progress: OnceLock::new() }
    }

    /// True when a progress bar can be drawn.
    pub(crate) fn draws(&self) -> bool {
        self.terminal && !self.quiet
    }

    /// A result.
    pub(crate) fn result(&self, text: &str) {
        // A closed pipe is the reader's choice, not an error.
        let _ = self.without_progress(|| writeln!(std::io::stdout(), "{text}"));
    }

    /// Asks on the terminal; without one the answer is no.
    pub(crate) fn confirms(&self, question: &str) -> bool {
        if !self.terminal || !std::io::stdin().is_terminal() {
            return false;
        }
        self.without_progress(|| {
            let mut stderr = std::io::stderr();
            let _ = write!(stderr, "{question} [y/N] ");
            let _ = stderr.flush();
            let mut answer = String::new();
            std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
        })
    }

    /// A line for people.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            let _ = self.without_progress(|| writeln!(std::io::stderr(), "{}", safe(text)));
        }
    }

    /// An error, with what to do about it.
    pub(crate) fn error(&self, text: &str, hint: Option<&str>) {
        let (on, off) = if self.colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        self.without_progress(|| {
            let mut stderr = std::io::stderr();
            let _ = writeln!(stderr, "{on}error:{off} {}", safe(text));
            if let Some(hint) = hint {
                let _ = writeln!(stderr, "\nhint: {}", safe(hint));
            }
        });
    }

    /// Draws over the current line; only on a terminal.
    pub(crate) fn progress(&self, text: &str) {
        if self.draws() {
            let line = self.progress.get_or_init(|| progress_line(ProgressDrawTarget::stderr()));
            line.set_message(text.to_owned());
        }
    }

    /// Removes the line of progress while `print` runs.
    fn without_progress<T>(&self, print: impl FnOnce() -> T) -> T {
        match self.progress.get() {
            Some(line) => line.suspend(print),
            None => print(),
        }
    }
}

fn progress_line(target: ProgressDrawTarget) -> ProgressBar {
    let line = ProgressBar::with_draw_target(None, target);
    // The template is a constant; `{wide_msg}` is the text, truncated to the width.
    if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
        line.set_style(style);
    }
    line
}

/// A text with lines of our own: what others named in it must not act on the terminal.
fn safe(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| Printable(line).to_string()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    fn printer(terminal: &InMemoryTerm) -> Printer {
        let progress = progress_line(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        Printer { quiet: false, terminal: true, colour: false, progress: progress.into() }
    }

    #[test]
    fn long_progress_is_cut_to_one_row_and_replaced() {
        let terminal = InMemoryTerm::new(5, 20);
        let printer = printer(&terminal);
        assert_eq!(terminal.contents(), "", "nothing is drawn before the first text");
        printer.progress("100 objects  3.5 MiB  1 MiB/s  0 retries");
        assert_eq!(terminal.contents(), "100 objects  3.5 MiB");
        printer.progress("done");
        assert_eq!(terminal.contents(), "done");
    }

    #[test]
    fn progress_is_removed_at_the_end_and_while_a_note_is_printed() {
        let terminal = InMemoryTerm::new(5, 20);
        let printer = printer(&terminal);
        printer.progress("10%");
        printer.without_progress(|| assert_eq!(terminal.contents(), ""));
        assert_eq!(terminal.contents(), "10%");
        drop(printer);
        assert_eq!(terminal.contents(), "");
    }
}
