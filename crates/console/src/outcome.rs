//! What is said when a request cannot be answered as asked: whole pages for requests that are refused, and sentences for
//! changes that a use case refuses.

use axum::response::{IntoResponse, Response};
use control::TaskError;
use control::migrations::{MigrationError, error_of};
use http::StatusCode;
use model::error::Error;
use model::policy::WindowError;
use model::printable::Printable;
use model::task::{Event, Illegal};

use crate::text::Text;

/// A request that is answered with a page of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PageError {
    /// The project does not have this page, task or migration.
    NotFound,
    /// The role does not permit it.
    Role,
    /// The form comes from another site.
    Origin,
    /// The form belongs to another session.
    Csrf,
    /// Too many requests or streams.
    Busy,
    /// The form is too large.
    TooLarge,
    /// The form did not arrive in time or was cut off.
    Late,
    /// The session does not exist, or has ended.
    NoSession,
    /// Our own trouble; it is in the log under the request's id.
    Internal,
}

/// Short for answers of pages.
pub(crate) type Reply = Result<Response, PageError>;

impl PageError {
    fn status(&self) -> StatusCode {
        match self {
            PageError::NotFound => StatusCode::NOT_FOUND,
            PageError::Role | PageError::Origin | PageError::Csrf => StatusCode::FORBIDDEN,
            PageError::Busy => StatusCode::TOO_MANY_REQUESTS,
            PageError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            PageError::Late => StatusCode::REQUEST_TIMEOUT,
            PageError::NoSession => StatusCode::UNAUTHORIZED,
            PageError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Title and sentence.
    pub(crate) fn words(&self, t: Text) -> (&'static str, &'static str) {
        match self {
            PageError::NotFound => (t.error_not_found(), t.error_not_found_why()),
            PageError::Role => (t.error_role(), t.error_role_why()),
            PageError::Origin => (t.error_origin(), t.error_origin_why()),
            PageError::Csrf => (t.error_csrf(), t.error_csrf_why()),
            PageError::Busy => (t.error_busy(), t.error_busy_why()),
            PageError::TooLarge => (t.error_too_large(), t.error_too_large_why()),
            PageError::Late => (t.error_late(), t.error_late_why()),
            PageError::NoSession => (t.error_no_session(), t.error_no_session_why()),
            PageError::Internal => (t.error_internal(), t.error_internal_why()),
        }
    }
}

/// The gate draws the page: it knows the viewer and the request's id.
impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<TaskError> for PageError {
    fn from(refused: TaskError) -> Self {
        match refused {
            TaskError::NotFound(_) | TaskError::TaskId(_) => PageError::NotFound,
            TaskError::Busy(_) => PageError::Busy,
            other => {
                tracing::error!("a page of the console failed: {other:?}");
                PageError::Internal
            }
        }
    }
}

impl From<MigrationError> for PageError {
    fn from(refused: MigrationError) -> Self {
        match refused {
            MigrationError::NoTask | MigrationError::TaskId(_) | MigrationError::NoInstance(_) => {
                PageError::NotFound
            }
            other => {
                tracing::error!("a page of the console failed: {other:?}");
                PageError::Internal
            }
        }
    }
}

impl From<Error> for PageError {
    fn from(failure: Error) -> Self {
        tracing::error!("a page of the console failed: {failure}");
        PageError::Internal
    }
}

/// A failure in one sentence, and what to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) what: String,
    pub(crate) hint: String,
}

fn printable(text: &str) -> String {
    Printable(text).to_string()
}

impl Message {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: String::new() }
    }

    /// Of a text that may carry its hint.
    fn of_text(t: Text, text: &str) -> Self {
        let (what, hint) = model::error::split_hint(text);
        Self { what: t.sentence(&printable(what)), hint: t.sentence(&printable(hint.unwrap_or_default())) }
    }

    /// Of a failure at one end.
    pub(crate) fn of_failure(t: Text, failure: &Error) -> Self {
        let (what, _) = failure.with_hint();
        Self { what: format!("{}{}", t.side(failure.side), printable(what)), hint: t.remedy(failure) }
    }

    /// Why a change of a task is refused.
    pub(crate) fn of_task(t: Text, refused: &TaskError) -> Self {
        match refused {
            TaskError::Check(f) | TaskError::Buckets(f) | TaskError::BucketRegion(f) => {
                Self::of_failure(t, f)
            }
            TaskError::Internal(f) => {
                tracing::error!("a change of the console failed: {f}");
                Self::new(t.error_internal_why())
            }
            TaskError::Illegal(event, why) => Self::new(illegal(t, *event, *why)),
            TaskError::Missing(field) => Self::new(t.is_missing(printable(field))),
            TaskError::Invalid(field, why) => {
                let Message { what, hint } = Self::of_text(t, why);
                Self { what: t.is_invalid(printable(field), what), hint }
            }
            TaskError::TooLong(field, max) => Self::new(t.is_too_long(printable(field), t.int(*max as u64))),
            TaskError::Description(which) => Self::new(t.description_characters(which)),
            TaskError::Source(why) | TaskError::Target(why) | TaskError::CdnDomain(why) => {
                Self::of_text(t, why)
            }
            TaskError::SourceRegion(name) | TaskError::TargetRegion(name) => {
                Self { what: t.no_store(printable(name)), hint: t.no_store_hint().to_owned() }
            }
            TaskError::Windows(why) => Self::new(window(t, *why)),
            TaskError::Member => Self::new(t.member_of_group()),
            TaskError::BandwidthClosed => Self::new(t.limit_of_ended()),
            TaskError::NoFailedList => Self::new(t.no_failed_list()),
            TaskError::FailedListIncomplete => Self::new(t.failed_list_incomplete()),
            TaskError::Busy(_) => Self::new(t.error_busy_why()),
            TaskError::Quota(why) => Self::new(t.quota_reached(printable(why))),
            TaskError::NoSuchObject(key) => Self::new(t.no_such_object(printable(key))),
            TaskError::NotFound(_) => Self::new(t.error_not_found_why()),
            other => Self::new(t.refused(printable(&format!("{other:?}")))),
        }
    }

    /// Why a change of a Redis migration is refused.
    pub(crate) fn of_migration(t: Text, refused: &MigrationError) -> Self {
        match refused {
            MigrationError::State(_, why) => Self::of_text(t, error_of(*why)),
            MigrationError::Field(field, why) | MigrationError::UnusableInstance(field, why) => {
                let Message { what, hint } = Self::of_text(t, why);
                Self { what: t.is_invalid(printable(field), what), hint }
            }
            MigrationError::Password(why)
            | MigrationError::NotOnThisNode(why)
            | MigrationError::ReadOnly(why)
            | MigrationError::InUse(why)
            | MigrationError::NotRunning(why)
            | MigrationError::Quota(why) => Self::of_text(t, why),
            MigrationError::StillStopping => Self::new(t.still_stopping()),
            MigrationError::NoTask => Self::new(t.error_not_found_why()),
            MigrationError::Internal(f) => {
                tracing::error!("a change of the console failed: {f}");
                Self::new(t.error_internal_why())
            }
            other => Self::new(t.refused(printable(&format!("{other:?}")))),
        }
    }
}

fn illegal(t: Text, event: Event, why: Illegal) -> &'static str {
    match (event, why) {
        (Event::Delete, _) => t.delete_while_running(),
        (_, Illegal::AlreadyStarted) => t.already_started(),
        (_, Illegal::NotRunning) => t.not_running(),
        (_, Illegal::Complete) => t.already_complete(),
        (_, Illegal::InProgress) => t.delete_while_running(),
        (_, Illegal::UnexpectedEvent) => t.state_changed(),
    }
}

fn window(t: Text, why: WindowError) -> &'static str {
    match why {
        WindowError::TooMany => t.windows_too_many(),
        WindowError::OutOfRange => t.windows_out_of_range(),
        WindowError::BadTime => t.windows_bad_time(),
        WindowError::Overlap => t.windows_overlap(),
    }
}
