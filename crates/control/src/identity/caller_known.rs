//! How a face tells the connection of a request that its caller is known: such a connection is not closed for another one
//! while it is busy.

use std::sync::Arc;

/// Told, by a request's extensions, when the caller of the request is known.
#[derive(Clone)]
pub struct CallerKnown(Arc<dyn Fn() + Send + Sync>);

impl CallerKnown {
    /// `tell` is called at most once for a request.
    pub fn new(tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Says that the caller is known.
    pub fn tell(&self) {
        (self.0)();
    }
}
