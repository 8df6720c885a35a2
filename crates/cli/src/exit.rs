//! Exit codes, decided in one place (contract §1).

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done and proved.
    Done,
    /// Finished, but something failed or differs.
    Differs,
    /// Usage or configuration.
    Usage,
    /// Could not start, or lost an endpoint.
    NotStarted,
    /// Stopped by Ctrl-C with the state saved.
    Stopped,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => 0,
            Exit::Differs => 1,
            Exit::Usage => 2,
            Exit::NotStarted => 3,
            Exit::Stopped => 130,
        }
        .into()
    }
}
