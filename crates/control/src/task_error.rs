//! Why a request is rejected, before the API gives it a code.

use model::error::{Error, Kind, Reason, Side};
use model::group::GroupIllegal;
use model::policy::WindowError;
use model::task::{Event, Illegal};

/// A refused request.
#[derive(Clone, Debug)]
pub enum TaskError {
    /// A required field is missing.
    Missing(String),
    /// A required parameter of the query is missing.
    MissingQuery(String),
    /// A field has the wrong JSON type; the second text says what is expected.
    WrongType(String, &'static str),
    /// A text or list is too long; the number is the limit.
    TooLong(String, usize),
    /// A field's value is not acceptable; the second text says why and what is.
    Invalid(String, String),
    /// The description has forbidden characters: these.
    Description(&'static str),
    /// `thread_num` of v1 is out of range.
    Threads,
    /// The source's fields do not fit together.
    Source(String),
    /// The destination's fields do not fit together.
    Target(String),
    /// Nothing is served under this source region.
    SourceRegion(String),
    /// Nothing is served under this destination region.
    TargetRegion(String),
    /// Bandwidth windows.
    Windows(WindowError),
    /// Limit or offset out of range.
    Range(String),
    /// A state that does not exist.
    State(String),
    /// An identity that cannot be one.
    TaskId(String),
    /// No such thing.
    NotFound(String),
    /// Not in this state.
    Illegal(Event, Illegal),
    /// No webhook is configured for a topic.
    Topic(String),
    /// What stands for a CDN's domain is none.
    CdnDomain(String),
    /// The CDN's key is missing.
    CdnKey,
    /// A member of a group is deleted with its group only.
    Member,
    /// A group is not in the phase for this.
    GroupIllegal(GroupIllegal),
    /// There is no such group.
    NoSuchGroup(String),
    /// A sync task is started already.
    SyncStarted,
    /// A sync task is stopped.
    SyncStopped,
    /// A sync task must be stopped first.
    SyncRunning,
    /// There is no such sync task.
    NoSuchSync(String),
    /// Bandwidth of a finished task.
    BandwidthClosed,
    /// The failed-object list is missing.
    NoFailedList,
    /// The failed-object list is incomplete.
    FailedListIncomplete,
    /// Too many calls of a kind at once; the text says which.
    Busy(&'static str),
    /// Too many tasks; the text says which limit.
    Quota(String),
    /// A check at one end failed before the task was accepted.
    Check(Error),
    /// Buckets or their contents could not be listed.
    Buckets(Error),
    /// The region of a bucket could not be found out.
    BucketRegion(Error),
    /// The named source object does not exist.
    NoSuchObject(String),
    /// Our own trouble.
    Internal(Error),
}

impl From<Error> for TaskError {
    fn from(failure: Error) -> Self {
        match (failure.kind, failure.side) {
            (Kind::NotFound, Side::Local) if failure.reason == Reason::NoSuchGroup => {
                TaskError::NoSuchGroup(failure.message)
            }
            (Kind::NotFound, Side::Local) if failure.reason == Reason::NoSuchSyncTask => {
                TaskError::NoSuchSync(failure.message)
            }
            (Kind::NotFound, Side::Local) => TaskError::NotFound(failure.message),
            (_, Side::Local) => TaskError::Internal(failure),
            _ => TaskError::Check(failure),
        }
    }
}

/// Short for answers of use cases.
pub type TaskResult<T> = Result<T, TaskError>;
