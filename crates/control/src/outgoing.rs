//! Calls of the API that send requests to servers which a caller named: bucket listings, checks before a task is created,
//! checks of Redis servers. Such a server may answer as slowly as it likes, so their number and their time are bounded.
//!
//! A call takes a place with [`Control::begin_outgoing`]. Methods that send requests are methods of [`OutgoingCall`], so
//! that none can be called without a place.

use std::time::Duration;

use flow_control::caller_limit::{CallerLimit, Reservation};
use model::error::{Error, Kind, Result};

use crate::Control;
use crate::task_error::{TaskError, TaskResult};

/// Outgoing calls of all projects at once.
const MAX_OUTGOING: u64 = 64;
/// Outgoing calls of one project at once; the others have places left.
const MAX_OUTGOING_PER_PROJECT: u64 = 16;
/// One outgoing call may take so long in total, however many requests it sends.
pub(crate) const OUTGOING_TIMEOUT: Duration = Duration::from_secs(30);

/// The places; clones share the same.
#[derive(Clone, Debug)]
pub struct OutgoingLimit(CallerLimit<String>);

impl Default for OutgoingLimit {
    fn default() -> Self {
        Self(CallerLimit::new(MAX_OUTGOING, MAX_OUTGOING_PER_PROJECT))
    }
}

/// A call of one project with a place; the place is free again when this is dropped.
pub struct OutgoingCall {
    /// Sees the stores of the project only.
    pub(crate) control: Control,
    _place: Reservation<String>,
}

impl OutgoingLimit {
    fn begin(&self, project: &str) -> Option<Reservation<String>> {
        self.0.reserve(project.to_owned(), 1)
    }
}

impl Control {
    /// Takes a place for one call of a project.
    ///
    /// # Errors
    /// [`TaskError::Busy`] when the project, or all projects together, have all their places in use.
    pub fn begin_outgoing(&self, project: &str) -> TaskResult<OutgoingCall> {
        let place = self.outgoing.begin(project).ok_or(TaskError::Busy("too many calls wait for stores"))?;
        Ok(OutgoingCall { control: self.for_project(project), _place: place })
    }
}

/// Ends a call after [`OUTGOING_TIMEOUT`].
pub(crate) async fn in_time<T>(op: &'static str, call: impl Future<Output = T>) -> Result<T> {
    let late = || {
        let m = format!(
            "the store did not answer completely within {} s; hint: check the endpoint, or narrow the request",
            OUTGOING_TIMEOUT.as_secs()
        );
        Error::new(Kind::Timeout, op, m)
    };
    tokio::time::timeout(OUTGOING_TIMEOUT, call).await.map_err(|_| late())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_f14_outgoing_calls_are_limited_per_project_and_in_total() {
        let limit = OutgoingLimit::default();
        let of =
            |project: &str| -> Vec<_> { (0..MAX_OUTGOING).map_while(|_| limit.begin(project)).collect() };
        let mut first = of("a");
        assert_eq!(first.len() as u64, MAX_OUTGOING_PER_PROJECT);
        assert!(limit.begin("b").is_some(), "another project has places");
        first.pop();
        assert!(limit.begin("a").is_some(), "a place that is given back can be used");
        let others: Vec<_> = (0..MAX_OUTGOING).flat_map(|i| of(&format!("p{i}"))).collect();
        assert_eq!((first.len() + others.len()) as u64, MAX_OUTGOING);
    }

    #[tokio::test(start_paused = true)]
    async fn sec_f14_outgoing_call_ends_at_its_timeout() {
        let began = tokio::time::Instant::now();
        let late = in_time("list", std::future::pending::<()>()).await.unwrap_err();
        assert_eq!((late.kind, began.elapsed()), (Kind::Timeout, OUTGOING_TIMEOUT));
    }
}
