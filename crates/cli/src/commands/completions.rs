//! `whimbrel completions SHELL`

use clap::CommandFactory;

use crate::args::Cli;
use crate::exit::Exit;
use crate::printer::Printer;

pub(crate) fn run(shell: clap_complete::Shell, printer: &Printer) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "whimbrel", &mut text);
    printer.result(String::from_utf8_lossy(&text).trim_end());
    Exit::Done
}
