//! What is known of the bytes of a transfer once they have passed.

use std::sync::{Arc, Mutex};

use model::error::Error;

use crate::checksum::Digests;

/// What the observer saw, readable once the stream has ended or failed.
#[derive(Clone, Debug, Default)]
pub struct Observation(Arc<Mutex<(Option<Digests>, Option<Error>)>>);

impl Observation {
    /// The digests, when the stream ended completely.
    pub fn digests(&self) -> Option<Digests> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    /// The failure of the side that was read, when that was the cause.
    pub fn failure(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1.clone()
    }

    pub(crate) fn set(&self, digests: Option<Digests>, failure: Option<Error>) {
        let mut seen = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.0 = digests.or(seen.0.take());
        seen.1 = failure.or(seen.1.take());
    }
}
