//! Where keys and changes go.

pub mod lacks;
pub(crate) mod many;
pub mod pipeline;

use std::sync::Arc;

use model::failure::Result;

use self::many::Many;
use self::pipeline::{About, Pipeline, Shared};

/// One server, or a cluster.
#[derive(Debug)]
pub enum Writer {
    /// One connection that is kept full.
    One(Pipeline),
    /// A transaction at a time for each slot.
    Many(Box<Many>),
}

impl Writer {
    /// Where commands of a snapshot are written; each is to be followed by [`Writer::expect`].
    pub fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Writer::One(one) => one.out(),
            Writer::Many(many) => many.out(),
        }
    }

    /// Puts a long value into what was written, at a place of [`Writer::out`]; a single server is sent all of it at once, so
    /// that it need not be copied.
    ///
    /// # Errors
    /// What the target answered, or the connection met.
    pub async fn insert(&mut self, at: usize, value: &[u8]) -> Result<()> {
        match self {
            Writer::One(one) => one.insert(at, value).await,
            Writer::Many(many) => {
                many.out().splice(at..at, value.iter().copied());
                Ok(())
            }
        }
    }

    /// What follows is about this key.
    pub fn at(&mut self, key: &[u8]) {
        if let Writer::Many(many) = self {
            many.at(key);
        }
    }

    /// True when there is only database 0.
    pub fn is_cluster(&self) -> bool {
        matches!(self, Writer::Many(_))
    }

    /// Says what the answer to one command is about; `bytes` is how long that was.
    pub fn expect(&mut self, about: About, bytes: usize) {
        match self {
            Writer::One(one) => one.expect(about, bytes),
            Writer::Many(many) => many.expect(about),
        }
    }

    /// Sends what was written when that is enough, and waits while too much is unanswered.
    ///
    /// # Errors
    /// What the target answered, or the connection met.
    pub async fn pace(&mut self) -> Result<()> {
        match self {
            Writer::One(one) => one.pace().await,
            Writer::Many(many) => many.pace().await,
        }
    }

    /// Sends everything and waits for all answers.
    ///
    /// # Errors
    /// As [`Writer::pace`].
    pub async fn settle(&mut self) -> Result<()> {
        match self {
            Writer::One(one) => one.settle().await,
            Writer::Many(many) => many.settle().await,
        }
    }

    /// True when everything that was sent is answered.
    pub fn is_settled(&self) -> bool {
        match self {
            Writer::One(one) => one.is_settled(),
            Writer::Many(many) => many.is_settled(),
        }
    }

    /// What is counted.
    pub fn shared(&self) -> &Arc<Shared> {
        match self {
            Writer::One(one) => &one.shared,
            Writer::Many(many) => &many.shared,
        }
    }
}
