//! Where keys and changes go.

pub(crate) mod cluster;
pub mod functions;
pub mod pipeline;
mod replies;
pub(crate) mod slot_router;
pub(crate) mod transaction;

use std::sync::Arc;

use model::error::{Result, Side};

use self::cluster::{ClusterWriter, Fence};
use self::pipeline::{PendingReply, Pipeline, Shared};
use crate::checkpoint::keys::{KeyNames, new_token};
use crate::connection::client::{Client, KEEP_ALIVE_INTERVAL};
use crate::connection::node::Node;
use crate::connection::topology::Topology;
use crate::operation::{Encoder, Operation};

/// One server, or a cluster.
#[derive(Debug)]
pub enum Writer {
    /// One connection that is kept full.
    Standalone(Pipeline),
    /// A transaction at a time for each slot.
    Cluster(Box<ClusterWriter>),
}

impl Writer {
    /// For work that starts over when it is interrupted: an earlier run has no checkpoint, and is fenced only at a cluster,
    /// whose writer always fences.
    ///
    /// # Errors
    /// An error of a connection.
    pub(crate) async fn for_restartable_work(
        target: &Node,
        topology: Option<&Topology>,
        what: &str,
    ) -> Result<Self> {
        let shared = Shared::new(Arc::default());
        match topology {
            None => {
                let node = Node { db: None, ..target.clone() };
                let client = Client::open(&node).await.map_err(|f| f.at(Side::Target))?;
                Ok(Writer::Standalone(Pipeline::new(client, shared.applied.clone())))
            }
            Some(topology) => {
                let token = new_token();
                let fence = Fence { names: KeyNames::new(&format!("{what}-{token}")), token };
                Ok(Writer::Cluster(Box::new(
                    ClusterWriter::open(target.clone(), topology, fence, true, shared).await?,
                )))
            }
        }
    }

    /// The operations that follow are of a command between two offsets of the stream, or of no stream.
    pub(crate) fn begin_command(&mut self, span: Option<(u64, u64)>) {
        if let Writer::Cluster(cluster) = self {
            cluster.begin_command(span);
        }
    }

    /// True when commands of the stream wait for the end of their transaction.
    pub(crate) fn is_transaction_open(&self) -> bool {
        match self {
            Writer::Standalone(one) => one.changes.is_open(),
            Writer::Cluster(cluster) => cluster.is_in_source_transaction(),
        }
    }

    /// Forgets the part of the stream that will not end its transaction.
    pub(crate) fn abandon(&mut self) {
        match self {
            Writer::Standalone(one) => one.abandon(),
            Writer::Cluster(cluster) => cluster.abandon(),
        }
    }

    /// What follows are changes: those before may have selected another database.
    pub(crate) fn resume_changes(&mut self) {
        if let Writer::Standalone(one) = self {
            one.changes.set_selected(one.db);
        }
    }

    /// Where commands of a snapshot are written; each is to be followed by [`Writer::push_pending`].
    pub fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Writer::Standalone(one) => one.out(),
            Writer::Cluster(cluster) => cluster.out(),
        }
    }

    /// Puts a long value into what was written, at a place of [`Writer::out`]; a single server is sent all of it at once, so
    /// that it need not be copied.
    ///
    /// # Errors
    /// An error reply of the target, or an error of the connection.
    pub async fn insert(&mut self, at: usize, value: &[u8]) -> Result<()> {
        match self {
            Writer::Standalone(one) => one.insert(at, value).await,
            Writer::Cluster(cluster) => {
                cluster.out().splice(at..at, value.iter().copied());
                Ok(())
            }
        }
    }

    /// What follows is about this key.
    pub fn set_key(&mut self, key: &[u8]) {
        if let Writer::Cluster(cluster) = self {
            cluster.set_key(key);
        }
    }

    /// The database that the next command is about; none: not known.
    pub(crate) fn db(&self) -> Option<u32> {
        match self {
            Writer::Standalone(one) => one.db,
            Writer::Cluster(_) => Some(0),
        }
    }

    /// True when there is only database 0.
    pub fn is_cluster(&self) -> bool {
        matches!(self, Writer::Cluster(_))
    }

    /// Says what the answer to one command is about; `bytes` is how long that was.
    pub fn push_pending(&mut self, pending: PendingReply, bytes: usize) {
        match self {
            Writer::Standalone(one) => one.push_pending(pending, bytes),
            Writer::Cluster(cluster) => cluster.push_pending(pending),
        }
    }

    /// Sends what was written when that is enough, and waits while too much is unanswered.
    ///
    /// # Errors
    /// An error reply of the target, or an error of the connection.
    pub async fn apply_backpressure(&mut self) -> Result<()> {
        match self {
            Writer::Standalone(one) => one.apply_backpressure().await,
            Writer::Cluster(cluster) => cluster.apply_backpressure().await,
        }
    }

    /// A sign of life while nothing is to be written. Not while a transaction of the stream is open.
    ///
    /// # Errors
    /// As [`Writer::apply_backpressure`].
    pub async fn keep_alive(&mut self) -> Result<()> {
        match self {
            Writer::Standalone(one) => one.keep_alive().await,
            Writer::Cluster(cluster) => cluster.keep_alive().await,
        }
    }

    /// Waits for other work, with signs of life to the target.
    ///
    /// # Errors
    /// As [`Writer::apply_backpressure`].
    pub(crate) async fn keep_alive_while<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(KEEP_ALIVE_INTERVAL);
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
    /// As [`Writer::apply_backpressure`].
    pub async fn flush(&mut self) -> Result<()> {
        match self {
            Writer::Standalone(one) => one.flush().await,
            Writer::Cluster(cluster) => cluster.flush().await,
        }
    }

    /// Fails after an error reply of the target or an error of the connection.
    ///
    /// # Errors
    /// As [`Writer::apply_backpressure`].
    pub async fn check(&mut self) -> Result<()> {
        match self {
            Writer::Standalone(one) => one.shared.check(),
            Writer::Cluster(cluster) => cluster.drain_replies().await,
        }
    }

    /// True when everything that was sent is answered.
    pub fn is_idle(&self) -> bool {
        match self {
            Writer::Standalone(one) => one.is_idle(),
            Writer::Cluster(cluster) => cluster.is_idle(),
        }
    }

    /// What is counted.
    pub fn shared(&self) -> &Arc<Shared> {
        match self {
            Writer::Standalone(one) => &one.shared,
            Writer::Cluster(cluster) => &cluster.shared,
        }
    }
}

impl Encoder for Writer {
    fn push(&mut self, operation: Operation<'_>) -> Result<()> {
        match self {
            Writer::Standalone(one) => one.push(operation),
            Writer::Cluster(cluster) => cluster.push(operation),
        }
    }
}
