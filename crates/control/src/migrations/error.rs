//! Why a request about a Redis migration is rejected, before the API gives it a code (dcs-migration.md §5).

use model::error::{Error, Kind, Side};
use model::migration::{MigrationIllegal, Phase};

/// A refused request.
#[derive(Clone, Debug)]
pub enum MigrationError {
    /// A member is missing or not acceptable: its dotted name, and why.
    Field(String, String),
    /// The description is longer than it may be.
    Description,
    /// The remark of a backup is too long.
    Remark,
    /// The end of a period is before its beginning.
    Period,
    /// An id of the network is missing: the member.
    Network(&'static str),
    /// An identity that cannot be one of a task.
    TaskId(String),
    /// An identity that cannot be one of an instance.
    InstanceId(String),
    /// There is no such task, or no such job.
    NoTask,
    /// No such instance is registered.
    NoInstance(String),
    /// Not in this state.
    State(Phase, MigrationIllegal),
    /// The ids of a call for several tasks.
    TooManyIds(String),
    /// A well-formed value that cannot be used: its dotted name, and why.
    UnusableInstance(String, String),
    /// An end does not take the password.
    Password(String),
    /// The source does not replicate, or clients cannot be redirected.
    NotOnThisNode(String),
    /// The target may not be written.
    ReadOnly(String),
    /// The target is that of another active task.
    InUse(String),
    /// A registered instance does not answer.
    NotRunning(String),
    /// A backup that cannot be used.
    Backup(String),
    /// There is no such backup (any more).
    NoBackup(String),
    /// A backup that is being made.
    BackupRuns(String),
    /// A bound of the project is reached.
    Quota(String),
    /// Domain names do not move here.
    Domain,
    /// It has not stopped in time; it goes on stopping.
    StillStopping,
    /// Our own trouble.
    Internal(Error),
}

impl From<Error> for MigrationError {
    fn from(failure: Error) -> Self {
        MigrationError::Internal(failure)
    }
}

/// Why an end cannot be used; `member` names it as the request does.
pub(super) fn from_failure(member: &str, registered: bool, failure: &Error) -> MigrationError {
    let said = format!("{member}: {}", failure.message);
    match failure.kind {
        Kind::BadCredentials => MigrationError::Password(said),
        Kind::ReadOnly => MigrationError::ReadOnly(said),
        Kind::Connect | Kind::Timeout | Kind::Unavailable if registered => MigrationError::NotRunning(said),
        Kind::NotFound if failure.side != Side::Local => MigrationError::NoInstance(failure.message.clone()),
        _ => MigrationError::UnusableInstance(member.to_owned(), failure.message.clone()),
    }
}

/// Short for answers of use cases.
pub type MigrationReply<T> = Result<T, MigrationError>;
