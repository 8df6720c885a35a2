//! Where keys and changes go.

pub mod lacks;
pub(crate) mod many;
pub mod pipeline;
mod replies;

use std::sync::Arc;
use std::time::Duration;

use model::failure::{Result, Side};

use self::many::{Fence, Many};
use self::pipeline::{About, Pipeline, Shared};
use crate::client::Client;
use crate::marker::Names;
use crate::node::Node;
use crate::topology::Topology;

/// A connection that is used less often is given a sign of life: servers and proxies close idle ones, some after a second.
pub(crate) const ALIVE: Duration = Duration::from_millis(400);

/// One server, or a cluster.
#[derive(Debug)]
pub enum Writer {
    /// One connection that is kept full.
    One(Pipeline),
    /// A transaction at a time for each slot.
    Many(Box<Many>),
}

impl Writer {
    /// For work that begins anew when it is interrupted: whoever did it before has nothing to go on from, and needs no fence
    /// but at a cluster, whose writer has one.
    ///
    /// # Errors
    /// What the connections meet.
    pub(crate) async fn anew(target: &Node, topology: Option<&Topology>, what: &str) -> Result<Self> {
        let shared = Shared::new(Arc::default());
        match topology {
            None => {
                let node = Node { db: None, ..target.clone() };
                let client = Client::open(&node).await.map_err(|f| f.at(Side::Target))?;
                Ok(Writer::One(Pipeline::new(client, shared.applied.clone())))
            }
            Some(topology) => {
                let token = format!("{:032x}", fastrand::u128(..));
                let fence = Fence { names: Names::new(&format!("{what}-{token}")), token };
                Ok(Writer::Many(Box::new(Many::open(target.clone(), topology, fence, true, shared).await?)))
            }
        }
    }

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

    /// The database that the next command is about; none: not known.
    pub(crate) fn db(&self) -> Option<u32> {
        match self {
            Writer::One(one) => one.db,
            Writer::Many(_) => Some(0),
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

    /// A sign of life while nothing is to be written. Not while a transaction of the stream is open.
    ///
    /// # Errors
    /// As [`Writer::pace`].
    pub async fn keep_alive(&mut self) -> Result<()> {
        match self {
            Writer::One(one) => one.keep_alive().await,
            Writer::Many(many) => many.keep_alive().await,
        }
    }

    /// Waits for other work, with signs of life to the target.
    ///
    /// # Errors
    /// As [`Writer::pace`].
    pub(crate) async fn alive_while<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(ALIVE);
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => self.keep_alive().await?,
                done = &mut work => return Ok(done),
            }
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

    /// Fails when the target has said, or the connection met, what ends the work.
    ///
    /// # Errors
    /// As [`Writer::pace`].
    pub async fn check(&mut self) -> Result<()> {
        match self {
            Writer::One(one) => one.shared.check(),
            Writer::Many(many) => many.hear_all().await,
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
